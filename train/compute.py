"""How the UNet is computed: memory layout, compilation, attention kernels, optimiser. Nothing of it changes what is
computed beyond rounding; the same weights train with any of it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from train.batch import Draw, diffusion_loss, prepare_inputs
from train.model import run_unet

Compile = Literal["none", "blocks", "whole"]
# Fastest first on a Hopper GPU; each falls through to the next where it does not support a shape.
ATTENTION: Final = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@dataclass(frozen=True)
class Compute:
    """`compile` whole: the UNet is one graph for each of the two shapes (with and without reference); blocks: each
    residual and each transformer block by itself, quicker to compile and little slower to run.
    """

    compile: Compile = "none"
    channels_last: bool = False
    fused_optimiser: bool = False
    checkpointing: bool = False  # activations are computed again in the backward pass: less memory, a third more time


def default_compute(device: torch.device) -> Compute:
    """On a GPU everything that makes it fast; on a CPU, where compiling needs a compiler, nothing."""
    if device.type != "cuda":
        return Compute()
    return Compute(compile="whole", channels_last=True, fused_optimiser=True)


@dataclass(frozen=True)
class LatentBatch:
    """A micro-batch as the UNet's loss needs it, on the UNet's device. `reference` is None in stage 1."""

    targets: Tensor  # [b, f, c, h, w], scaled latents
    reference: Tensor | None  # [b, c, h, w]
    cameras: Tensor  # [b, f, 16]
    tokens: Tensor  # [b, 1, d]
    draw: Draw


def prepare(unet: nn.Module, compute: Compute) -> nn.Module:
    """The UNet as it is to be trained, changed in place: its state has the same names and values as before."""
    if compute.channels_last:
        unet.to(memory_format=torch.channels_last)
    if compute.checkpointing:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    if compute.compile != "none":
        for part in [unet] if compute.compile == "whole" else _blocks(unet):
            part.compile(dynamic=False)
    return unet


def _blocks(unet: nn.Module) -> Iterator[nn.Module]:
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return (module for module in unet.modules() if isinstance(module, (BasicTransformerBlock, ResnetBlock2D)))


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    compute: Compute,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW over float32 weights; fused: one kernel for all of them."""
    fused: Any = True if compute.fused_optimiser else None
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


@contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """bf16 on a GPU (weights and optimiser stay float32) with the fastest attention; float32 on a CPU."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(ATTENTION, set_priority=True):
        yield


def latent_loss(unet: nn.Module, batch: LatentBatch, alphas_cumprod: Tensor) -> Tensor:
    """Eq. 5 (no reference) or Eq. 6 of a micro-batch, a scalar. `unet` as `prepare` gives it."""
    inputs = prepare_inputs(
        batch.targets, batch.reference, batch.cameras, batch.tokens, batch.draw, alphas_cumprod=alphas_cumprod
    )
    context = inputs.tokens.repeat_interleave(inputs.num_frames, dim=0)
    predicted = run_unet(unet, inputs.latents, inputs.timesteps, inputs.cameras, context, num_frames=inputs.num_frames)
    return diffusion_loss(predicted, batch.draw.noise)
