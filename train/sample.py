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
from train.model.multiview import BETA_END, BETA_START, EMBEDDED_MODEL, NUM_TIMESTEPS, MultiViewModel, load_model
from train.model.reference import check_shown, see_reference

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


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r}: no CUDA GPU is visible; use --device cpu")
    return device


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


def guided_noise(
    model: MultiViewModel, latents: Tensor, timestep: int, cameras: Tensor, tokens: Tensor, *, guidance_scale: float
) -> Tensor:
    """Noise predicted with classifier-free guidance: eps_0 + s (eps_y - eps_0); eps_0 sees a zero token.

    `latents` [b, f, c, h, w], `cameras` [b, f, 16], `tokens` [b, 1, c].
    """
    frames = latents.shape[1]
    both = torch.cat([latents, latents]).flatten(0, 1)
    timesteps = torch.full((len(both),), timestep, device=latents.device)
    labels = torch.cat([cameras, cameras]).flatten(0, 1)
    context = torch.cat([tokens, torch.zeros_like(tokens)])
    predicted = model.predict_noise(both, timesteps, labels, context, frames)
    conditional, unconditional = predicted.view(2, *latents.shape)
    guided: Tensor = unconditional + guidance_scale * (conditional - unconditional)
    return guided


def ddim_scheduler(steps: int, device: torch.device) -> Any:
    """diffusers' DDIM as Stable Diffusion sets it, for our noise schedule."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if not 1 <= steps <= NUM_TIMESTEPS:
        raise UserError(f"steps is {steps}; DDIM takes 1 to {NUM_TIMESTEPS}")
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1 if steps < NUM_TIMESTEPS else 0,
    )
    scheduler.set_timesteps(steps, device=device)
    return scheduler


@torch.no_grad()
def sample_views(
    model: MultiViewModel,
    tokens: Tensor,
    cameras: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator,
) -> Tensor:
    """Pictures [b, f, 3, h, w] in [0, 1] for `tokens` [b, 1, c] and `cameras` [b, f, 16], without a reference frame.

    `generator` is a CPU one: the same seed gives the same noise on any device.
    """
    noise = draw_latents(model, cameras.shape[0], cameras.shape[1], generator)
    return denoise_views(model, noise, tokens, cameras, steps=steps, guidance_scale=guidance_scale)


def draw_latents(model: MultiViewModel, objects: int, frames: int, generator: torch.Generator) -> Tensor:
    """Noise [b, f, c, h, w] to begin with, on the generator's device."""
    channels = int(model.unet.config.out_channels)  # type: ignore[union-attr, arg-type]
    size = model.spec.latent_size
    return torch.randn(objects, frames, channels, size, size, generator=generator, device=generator.device)


@torch.no_grad()
def denoise_views(
    model: MultiViewModel, noise: Tensor, tokens: Tensor, cameras: Tensor, *, steps: int, guidance_scale: float
) -> Tensor:
    """`sample_views` from given noise [b, f, c, h, w]."""
    batch, frames = cameras.shape[:2]
    latents = noise.to(model.device)
    scheduler = ddim_scheduler(steps, model.device)
    for timestep in scheduler.timesteps:
        noise = guided_noise(model, latents, int(timestep), cameras, tokens, guidance_scale=guidance_scale)
        latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
    images = model.decode(latents.flatten(0, 1))
    return images.view(batch, frames, *images.shape[1:])


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
    check_shown(folder, with_reference=args.with_reference, azimuth_deg=args.azimuth_deg)
    model = load_model(folder, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    prepared = prepare_image(args.image, model.spec.image_size, remove_background=args.remove_background)
    for notice in prepared.notices:
        print(f"note: {notice}")
    rgb = torch.from_numpy(prepared.rgb).permute(2, 0, 1)[None].to(device)
    model = see_reference(
        model,
        rgb,
        in_front=args.with_reference,
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
