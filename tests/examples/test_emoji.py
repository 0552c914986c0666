"""`python -m examples.emoji`: the drawings and labels that it writes, and whether the kinds are training kinds."""

import csv
from pathlib import Path

import pytest
from PIL import Image, ImageFont

from dataset.errors import UserError
from examples.emoji import __main__ as command
from examples.emoji.__main__ import KINDS, Emoji, load_font, read_kinds, run
from render.procedural.catalog import KINDS as PROCEDURAL_KINDS
from tests.support.debian import make_deb


def table(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "kinds.csv"
    path.write_text("\n".join(["label,code_point,name", *rows]) + "\n")
    return path


def test_each_emoji_is_drawn_on_a_transparent_background(tmp_path, monkeypatch, capsys, caplog):
    """A font of letters replaces the emoji. Neither a space nor an emoji that the font lacks is visible."""
    monkeypatch.setattr(command, "load_font", lambda source: ImageFont.load_default(109))
    kinds = table(tmp_path, "cat,41,letter A", "owl,42,letter B", "cat,20,space")
    run(Emoji(tmp_path / "p.deb", tmp_path / "out", kinds))
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").read_text().splitlines()))
    assert rows == [{"file": "41.png", "label": "cat"}, {"file": "42.png", "label": "owl"}]
    with Image.open(tmp_path / "out" / "41.png") as image:
        assert image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (0, 255)
        assert image.getchannel("A").getbbox() == (0, 0, *image.size)
    assert "2 drawings of 2 kinds" in capsys.readouterr().out
    assert "does not contain 1 of the emoji: space" in caplog.text
    with pytest.raises(UserError, match="none of the emoji"):
        run(Emoji(tmp_path / "p.deb", tmp_path / "out", table(tmp_path, "cat,20,space")))


def test_a_package_without_the_font_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"does not contain NotoColorEmoji\.ttf"):
        load_font(make_deb(tmp_path / "a.deb", {"usr/share/fonts/Other.ttf": b"1"}))
    with pytest.raises(UserError, match=r"NotoColorEmoji\.ttf cannot be used"):
        load_font(make_deb(tmp_path / "b.deb", {"usr/share/fonts/NotoColorEmoji.ttf": b"1"}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat,41", "nothing in the column name; fill in the columns"),
        ("cat,xyz,A", "'xyz' is no code point"),
        ("cat,ffffffff,A", "no code point"),
    ],
)
def test_bad_rows_are_named(row, message, tmp_path):
    with pytest.raises(UserError, match=rf"kinds\.csv, line 2: .*{message}"):
        read_kinds(table(tmp_path, row))


def test_most_procedural_kinds_have_an_emoji():
    """The other kinds are those of furniture (`python -m examples.furniture`)."""
    rows = read_kinds(KINDS)
    labels = {row["label"] for row in rows}
    assert len(labels & set(PROCEDURAL_KINDS)) >= 0.8 * len(PROCEDURAL_KINDS)
    assert all(label == label.strip().lower() for label in labels)
    assert len({row["code_point"] for row in rows}) == len(rows) > 200
