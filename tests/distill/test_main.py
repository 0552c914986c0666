"""The command line of `python -m distill`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.__main__ import main, parse_args
from distill.quality import QUALITIES
from tests.support.distill_micro import draw


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


def planned(capsys, *words):
    assert main(parse_args([*words, "--dry-run"])) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_sets_steps_and_texture_unless_they_are_given(quality, tmp_path, capsys):
    command = ("--image", str(draw(tmp_path / "a.png", (200, 40, 40))), "--out", str(tmp_path / "out"))
    default = planned(capsys, *command)
    values = planned(capsys, *command, "--quality", quality)
    assert values["settings"]["steps"] == default["settings"]["steps"] * QUALITIES[quality].steps_scale
    assert ("texture" in values["settings"]) == (quality != "draft")
    assert (values == default) == (quality == "normal")
    explicit = ("--steps", "7", "--texture", "auto")
    assert planned(capsys, *command, "--quality", quality, *explicit) == planned(capsys, *command, *explicit)
    off = planned(capsys, *command, "--quality", quality, "--texture", "off")
    assert "texture" not in off["settings"]


def test_help_states_the_minutes_of_each_quality(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, quality in QUALITIES.items():
        assert f"{name}: {quality.about}, {quality.minutes:g} min" in words


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--faces", "99", r"--faces is 99; it must be between 100 and 200000"),
        ("--faces", "200001", r"--faces is 200001"),
        ("--texture-size", "8", r"--texture-size is 8; it must be between 16 and 8192"),
        ("--background-threshold", "0", r"--background-threshold is 0\.0; it must be between 0\.5 and 50"),
    ],
)
def test_values_out_of_range_name_the_option(option, value, message, tmp_path):
    image = draw(tmp_path / "a.png", (200, 40, 40))
    with pytest.raises(UserError, match=message):
        main(parse_args(["--image", str(image), option, value, "--dry-run"]))


def test_an_unknown_format_is_refused_with_the_choices(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--image", "a.png", "--formats", "stl"])
    shown = capsys.readouterr()
    assert "usdz" in shown.out + shown.err


def test_settings_of_the_mesh_are_stored_beside_the_request(tmp_path, capsys):
    command = ("--image", str(draw(tmp_path / "a.png", (200, 40, 40))), "--out", str(tmp_path / "out"))
    values = planned(capsys, *command, "--faces", "2000", "--texture-size", "256")
    assert values.pop("mesh_settings") == {"faces": 2000, "texture_size": 256}
    assert values == planned(capsys, *command) == planned(capsys, *command, "--faces", "10000")
