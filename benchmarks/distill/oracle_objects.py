"""Three objects with one face each, and the paper's preset at a size that a CPU rebuilds them with from their oracle.

Everything of the preset that is about losses and schedules stays: the x0 form with rescale 0.5, Eq. 8 with Eq. 10's
weight, the timesteps' annealing, 8 views then 4, unlit then lit, its cameras, the blob. Smaller are pictures, steps,
hash grid and samples a ray; learning rates are higher, since there are fewer steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import spherical_to_c2w
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
    # Its shape says nothing about where the front is.
    "skittle": (Ball((0.0, 0.0, -0.28), 0.45, RED, BLUE), Ball((0.0, 0.0, 0.37), 0.3, YELLOW, BROWN)),
    # The same on its left and its right.
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
    steps=240,
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
    """A frozen linear stand-in for the VAE: patches of 4 x 4 pixels, rotated; [f, 48, h / 4, w / 4]."""
    return torch.einsum("oc,fchw->fohw", _MIXING, F.pixel_unshuffle(images * 2 - 1, 4))


def rebuild(solids: Solids, settings: DistillSettings) -> Distillation:
    """Distil an object from its oracle."""
    state = new_distillation(settings, "cpu")
    for step in range(settings.steps):
        guidance = oracle_guidance(solids, plan_step(settings, step, len(ALPHAS)), encode, ALPHAS)
        train_step(state, settings, guidance, step)
    return state


@dataclass(frozen=True)
class Quality:
    """How near a field is to its truth, from cameras that no step used."""

    psnr_db: float  # the worst view's
    iou: float  # the worst silhouette's
    face_margin_db: float  # how much nearer the front is to the true front than the back is, and the reverse; the less


def quality(state: Distillation, solids: Solids, settings: DistillSettings, resolution: int = 64) -> Quality:
    """Compare a field with its truth at `HELD_OUT`, and its faces at azimuths 0 and 180."""
    cameras, fov_deg = np.concatenate([HELD_OUT, FACES]), view_fov_deg(settings)
    with torch.no_grad():
        seen = render_views(
            state.field, cameras, fov_deg, resolution, settings=settings.march, occupancy=state.occupancy
        )
    rgba = render_rgba(solids, cameras, fov_deg, resolution, supersampling=4)
    truth, mask, shown = rgba[:, :3].permute(0, 2, 3, 1), rgba[:, 3] > 0.5, seen.alpha > 0.5
    iou = (mask & shown).flatten(1).sum(1) / (mask | shown).flatten(1).sum(1)
    held_out = len(HELD_OUT)
    return Quality(
        min(psnr(seen.rgb[:held_out], truth[:held_out])),
        float(iou[:held_out].min()),
        face_margin(seen.rgb[held_out:], truth[held_out:]),
    )


def face_margin(seen: Tensor, truth: Tensor) -> float:
    """Decibels by which the front seen is nearer to the true front than to the true back, or the reverse: the less.

    Both are [front and back, h, w, 3]. Two faces make one of them negative, a mixture of both about 0. What a side is
    wrongly compared with is mirrored, so that the outlines agree.
    """
    right, wrong = psnr(seen, truth), psnr(seen, truth.flip(0).flip(2))
    return min(good - bad for good, bad in zip(right, wrong, strict=True))


def psnr(pictures: Tensor, truth: Tensor) -> list[float]:
    """Decibels of each frame [f, h, w, 3] in [0, 1]."""
    decibels: list[float] = (-10 * (pictures - truth).square().flatten(1).mean(1).log10()).tolist()
    return decibels
