"""Three objects with one face each, and a preset that distills them from their oracle on a CPU.

The preset has the losses and schedules of the paper: the x0 form with rescale 0.5, Eq. 8 with the weight of Eq. 10, the
annealed timesteps, 8 views then 4, unlit then lit, the cameras and the blob. Images, steps, hash grid and samples per
ray are smaller; learning rates are higher, because there are fewer steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import spherical_to_c2w
from dataset.images.psnr import psnr_of_mse_db
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings
from distill.output.preview import view_distance, view_fov_deg
from distill.sds.checkpoint import Distillation, new_distillation
from distill.sds.loop import train_step
from distill.sds.oracle import Ball, Cuboid, Solids, oracle_guidance, render_rgba
from distill.sds.schedule import PRESETS, DistillSettings, plan_step
from train.model.noise_schedule import noise_schedule

RED, BLUE, YELLOW, BROWN = (0.85, 0.15, 0.1), (0.1, 0.2, 0.8), (0.95, 0.8, 0.2), (0.35, 0.2, 0.1)
GREEN, PURPLE = (0.1, 0.7, 0.2), (0.5, 0.1, 0.5)

_TORSO: Final = (
    Cuboid((-0.32, -0.3, -0.7), (0.32, 0.3, 0.1), RED, BLUE),
    Ball((0.0, 0.0, 0.35), 0.32, YELLOW, BROWN),
)
OBJECTS: Final[Mapping[str, Solids]] = {
    # Rotationally symmetric: its shape does not show the front.
    "skittle": (Ball((0.0, 0.0, -0.28), 0.45, RED, BLUE), Ball((0.0, 0.0, 0.37), 0.3, YELLOW, BROWN)),
    # Left and right are symmetric.
    "figure": (*_TORSO, Ball((0.45, 0.0, -0.25), 0.17, GREEN, PURPLE), Ball((-0.45, 0.0, -0.25), 0.17, GREEN, PURPLE)),
    # A hand to its left (+x) and a foot in front.
    "waver": (
        *_TORSO,
        Ball((0.47, 0.0, 0.05), 0.19, GREEN, PURPLE),
        Cuboid((-0.32, -0.55, -0.7), (-0.05, -0.3, -0.5), PURPLE, GREEN),
    ),
}

_PAPER: Final = PRESETS["paper"]
SMALL: Final = replace(
    _PAPER,
    steps=300,
    coarse_resolution=24,
    fine_resolution=48,
    grid_learning_rate=6e-2,
    mlp_learning_rate=2e-2,
    nerf=FieldSettings(
        grid=HashGridSettings(levels=5, log2_table_size=15, base_resolution=8, growth=1.6), hidden_width=16
    ),
    march=replace(
        _PAPER.march,
        samples_per_ray=80,
        min_transmittance=1e-2,
        occupancy_every=8,
        occupancy_decay=0.6,
        occupancy_warmup=100_000,
    ),
)

_HELD_OUT_ELEVATIONS_DEG: Final = (-10.0, 8.0, 22.0, 40.0, 3.0, 17.0, 27.0, 35.0)
_HELD_OUT_AZIMUTHS_DEG: Final = (0.0, 52.0, 97.0, 143.0, 180.0, 231.0, 277.0, 318.0)
HELD_OUT: Final = spherical_to_c2w(_HELD_OUT_ELEVATIONS_DEG, _HELD_OUT_AZIMUTHS_DEG, view_distance(SMALL))
FACES: Final = spherical_to_c2w(12.0, [0.0, 180.0], view_distance(SMALL))
ALPHAS: Final = noise_schedule()
_MIXING: Final = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(0)))[0]


def encode(images: Tensor) -> Tensor:
    """Encode images [f, 3, h, w] as rotated 4 x 4 patches [f, 48, h / 4, w / 4]: a linear substitute for the VAE."""
    return torch.einsum("oc,fchw->fohw", _MIXING, F.pixel_unshuffle(images * 2 - 1, 4))


def rebuild(solids: Solids, settings: DistillSettings) -> Distillation:
    """Distill an object from its oracle."""
    state = new_distillation(settings, "cpu")
    for step in range(settings.steps):
        guidance = oracle_guidance(solids, plan_step(settings, step, len(ALPHAS)), encode, ALPHAS)
        train_step(state, settings, guidance, step)
    return state


@dataclass(frozen=True)
class OracleQuality:
    """How close a field is to the ground truth, from held-out cameras."""

    psnr_db: float  # of the worst view
    iou: float  # of the worst silhouette
    face_margin_db: float  # see `face_margin`


def quality(state: Distillation, solids: Solids, settings: DistillSettings, resolution: int = 64) -> OracleQuality:
    """Compare a field with the ground truth at `HELD_OUT`, and its sides at azimuths 0 and 180."""
    cameras, fov_deg = np.concatenate([HELD_OUT, FACES]), view_fov_deg(settings)
    with torch.no_grad():
        seen = render_views(
            state.field, cameras, fov_deg, resolution, settings=settings.march, occupancy=state.occupancy
        )
    rgba = render_rgba(solids, cameras, fov_deg, resolution, supersampling=4)
    truth, mask, shown = rgba[:, :3].permute(0, 2, 3, 1), rgba[:, 3] > 0.5, seen.alpha > 0.5
    iou = (mask & shown).flatten(1).sum(1) / (mask | shown).flatten(1).sum(1)
    held_out = len(HELD_OUT)
    return OracleQuality(
        min(psnr(seen.rgb[:held_out], truth[:held_out])),
        float(iou[:held_out].min()),
        face_margin(seen.rgb[held_out:], truth[held_out:]),
    )


def face_margin(seen: Tensor, truth: Tensor) -> float:
    """Return by how many dB a side is closer to the true side than to the opposite one: the minimum of front and back.

    Both arguments are [front and back, h, w, 3]. The result is negative for an object with two fronts, and about 0 for
    a mixture. The opposite side is mirrored before the comparison, so that the outlines agree.
    """
    right, wrong = psnr(seen, truth), psnr(seen, truth.flip(0).flip(2))
    return min(good - bad for good, bad in zip(right, wrong, strict=True))


def psnr(images: Tensor, truth: Tensor) -> list[float]:
    """Return the PSNR of each frame [f, h, w, 3] in [0, 1], in dB."""
    return [psnr_of_mse_db(mse) for mse in (images - truth).square().flatten(1).mean(1).tolist()]
