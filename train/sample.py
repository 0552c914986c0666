"""Sample views of the object in one image from the embedding of the image, with DDIM and classifier-free guidance.

    python -m train.sample --image IMG --model MODEL --out OUT.png

Camera labels are relative to the given image (App. A): `--elevation-deg` is the elevation of the camera that took the
image, and `--view-elevation-deg` is the elevation of the sampled views. By default, the sampled views have an elevation
of 30 degrees, which is the elevation of the fixed views in the training data.
"""

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from dataset.errors import UserError, one_line, run_cli
from dataset.images.background import RENAMED as RENAMED_BACKGROUND
from dataset.images.background import Background, check_threshold
from dataset.images.prepare import contact_sheet, prepare_image
from dataset.io.lock import locked_file
from dataset.io.old_flags import rename_old_flags
from dataset.io.option_checks import check_number, check_seed
from dataset.io.options import HiddenDefault
from train.convert.resolve import model_folder
from train.device import pick_device
from train.model.ddim import ddim_timesteps, sample_views
from train.model.multiview import BUNDLED_MODEL, MultiViewModel, load_model
from train.model.recognition.recognize import embed_input, unknown_warnings
from train.model.reference import check_reference_options, with_reference_image

logger = logging.getLogger(__name__)

MAX_VIEWS: Final = 1000
VIEW_ELEVATION_DEG: Final = 30.0  # elevation of the fixed views (4.1)
RENAMED: Final = {"--steps": "--ddim-steps", **RENAMED_BACKGROUND}  # old name -> new name; the old ones will be removed


@dataclass(frozen=True)
class SampleArgs:
    """Sample novel views of the object in an image, and write these views as one PNG file."""

    image: Path
    """Image of the object, preferably with a transparent background."""
    model: Path = BUNDLED_MODEL
    """Model folder (a finished training run, or the bundled weights/tiny), checkpoint file, or Hub name."""
    out: Path = Path("data/sample.png")
    """PNG to write: the prepared image, then the views."""
    views: int = 4
    """Number of views, evenly spaced around the object."""
    elevation_deg: float = 15.0
    """Elevation in degrees of the camera that took the image. Training uses reference views at -10 to 40; 15 is the
    middle."""
    view_elevation_deg: float = VIEW_ELEVATION_DEG
    """Elevation in degrees of the sampled views."""
    azimuth_offset_deg: float = 0.0
    """Azimuth in degrees of the first sampled view, relative to the image."""
    ddim_steps: int = 50
    """Number of DDIM steps, 1 to 1000. If the number does not divide 1000, more steps are done."""
    eta: float = 0.0
    """Noise added in each DDIM step, 0 to 1. 0: none, as in MVDream. 1: as in the released code of Isotropic3D."""
    guidance_scale: HiddenDefault[float | None] = None
    """Scale of classifier-free guidance. Default: the scale stored in the model (10 for the paper's models)."""
    seed: int = 0
    """Seed of the initial noise."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    with_reference: bool = False
    """Also condition the model on the image itself, as in stage 2, as a clean frame beside the views.
    By default the model sees only the image embedding, as in the paper."""
    azimuth_deg: float = 0.0
    """Azimuth of the image's camera in degrees, from the object's front (0) towards its left (Blender's +x is 90).
    Used with --with-reference and absolute camera labels."""
    background: Background = "auto"
    """How to remove the background of an opaque image. uniform: a background of one color or a smooth gradient. auto:
    the same, but any other background is kept. rembg: any background, with the optional package rembg. keep: never."""
    background_threshold: HiddenDefault[float | None] = None
    """Color difference (CIE76) from the fitted background up to which a pixel belongs to it, 0.5 to 50; a larger
    threshold removes more. For --background auto and uniform. Default: 2 to 7, from the noise of the background."""
    dry_run: bool = False
    """Print what would be sampled and exit."""


def orthogonal_cameras(
    model: MultiViewModel,
    views: int,
    *,
    elevation_deg: float,
    view_elevation_deg: float = VIEW_ELEVATION_DEG,
    azimuth_offset_deg: float = 0.0,
) -> Tensor:
    """Return the camera labels [1, views, 16] of views that are evenly spaced around an object.

    Args:
        model: Model whose convention of camera labels is used.
        views: Number of views.
        elevation_deg: Elevation in degrees of the camera of the reference image.
        view_elevation_deg: Elevation in degrees of the views.
        azimuth_offset_deg: Azimuth in degrees of the first view, relative to the reference image.
    """
    azimuth_deg = azimuth_offset_deg + np.arange(views) * 360 / views
    return model.labels(np.full(views, view_elevation_deg), azimuth_deg, elevation_deg, 0.0)[None]


def to_arrays(images: Tensor) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Convert a tensor of images [n, 3, h, w] on any device to a list of n float32 arrays [h, w, 3]."""
    return list(images.detach().float().cpu().permute(0, 2, 3, 1).numpy())


def parse(argv: Sequence[str]) -> SampleArgs:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    return tyro.cli(SampleArgs, prog="python -m train.sample", args=rename_old_flags(argv, RENAMED))


def run(args: SampleArgs) -> None:
    """Sample views and write them as one PNG. With --dry-run, only print what would be sampled.

    Raises:
        UserError: An option is out of range, the image or the model cannot be read, the sampled views are not finite,
            or another process is writing --out.
    """
    _check(args)
    device = pick_device(args.device)
    if args.dry_run:
        print(f"would sample {args.views} views of {args.image} with {args.model} on {device} and write {args.out}")
        return
    folder = model_folder(args.model)
    check_reference_options(folder, with_reference=args.with_reference, azimuth_deg=args.azimuth_deg)
    model = load_model(folder, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    prepared = prepare_image(
        args.image,
        model.spec.image_size,
        background=args.background,
        background_threshold=args.background_threshold,
    )
    for notice in prepared.notices:
        logger.info("note: %s", notice)
    for warning in unknown_warnings(folder, [(str(args.image), prepared.rgb)]):
        if warning is not None:
            logger.warning("%s", warning)
    rgb = torch.from_numpy(prepared.rgb).permute(2, 0, 1)[None].to(device)
    model = with_reference_image(
        model,
        rgb,
        as_frame=args.with_reference,
        elevation_deg=args.elevation_deg,
        azimuth_deg=args.azimuth_deg,
    )
    cameras = orthogonal_cameras(
        model,
        args.views,
        elevation_deg=args.elevation_deg,
        view_elevation_deg=args.view_elevation_deg,
        azimuth_offset_deg=args.azimuth_offset_deg,
    )
    scale = model.spec.guidance_scale if args.guidance_scale is None else args.guidance_scale
    with locked_file(args.out, "sampling"):
        images = sample_views(
            model,
            embed_input(model, folder, rgb),
            cameras,
            steps=args.ddim_steps,
            guidance_scale=scale,
            generator=torch.Generator().manual_seed(args.seed),
            eta=args.eta,
        )
        if not bool(images.isfinite().all()):
            raise UserError(
                f"the sampled views contain NaN or infinite values; give a smaller --guidance-scale than {scale:g} "
                f"(the model's is {model.spec.guidance_scale:g})"
            )
        try:
            save_sheet(torch.cat([rgb.cpu(), images[0].cpu()]), args.out)
        except OSError as error:
            raise UserError(f"--out {args.out} cannot be written ({one_line(error)}); give another path") from error
    print(f"wrote {args.out} (guidance {scale:g}, {len(ddim_timesteps(args.ddim_steps))} steps)")


def _check(args: SampleArgs) -> None:
    check_number("--views", args.views, 1, MAX_VIEWS)
    for option, elevation in (("elevation", args.elevation_deg), ("view-elevation", args.view_elevation_deg)):
        check_number(f"--{option}-deg", elevation, -90, 90)
    check_number("--azimuth-offset-deg", args.azimuth_offset_deg)
    check_number("--azimuth-deg", args.azimuth_deg)
    check_number("--guidance-scale", args.guidance_scale)
    check_number("--eta", args.eta, 0, 1)
    check_seed("--seed", args.seed)
    check_threshold(args.background, args.background_threshold)
    ddim_timesteps(args.ddim_steps)  # raises UserError for an invalid number of steps
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; give the path of a PNG file, such as {args.out / 'views.png'}")
    if Image.registered_extensions().get(args.out.suffix.lower()) not in Image.SAVE:
        raise UserError(f"--out {args.out}: not the name of an image file; give a name that ends in .png")


def save_sheet(images: Tensor, path: Path, columns: int = 9) -> None:
    """Write images [n, 3, h, w] in [0, 1] as one image file, in rows of at most `columns` images.

    Images of fewer than 128 rows are enlarged.
    """
    arrays = to_arrays(images)
    sheet = contact_sheet(arrays, columns=min(len(arrays), columns))
    factor = math.ceil(128 / arrays[0].shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Run `python -m train.sample` with the arguments of the command line."""
    run(parse(sys.argv[1:]))


if __name__ == "__main__":
    run_cli(main)
