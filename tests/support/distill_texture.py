"""A small texture phase: a gray ball, and an oracle that knows stripes."""

from dataclasses import replace

from torch.nn import functional as F

from distill.nerf.settings import HashGridSettings
from distill.sds.checkpoint import Distillation, new_distillation
from distill.sds.guidance import Guidance
from distill.sds.oracle import Ball, Solids, oracle_denoiser, render_truth
from distill.sds.texture_settings import TextureSettings
from tests.support.distill_toy import ALPHAS, SETTINGS, encode

GRID = HashGridSettings(levels=3, features_per_level=3, log2_table_size=12, base_resolution=6, growth=1.8)
ROUNDS = TextureSettings(
    rounds=3,
    groups=1,
    resolution=16,
    timesteps=(0.6, 0.2),
    synchronized=False,
    steps=2,
    iterations=20,
    learning_rate=0.05,
    input_weight=0.0,
    grid=GRID,
)
SYNCHRONIZED = replace(ROUNDS, synchronized=True, rounds=5)
STRIPED = (Ball((0.0, 0.0, 0.0), 0.45, (0.9, 0.3, 0.2), (0.2, 0.3, 0.9), stripe=0.2),)


def make_texture_guidance(solids: Solids = STRIPED) -> Guidance:
    oracle = oracle_denoiser(lambda v: render_truth(solids, v.c2w, v.fov_deg, 16), encode, ALPHAS)
    return Guidance(encode, oracle, ALPHAS, decode=lambda latents: F.pixel_shuffle(latents, 4).clamp(0, 1))


def make_ball() -> Distillation:
    """A new field: a gray blob."""
    state = new_distillation(SETTINGS, "cpu")
    state.occupancy.update(0, state.field.density, 0)
    return state
