"""Views from one picture's embedding alone: DDIM over N views at once, with classifier-free guidance.

    python -m train.sample --image IMG --model MODEL --out OUT.png

A label is the world camera minus the reference camera (App. A): `--elevation-deg` says from where the picture was
taken, and the views stand at elevation 30 (`--view-elevation-deg`), the fixed set's, which training taught.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from dataset.errors import UserError, run_cli
from dataset.images.prepare import contact_sheet, prepare_image
from train.convert.resolve import model_folder
from train.device import pick_device
from train.model.ddim import sample_views
from train.model.multiview import EMBEDDED_MODEL, MultiViewModel, load_model
from train.model.reference import check_reference_options, with_reference_image

VIEW_ELEVATION_DEG: Final = 30.0  # the fixed set's elevation (4.1)


@dataclass(frozen=True)
class Sample:
    """Draw views of the object in a picture into one PNG."""

    image: Path
    """Picture of the object; transparency marks the object best."""
    model: Path = EMBEDDED_MODEL
    """Model folder (a finished training run), checkpoint file, or Hub name; the embedded one if not given."""
    out: Path = Path("data/sample.png")
    """PNG to write: the prepared picture, then the views."""
    views: int = 4
    """How many views, evenly spaced around the object."""
    elevation_deg: float = 15.0
    """Elevation from which the picture was taken. 15 is the middle of training's references, -10 to 40."""
    view_elevation_deg: float = VIEW_ELEVATION_DEG
    """Elevation of the views."""
    azimuth_offset_deg: float = 0.0
    """Azimuth of the first view, from the picture's own."""
    steps: int = 50
    """DDIM steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance; the model's own default (10 for the paper's) if not given."""
    seed: int = 0
    """Seed of the initial noise."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    with_reference: bool = False
    """Show the model the picture itself as stage 2 did, a clean frame beside the views; without, as in the paper, they
    come from its embedding alone."""
    azimuth_deg: float = 0.0
    """With --with-reference, for models with absolute camera labels: how far around the object's front, in degrees
    towards its left (Blender's +x is 90), the picture was taken."""
    remove_background: bool = False
    """Cut the object out with rembg first."""
    dry_run: bool = False
    """Print what would be done."""


def orthogonal_cameras(
    model: MultiViewModel,
    views: int,
    *,
    elevation_deg: float,
    view_elevation_deg: float = VIEW_ELEVATION_DEG,
    azimuth_offset_deg: float = 0.0,
) -> Tensor:
    """Labels [1, views, 16] of views evenly around the object, relative to a picture taken from `elevation_deg`."""
    azimuth_deg = azimuth_offset_deg + np.arange(views) * 360 / views
    return model.labels(np.full(views, view_elevation_deg), azimuth_deg, elevation_deg, 0.0)[None]


def to_pictures(images: Tensor) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """[n, 3, h, w] in [0, 1] -> n float32 arrays [h, w, 3]."""
    return list(images.detach().float().cpu().permute(0, 2, 3, 1).numpy())


def run(args: Sample) -> None:
    """The command."""
    if args.views < 1 or not -90 <= args.elevation_deg <= 90:
        raise UserError(f"views {args.views} must be at least 1, elevation {args.elevation_deg} within -90 and 90")
    device = pick_device(args.device)
    if args.dry_run:
        print(f"would draw {args.views} views of {args.image} with {args.model} on {device} into {args.out}")
        return
    folder = model_folder(args.model)
    check_reference_options(folder, with_reference=args.with_reference, azimuth_deg=args.azimuth_deg)
    model = load_model(folder, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    prepared = prepare_image(args.image, model.spec.image_size, remove_background=args.remove_background)
    for notice in prepared.notices:
        print(f"note: {notice}")
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
    images = sample_views(
        model,
        model.embed_image(rgb),
        cameras,
        steps=args.steps,
        guidance_scale=scale,
        generator=torch.Generator().manual_seed(args.seed),
    )
    save_sheet(torch.cat([rgb.cpu(), images[0].cpu()]), args.out)
    print(f"wrote {args.out} (guidance {scale:g}, {args.steps} steps)")


def save_sheet(images: Tensor, path: Path, columns: int = 9) -> None:
    """Pictures [n, 3, h, w] as one PNG, in rows of at most `columns`, small ones enlarged without blur."""
    pictures = to_pictures(images)
    sheet = contact_sheet(pictures, columns=min(len(pictures), columns))
    factor = math.ceil(128 / pictures[0].shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Command line."""
    run(tyro.cli(Sample, prog="python -m train.sample"))


if __name__ == "__main__":
    run_cli(main)
