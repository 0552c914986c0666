"""The command lines of runs: a stored run gets the options with which it was started."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.__main__ import parse_args
from distill.app.command import (
    FORMATS,
    NewRun,
    distill_command,
    run_options,
    sample_command,
    stored_options,
    with_mesh,
    with_seed,
)
from distill.mesh.export import PRESETS
from distill.runs.job import Job
from distill.runs.plan import plan_command
from tests.support.distill_micro import draw
from train.model.multiview import BUNDLED_MODEL
from train.sample import parse


def planned(*words: str) -> Job:
    """The job of a command, with its folder as it is after the start of the run."""
    jobs, _ = plan_command(parse_args(words))
    job = jobs[0]
    job.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(job.prepared.rgba).save(job.out / "input.png")
    (job.out / "config.json").write_text(json.dumps(job.config))
    return job


def resumed(job: Job) -> Job:
    """The job of the command with which the app resumes a run."""
    config = json.loads((job.out / "config.json").read_text())
    words = distill_command(stored_options(config, job.out), job.out, "cpu")
    assert words[1:3] == ("-m", "distill")
    jobs, _ = plan_command(parse_args(words[3:]))
    return jobs[0]


def plain_background(path: Path) -> Path:
    """An opaque image of a red box on green."""
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:] = (40, 160, 60)
    pixels[15:45, 20:40] = (200, 30, 30)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--seed", "7", "--steps", "30", "--texture", "off", "--preview-every", "3"],
        ["--guidance-scale", "2.7", "--elevation-deg", "-3.25"],
        ["--reference-loss-weight", "1000.5"],
        ["--preset", "paper", "--steps", "20"],
        ["--quality", "draft"],
        ["--quality", "high", "--texture", "off"],
        ["--faces", "1234"],
        ["--faces", "1234", "--texture-size", "256"],
    ],
)
def test_a_run_of_the_command_line_is_resumed_with_its_settings(tmp_path: Path, options: list[str]) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    job = planned("--image", str(image), "--out", str(tmp_path / "run"), *options)
    again = resumed(job)
    assert again.request.as_json() == job.request.as_json()
    assert (again.image, again.out, again.model_name) == (job.image, job.out, job.model_name)
    assert again.mesh_settings == job.mesh_settings


@pytest.mark.parametrize("background", ["keep", "uniform", "auto"])
def test_the_way_in_which_the_background_was_removed_is_found(tmp_path: Path, background: str) -> None:
    image = plain_background(tmp_path / "a.png")
    job = planned("--image", str(image), "--out", str(tmp_path / "run"), "--background", background)
    assert resumed(job).request == job.request
    config = json.loads((job.out / "config.json").read_text())
    assert config.pop("background") == background
    (job.out / "config.json").write_text(json.dumps(config))  # as older versions wrote it
    assert resumed(job).request == job.request


def test_the_threshold_of_the_background_is_kept(tmp_path: Path) -> None:
    image = plain_background(tmp_path / "a.png")
    with Image.open(image) as picture:
        picture.paste((60, 170, 80), (5, 5, 15, 15))  # resembles the background
        picture.save(image)
    command = ("--image", str(image), "--out", str(tmp_path / "run"), "--background", "uniform")
    first = planned(*command)
    job = planned(*command, "--background-threshold", "20")
    assert job.request.image_sha256 != first.request.image_sha256
    assert resumed(job).request == job.request
    assert resumed(job).background_threshold == 20


def test_a_run_of_the_app_is_a_command_of_the_terminal(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    new = NewRun(image, BUNDLED_MODEL, "auto", "draft", 3, 100, faces=700)
    job = planned(*distill_command(run_options(new), tmp_path / "run", "cpu")[3:])
    assert (job.request.settings.steps, job.request.settings.seed) == (100, 3)
    assert job.request.settings.preview_every == 12
    assert job.request.settings.texture is None
    assert job.formats == FORMATS
    assert job.mesh_settings == replace(PRESETS["tiny"], faces=700)
    assert resumed(job).request == job.request


def test_another_seed_changes_nothing_else(tmp_path: Path) -> None:
    new = NewRun(tmp_path / "a.png", BUNDLED_MODEL, "auto", "normal", 3, 400)
    options = run_options(new)
    assert with_seed(options, 8) == run_options(NewRun(new.image, new.model, "auto", "normal", 8, 400))


def test_samples_are_those_of_the_command_line(tmp_path: Path) -> None:
    image, out = tmp_path / "a.png", tmp_path / "views.png"
    words = sample_command(image, BUNDLED_MODEL, out, "cpu", background="keep")
    args = parse(words[3:])
    assert words[1:3] == ("-m", "train.sample")
    assert (args.image, args.views, args.out, args.background) == (
        *(tmp_path / "a.png", 4, tmp_path / "views.png", "keep"),
    )
    words = sample_command(image, BUNDLED_MODEL, out, "cpu", background="uniform", background_threshold=3.5)
    assert parse(words[3:]).background_threshold == 3.5


def test_other_settings_of_the_mesh_change_nothing_else(tmp_path: Path) -> None:
    plain = run_options(NewRun(tmp_path / "a.png", BUNDLED_MODEL, "auto", "normal", 3, 400))
    faces = with_mesh(plain, 500, None)
    assert faces == (*plain, "--faces", "500")
    assert with_mesh(faces, None, 64) == (*plain, "--texture-size", "64")
    assert with_mesh(faces, None, None) == plain


def test_a_changed_or_missing_image_is_refused(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    job = planned("--image", str(image), "--out", str(tmp_path / "run"))
    draw(image, (40, 40, 200))
    with pytest.raises(UserError, match=r"a\.png, has changed"):
        resumed(job)
    image.unlink()
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        resumed(job)
    (job.out / "input.png").unlink()
    with pytest.raises(UserError, match=r"input\.png of run cannot be read"):
        resumed(job)


def test_incomplete_settings_are_refused(tmp_path: Path) -> None:
    settings = {"seed": 0, "steps": 1, "preview_every": 1}
    known = {"model": "m", "preset": "tiny", "elevation_deg": 0, "guidance_scale": 1, "settings": settings}
    for config in (
        {},
        {"image": "a.png", "image_sha256": "0", "settings": None},
        {"image": "a.png", "image_sha256": "0", **known, "mesh_settings": 3},
        {"image": "a.png", "image_sha256": "0", **known, "mesh_settings": {"faces": "--out"}},
        {"image": "a.png", "image_sha256": "0", **known, "background_threshold": "--out"},
    ):
        with pytest.raises(UserError, match=r"settings of run in config\.json are not complete"):
            stored_options(config, tmp_path / "run")
