"""The command lines of the runs of the app. They are those of a terminal, so a run can be resumed in either."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from PIL import Image

from dataset.errors import UserError
from dataset.images.background import Background
from dataset.images.prepare import prepare_image
from distill.config import REFERENCE_KEY
from distill.mesh.export import Format
from distill.quality import QUALITIES, QualityName

FORMATS: Final[tuple[Format, ...]] = ("glb", "obj", "ply", "usdz")
PREVIEWS: Final = 8  # per run, at least
_MOST_STEPS_BETWEEN_PREVIEWS: Final = 50
VIEWS: Final = 4
_FACES: Final = "--faces"
_TEXTURE_SIZE: Final = "--texture-size"


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
    background_threshold: float | None = None
    faces: int | None = None
    """Face budget of the mesh; None: the default."""
    texture_size: int | None = None
    """Edge of the texture in pixels; None: the default."""


def run_options(run: NewRun) -> tuple[str, ...]:
    """Return the options of `python -m distill` for a new run, without --out and --device."""
    return (
        *("--image", str(run.image), "--model", str(run.model)),
        *_background_options(run.background, run.background_threshold),
        *("--seed", str(run.seed), "--steps", str(run.steps), "--texture", QUALITIES[run.quality].texture),
        *("--preview-every", str(max(1, min(_MOST_STEPS_BETWEEN_PREVIEWS, run.steps // PREVIEWS)))),
        *("--formats", *FORMATS),
        *_mesh_options(run.faces, run.texture_size),
    )


def stored_options(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the options of `python -m distill` with which a run was started, without --out and --device.

    Runs of older versions do not store how the background of their image was removed. This is found by preparing the
    image in each way, and comparing the result with the stored hash.

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
        stored, threshold = config.get("background"), config.get("background_threshold")
        threshold = None if threshold is None else float(threshold)
        mesh = {name: int(value) for name, value in config.get("mesh_settings", {}).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"the settings of {folder.name} in config.json are not complete ({error}); resume this run with the "
            "command that started it"
        ) from error
    if weight:
        values["--reference-loss-weight"] = weight
    if azimuth_deg:
        values["--azimuth-deg"] = azimuth_deg
    choices = tuple(choice for choice in get_args(Background) if stored in (None, choice))
    background = _background_of(image, digest, folder, choices, threshold)
    return (
        *("--image", str(image), *_background_options(background, threshold)),
        *(word for name, value in values.items() for word in (name, str(value))),
        *(("--with-reference",) if REFERENCE_KEY in config else ()),
        *("--formats", *FORMATS),
        *_mesh_options(mesh.get("faces"), mesh.get("texture_size")),
    )


def with_mesh(options: tuple[str, ...], faces: int | None, texture_size: int | None) -> tuple[str, ...]:
    """Return the options of a run with other settings of the mesh.

    Args:
        options: Result of `run_options` or `stored_options`.
        faces: Face budget; None: the default.
        texture_size: Edge of the texture in pixels; None: the default.
    """
    end = next((options.index(name) for name in (_FACES, _TEXTURE_SIZE) if name in options), len(options))
    return (*options[:end], *_mesh_options(faces, texture_size))


def _mesh_options(faces: int | None, texture_size: int | None) -> tuple[str, ...]:
    """Return the last options of a run."""
    values = {_FACES: faces, _TEXTURE_SIZE: texture_size}
    return tuple(word for name, value in values.items() if value is not None for word in (name, str(value)))


def _background_options(background: Background, threshold: float | None) -> tuple[str, ...]:
    more = () if threshold is None else ("--background-threshold", str(threshold))
    return ("--background", background, *more)


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


def sample_command(
    image: Path,
    model: Path,
    out: Path,
    device: str,
    *,
    background: Background,
    background_threshold: float | None = None,
) -> tuple[str, ...]:
    """Return the command line that samples four views and writes them to the PNG file `out`.

    Args:
        image: The image file.
        model: The model.
        out: The PNG file.
        device: Device of the model.
        background: How to remove the background of the image.
        background_threshold: Threshold of the background; None: from its noise.
    """
    return (
        *(sys.executable, "-m", "train.sample", "--image", str(image), "--model", str(model)),
        *_background_options(background, background_threshold),
        *("--views", str(VIEWS), "--out", str(out), "--device", device),
    )


def _background_of(
    image: Path, digest: str, folder: Path, choices: Sequence[Background], threshold: float | None
) -> Background:
    """Return the background option of `choices` with which the prepared image has the SHA-256 `digest`."""
    try:
        with Image.open(folder / "input.png") as prepared:
            size = prepared.width
    except OSError as error:
        raise UserError(
            f"input.png of {folder.name} cannot be read; resume this run with the command that started it"
        ) from error
    reason = ""
    for background in choices:
        try:
            rgba = prepare_image(image, size, background=background, background_threshold=threshold).rgba
        except UserError as error:
            reason = reason or str(error)
            continue
        if hashlib.sha256(rgba.tobytes()).hexdigest() == digest:
            return background
    raise UserError(
        f"the image of this run, {image}, {'cannot be used: ' + reason if reason else 'has changed'}; put the original "
        "image back to resume the run, or start a new run"
    )
