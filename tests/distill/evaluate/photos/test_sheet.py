"""Contact sheets: places of strips, missing strips, the limit of the size, and the fixed choice of images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.evaluate.photos.choose_sheet import ChooseSheetArgs, choose_sheet
from distill.evaluate.photos.sheet import SheetRow, draw_sheet, write_sheet
from distill.evaluate.photos.views import write_strip


@pytest.fixture
def row(tmp_path: Path) -> SheetRow:
    """A red input, green samples and no asset."""
    for name, count, color in (("input", 1, (255, 0, 0)), ("samples", 4, (0, 255, 0))):
        write_strip(tmp_path / f"{name}.png", np.full((count, 8, 8, 3), color, np.uint8))
    return SheetRow((tmp_path / "input.png", tmp_path / "samples.png", None), ("cat", "input: cat (right)"))


def test_strips_are_side_by_side_and_missing_ones_marked(row):
    pixels = np.asarray(draw_sheet([row, row]))
    for top in (20, 122):
        assert (pixels[top : top + 96, :96] == (255, 0, 0)).all()
        assert (pixels[top : top + 96, 102 : 102 + 384] == (0, 255, 0)).all()
        failed = pixels[top : top + 96, 492 : 492 + 384]
        assert (failed == 255).all(-1).mean() > 0.98
        assert failed.min() < 100  # the word


def test_the_largest_quality_that_fits_is_chosen(row, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    write_strip(tmp_path / "samples.png", noise)
    write_sheet([row], tmp_path / "all.webp")
    write_sheet([row], tmp_path / "small.webp", 20_000)
    assert (tmp_path / "small.webp").stat().st_size <= 20_000 < (tmp_path / "all.webp").stat().st_size
    with pytest.raises(UserError, match="1 rows does not fit 100 bytes"):
        write_sheet([row], tmp_path / "tiny.webp", 100)
    assert not (tmp_path / "tiny.webp").exists()


def test_too_many_rows_for_the_format_are_refused(row, tmp_path):
    with pytest.raises(UserError, match="170 rows, 17360 pixels high, cannot be written as WEBP"):
        write_sheet([row] * 170, tmp_path / "s.webp")
    write_sheet([row] * 170, tmp_path / "s.jpg")


def evaluation(folder: Path, names: str) -> Path:
    images = []
    for name in names:
        write_strip(folder / "input" / f"{name}.png", np.full((1, 8, 8, 3), 99, np.uint8))
        named = {"input": {"top3": [name, "x", "y"], "rank": 1}}
        images.append({"label": name, "file": f"{name}.png", "strips": {"input": f"input/{name}.png"}, "named": named})
    (folder / "evaluation.json").write_text(json.dumps({"options": {"samples_only": False}, "images": images}))
    return folder


def test_the_first_images_of_each_evaluation_are_drawn(tmp_path, monkeypatch):
    drawn: list[SheetRow] = []
    monkeypatch.setattr("distill.evaluate.photos.choose_sheet.write_sheet", lambda rows, *_, **__: drawn.extend(rows))
    first, second = evaluation(tmp_path / "a", "pqr"), evaluation(tmp_path / "b", "s")
    out = tmp_path / "sheet.webp"
    out.write_bytes(b"")
    assert choose_sheet(ChooseSheetArgs((first, second), out, rows=2)).startswith(f"wrote {out}: 3 images")
    assert [each.texts[0] for each in drawn] == ["p", "q", "s"]
    assert drawn[0].strips == (first / "input" / "p.png", None, None)
    assert drawn[0].texts == ("p", "input: p (right)", "samples: failed", "asset: failed")


def test_unusable_folders_and_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not the result of an evaluation of images"):
        choose_sheet(ChooseSheetArgs((tmp_path,), tmp_path / "s.webp"))
    (tmp_path / "evaluation.json").write_text('{"options": {"samples_only": true}, "images": []}')
    with pytest.raises(UserError, match=f"^{tmp_path} contains no assets"):
        choose_sheet(ChooseSheetArgs((tmp_path,), tmp_path / "s.webp"))
    with pytest.raises(UserError, match="not the name of an image file"):
        choose_sheet(ChooseSheetArgs((tmp_path,), tmp_path / "s.txt"))


def test_a_sheet_without_inputs_has_their_names(row, tmp_path):
    pixels = np.asarray(draw_sheet([row], with_inputs=False))
    assert (pixels[20:116, :384] == (0, 255, 0)).all()
    assert not (pixels == (255, 0, 0)).all(-1).any()
    folder = evaluation(tmp_path / "a", "p")
    choose_sheet(ChooseSheetArgs((folder,), tmp_path / "without.png", inputs=False))
    with Image.open(tmp_path / "without.png") as image:
        assert image.width == 1072 - 96 - 6
