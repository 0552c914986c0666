"""The command lines of runs: a stored run gets the options with which it was started."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.__main__ import parse_args
from distill.app.command import FORMATS, NewRun, distill_command, run_options, sample_command, stored_options, with_seed
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
    ],
)
def test_a_run_of_the_command_line_is_resumed_with_its_settings(tmp_path: Path, options: list[str]) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    job = planned("--image", str(image), "--out", str(tmp_path / "run"), *options)
    again = resumed(job)
    assert again.request.as_json() == job.request.as_json()
    assert (again.image, again.out, again.model_name) == (job.image, job.out, job.model_name)


@pytest.mark.parametrize("background", ["keep", "uniform", "auto"])
def test_the_way_in_which_the_background_was_removed_is_found(tmp_path: Path, background: str) -> None:
    image = plain_background(tmp_path / "a.png")
    job = planned("--image", str(image), "--out", str(tmp_path / "run"), "--background", background)
    assert resumed(job).request == job.request


def test_a_run_of_the_app_is_a_command_of_the_terminal(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    new = NewRun(image, BUNDLED_MODEL, "auto", "draft", 3, 100)
    job = planned(*distill_command(run_options(new), tmp_path / "run", "cpu")[3:])
    assert (job.request.settings.steps, job.request.settings.seed) == (100, 3)
    assert job.request.settings.preview_every == 12
    assert job.request.settings.texture is None
    assert job.formats == FORMATS
    assert resumed(job).request == job.request


def test_another_seed_changes_nothing_else(tmp_path: Path) -> None:
    new = NewRun(tmp_path / "a.png", BUNDLED_MODEL, "auto", "normal", 3, 400)
    options = run_options(new)
    assert with_seed(options, 8) == run_options(NewRun(new.image, new.model, "auto", "normal", 8, 400))


def test_samples_are_those_of_the_command_line(tmp_path: Path) -> None:
    words = sample_command(tmp_path / "a.png", BUNDLED_MODEL, "keep", tmp_path / "views.png", "cpu")
    args = parse(words[3:])
    assert words[1:3] == ("-m", "train.sample")
    assert (args.image, args.views, args.out, args.background) == (
        *(tmp_path / "a.png", 4, tmp_path / "views.png", "keep"),
    )


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
    for config in ({}, {"image": "a.png", "image_sha256": "0", "settings": None}):
        with pytest.raises(UserError, match=r"settings of run in config\.json are not complete"):
            stored_options(config, tmp_path / "run")
