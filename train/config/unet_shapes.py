"""Sizes of the UNets of the presets. Benchmarks can import this module without the command-line library tyro."""

from typing import Final

from train.model.unet import UNetShape

TINY_UNET: Final = UNetShape(
    latent_channels=8,
    latent_size=16,
    widths=(64, 128, 192),
    attention=(True, True, True),
    blocks_per_level=1,
    head_width=32,
    token_width=256,
    norm_groups=16,
)
"""UNet of the tiny preset."""
EMBEDDED_UNET: Final = UNetShape(
    latent_channels=16,
    latent_size=16,
    widths=(112, 224, 336),
    attention=(True, True, True),
    blocks_per_level=1,
    head_width=56,
    token_width=304,
    norm_groups=16,
)
"""UNet of the bundled model, with 34.7 million parameters."""
SD21_UNET: Final = UNetShape(4, 32, (320, 640, 1280, 1280), (True, True, True, False), 2, 64, 1024)
"""UNet of Stable Diffusion 2.1 and MVDream."""
