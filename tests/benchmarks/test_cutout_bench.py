"""The benchmark of background removal, on two small objects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.images.cutout_bench import CLUTTER, GOOD, main
from dataset.errors import UserError


def test_the_last_line_is_json_with_a_part_for_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, color in (("a", "orange"), ("b", "navy")):
        picture = Image.new("RGBA", (140, 120))
        ImageDraw.Draw(picture).ellipse((5, 5, 130, 110), color, "black", 5)
        picture.save(tmp_path / f"{name}.png")
    assert main([str(tmp_path), "--size", "160", "--sheet", str(tmp_path / "sheets")]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["objects"] == 2
    for kind in GOOD:
        assert line[kind]["refused"] == 0
        assert line[kind]["mean_iou"] > 0.9
    for kind in CLUTTER:
        assert line[kind]["refused"] == 1
        assert line[kind]["mean_iou"] is None
    assert {path.stem for path in (tmp_path / "sheets").glob("*.png")} == {*GOOD, *CLUTTER}


def test_a_folder_without_cut_outs_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((120, 120, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has no RGBA image with transparent pixels"):
        main([str(tmp_path)])


@pytest.mark.parametrize("options", [["--size", "100"], ["--max-objects", "0"]])
def test_values_that_leave_no_composite_are_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), *options])
