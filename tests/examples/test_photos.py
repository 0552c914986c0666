"""`python -m examples.photos`: which images are extracted, and whether the labels agree with the training kinds."""

import csv
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from dataset.errors import UserError
from examples.furniture.catalog import LABELS as FURNITURE_LABELS
from examples.photos.__main__ import LABELS, Photos, read_stamp_labels, run, visible_px
from render.procedural.catalog import KINDS
from tests.support.debian import make_deb

FURNITURE_ONLY = {  # kinds that are known from the furniture alone
    "ball",
    "candle",
    "chicken",
    "drinking glass",
    "mailbox",
    "shovel",
    "tape measure",
    "toilet",
    "trash can",
}
STAMPS = "usr/share/tuxpaint/stamps"


def image(size: int, visible: int, mode: str = "RGBA") -> bytes:
    picture = Image.new("RGBA", (size, size))
    picture.paste((255, 0, 0, 255), (0, 0, visible, visible // 2))
    file = io.BytesIO()
    picture.convert(mode).save(file, "PNG")
    return file.getvalue()


def labels_file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["file,label,known,style", *lines]) + "\n")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_labelled_images_of_sufficient_size_are_extracted(tmp_path, capsys, caplog):
    files = {
        "animals/cat.png": image(200, 160),
        "animals/small.png": image(200, 149),
        "animals/opaque.png": image(200, 160, "RGB"),
        "food/other.png": image(200, 160),
        "food/cat.svg": b"<svg/>",
    }
    deb = make_deb(tmp_path / "p.deb", {f"{STAMPS}/{name}": data for name, data in files.items()})
    table = labels_file(
        tmp_path,
        "animals/cat.png,cat,yes,photo",
        "animals/small.png,bee,no,photo",
        "animals/opaque.png,bee,no,photo",
        "animals/gone.png,bee,no,photo",
    )
    out = tmp_path / "out"
    run(Photos(deb, out, table))
    assert (out / "animals-cat.png").read_bytes() == files["animals/cat.png"]
    assert rows(out / "labels.csv") == [
        {"file": "animals-cat.png", "label": "cat", "known": "yes", "style": "photo"},
    ]
    assert sorted(path.name for path in out.iterdir()) == ["animals-cat.png", "labels.csv"]
    text = capsys.readouterr().out
    assert "skipped 1 images without a label: food (1)" in text
    assert "skipped 2 images below 150 px or without transparency: animals/small.png, animals/opaque.png" in text
    assert "1 images; 1 of 1 known kinds" in text
    assert "1 labelled images are not in" in caplog.text


def test_the_installed_folder_gives_the_same_files(tmp_path):
    data = image(200, 160)
    (tmp_path / "stamps" / "animals").mkdir(parents=True)
    (tmp_path / "stamps" / "animals" / "cat.png").write_bytes(data)
    table = labels_file(tmp_path, "animals/cat.png,cat,yes,photo")
    for source in (tmp_path / "stamps", make_deb(tmp_path / "p.deb", {f"{STAMPS}/animals/cat.png": data})):
        run(Photos(source, tmp_path / "out", table))
        run(Photos(source, tmp_path / "out", table))  # again: nothing changes
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["animals-cat.png", "labels.csv"]


def test_wrong_input_is_one_clear_error(tmp_path):
    table = labels_file(tmp_path, "animals/cat.png,cat,yes,photo")
    (tmp_path / "x.png").write_bytes(image(200, 160))
    with pytest.raises(UserError, match="is inside of"):
        run(Photos(tmp_path, tmp_path / "out", table))
    other = tmp_path / "elsewhere"
    other.mkdir()
    with pytest.raises(UserError, match=r"contains no \.png file"):
        run(Photos(other, tmp_path / "out", table))
    (other / "x.png").write_bytes(image(200, 160))
    with pytest.raises(UserError, match="contains none of the images"):
        run(Photos(other, tmp_path / "out", table))
    (other / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        run(Photos(other, tmp_path / "out", table))
    (tmp_path / "no.deb").write_bytes(b"PK")
    with pytest.raises(UserError, match="not a Debian package"):
        run(Photos(tmp_path / "no.deb", tmp_path / "out", table))
    whole = make_deb(tmp_path / "p.deb", {f"{STAMPS}/a.png": os.urandom(100_000)}).read_bytes()
    (tmp_path / "p.deb").write_bytes(whole[:50_000])
    with pytest.raises(UserError, match="damaged"):
        run(Photos(tmp_path / "p.deb", tmp_path / "out", table))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,cat,perhaps,photo", "known is 'perhaps'; it must be yes, no or near"),
        ("a.png,,yes,photo", "nothing in the column label; fill in the columns file, label, known and style"),
        ("a.png,cat", "nothing in the columns known and style; fill in"),
    ],
)
def test_a_bad_label_file_names_the_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"table\.csv, line 2: {message}"):
        read_stamp_labels(labels_file(tmp_path, line))


def test_only_the_visible_part_counts():
    assert visible_px(image(300, 100), "x.png") == 100
    assert visible_px(image(300, 0), "x.png") == 0


def test_labels_name_enough_images_and_agree_with_the_training_kinds():
    table = read_stamp_labels(LABELS).values()
    known, unknown, near = ({row["label"] for row in table if row["known"] == k} for k in ("yes", "no", "near"))
    assert sum(row["known"] == "yes" for row in table) >= 60
    assert sum(row["known"] == "no" for row in table) >= 40
    assert sum(row["known"] == "yes" and row["style"] == "photo" for row in table) >= 60
    assert not known & (unknown | near)
    assert known <= {*KINDS, *FURNITURE_ONLY}
    furniture = {row["label"] for row in rows(FURNITURE_LABELS)}
    assert not (unknown | near) & set(KINDS)
    assert not unknown & furniture
    assert len({row["file"] for row in table}) == len(table)
