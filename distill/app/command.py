"""The command lines of the runs of the app. They are those of a terminal, so a run can be resumed in either."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from PIL import Image

from dataset.errors import UserError
from dataset.images.background import Background
from dataset.images.prepare import prepare_image
from distill.app.presets import QUALITIES, QualityName
from distill.config import REFERENCE_KEY

FORMATS: Final = ("glb", "obj", "ply")
PREVIEWS: Final = 8  # per run, at least
_MOST_STEPS_BETWEEN_PREVIEWS: Final = 50
VIEWS: Final = 4


@dataclass(frozen=True)
class NewRun:
    """What the user asked for."""

    image: Path
    model: Path
    background: Background
    quality: QualityName
    seed: int
    steps: int
    """Number of steps."""


def run_options(run: NewRun) -> tuple[str, ...]:
    """Return the options of `python -m distill` for a new run, without --out and --device."""
    return (
        *("--image", str(run.image), "--model", str(run.model), "--background", run.background),
        *("--seed", str(run.seed), "--steps", str(run.steps), "--texture", QUALITIES[run.quality].texture),
        *("--preview-every", str(max(1, min(_MOST_STEPS_BETWEEN_PREVIEWS, run.steps // PREVIEWS)))),
        *("--formats", *FORMATS),
    )


def stored_options(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the options of `python -m distill` with which a run was started, without --out and --device.

    A run does not store how the background of its image was removed. This is found by preparing the image in each way,
    and comparing the result with the stored hash.

    Args:
        config: Content of the run's config.json.
        folder: The run folder.

    Raises:
        UserError: config.json is not complete, or the image has changed or is gone.
    """
    try:
        image, digest, settings = Path(config["image"]), str(config["image_sha256"]), config["settings"]
        azimuth_deg = config.get(REFERENCE_KEY, config.get("loss_azimuth_deg", 0.0))
        values = {
            "--model": config["model"],
            "--preset": config["preset"],
            "--elevation-deg": config["elevation_deg"],
            "--guidance-scale": config["guidance_scale"],
            "--seed": settings["seed"],
            "--steps": settings["steps"],
            "--texture": "on" if settings.get("texture") else "off",
            "--preview-every": settings["preview_every"],
        }
        weight = settings.get("reference_weight", 0.0)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the settings of {folder.name} in config.json are not complete ({error}); resume this run with the "
            "command that started it"
        ) from error
    if weight:
        values["--reference-loss-weight"] = weight
    if azimuth_deg:
        values["--azimuth-deg"] = azimuth_deg
    background = _background_of(image, digest, folder)
    return (
        *("--image", str(image), "--background", background),
        *(word for name, value in values.items() for word in (name, str(value))),
        *(("--with-reference",) if REFERENCE_KEY in config else ()),
        *("--formats", *FORMATS),
    )


def with_seed(options: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Return the options of a run with another seed."""
    at = options.index("--seed") + 1
    return (*options[:at], str(seed), *options[at + 1 :])


def distill_command(options: tuple[str, ...], out: Path, device: str) -> tuple[str, ...]:
    """Return the command line of a run.

    Args:
        options: Result of `run_options` or `stored_options`.
        out: The run folder.
        device: Device of the run.
    """
    return (sys.executable, "-m", "distill", *options, "--out", str(out), "--device", device)


def sample_command(image: Path, model: Path, background: Background, out: Path, device: str) -> tuple[str, ...]:
    """Return the command line that samples four views and writes them to the PNG file `out`.

    Args:
        image: The image file.
        model: The model.
        background: How to remove the background of the image.
        out: The PNG file.
        device: Device of the model.
    """
    return (
        *(sys.executable, "-m", "train.sample", "--image", str(image), "--model", str(model)),
        *("--background", background, "--views", str(VIEWS), "--out", str(out), "--device", device),
    )


def _background_of(image: Path, digest: str, folder: Path) -> Background:
    """Return the background option with which the prepared image has the SHA-256 `digest`."""
    try:
        with Image.open(folder / "input.png") as prepared:
            size = prepared.width
    except OSError as error:
        raise UserError(
            f"input.png of {folder.name} cannot be read; resume this run with the command that started it"
        ) from error
    reason = ""
    choices: tuple[Background, ...] = get_args(Background)
    for background in choices:
        try:
            rgba = prepare_image(image, size, background=background).rgba
        except UserError as error:
            reason = reason or str(error)
            continue
        if hashlib.sha256(rgba.tobytes()).hexdigest() == digest:
            return background
    raise UserError(
        f"the image of this run, {image}, {'cannot be used: ' + reason if reason else 'has changed'}; put the original "
        "image back to resume the run, or start a new run"
    )
