"""A distillation of six steps towards a ball, with an oracle instead of a model."""

import signal
from dataclasses import replace

import torch
from torch import Tensor

from distill.sds.guidance import Guidance
from distill.sds.oracle import Ball, oracle_denoiser, render_truth
from distill.sds.schedule import PRESETS
from train.model.noise_schedule import noise_schedule

SETTINGS = replace(
    PRESETS["tiny"],
    steps=6,
    coarse_resolution=16,
    fine_resolution=16,
    checkpoint_every=4,
    preview_every=3,
    shading=replace(PRESETS["tiny"].shading, lit_probability=0.75),
    march=replace(PRESETS["tiny"].march, samples_per_ray=24, occupancy_every=2, occupancy_resolution=12),
)
ALPHAS = noise_schedule()
BALL = (Ball((0.0, 0.0, 0.0), 0.4, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)),)


def encode(images: Tensor) -> Tensor:
    return torch.nn.functional.pixel_unshuffle(images, 4)


def make_guidance(interrupt_at: int | None = None) -> Guidance:
    """An oracle that receives Ctrl-C during its call number `interrupt_at`."""
    oracle = oracle_denoiser(lambda v: render_truth(BALL, v.c2w, v.fov_deg, 16), encode, ALPHAS)
    calls = 0

    def denoise(noisy, timesteps, views):
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return oracle(noisy, timesteps, views)

    return Guidance(encode, denoise, ALPHAS)
