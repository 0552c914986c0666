"""The command line of `python -m distill`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.__main__ import main, parse_args


def test_renamed_flags_keep_working(capsys):
    args = parse_args(["--image", "a.png", "--seeds", "4", "--reference-weight=2.5"])
    assert (args.num_seeds, args.reference_loss_weight) == (4, 2.5)
    noticed = capsys.readouterr().err
    assert "--seeds is now --num-seeds" in noticed
    assert "--reference-weight is now --reference-loss-weight" in noticed
    assert parse_args(["--image", "a.png", "--num-seeds", "4", "--reference-loss-weight", "2.5"]) == args
    assert args.image == (Path("a.png"),)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("old", "background"),
    [("--remove-background", "rembg"), ("--remove_background", "rembg"), ("--no-remove-background", "keep")],
)
def test_the_old_flag_of_the_background_keeps_working(old, background, capsys):
    assert parse_args(["--image", "a.png", old]) == parse_args(["--image", "a.png", "--background", background])
    assert f"{old.replace('_', '-')} is now --background={background}" in capsys.readouterr().err
    assert parse_args(["--image", "a.png"]).background == "auto"
    with pytest.raises(SystemExit):
        parse_args(["--image", "a.png", "--background", "green"])


def test_a_background_that_cannot_be_removed_is_refused_if_this_is_asked_for(tmp_path, capsys):
    Image.effect_noise((80, 80), 90).save(tmp_path / "a.png")
    command = ["--image", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--dry-run"]
    with pytest.raises(
        UserError, match=r"a\.png cannot be removed, since .*; a cut-out is needed: .* --background rembg"
    ):
        main(parse_args([*command, "--background", "uniform"]))
    assert main(parse_args(command)) == 0


def test_a_folder_of_images_is_one_run_per_image(tmp_path, capsys):
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:35, 8:22] = (200, 40, 40, 255)
    for name in ("b", "a"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert main(parse_args(["--image", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"])) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [config["image"] for config in planned] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_a_url_is_refused_as_a_url():
    with pytest.raises(UserError, match=r"https://example\.org/cat\.png is a URL"):
        main(parse_args(["--image", "https://example.org/cat.png", "--dry-run"]))
