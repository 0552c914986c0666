"""Model FLOPs utilization (MFU): FLOP/s of training divided by the FLOP/s of large matrix products on the same device.

The FLOPs of training are those of the UNet's matrix products and convolutions, forward and backward, each counted once.
They include neither recomputation (activation checkpointing, attention scores in the backward pass of fused kernels)
nor the VAE and the image encoder, which training on latents does not run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from train.data.sampling import DiffusionNoise, diffusion_loss
from train.loop.loss import Encoded, predict
from train.model.noise_schedule import NUM_TIMESTEPS
from train.model.reference import ReferenceMode
from train.model.unet import CAMERA_NUMBERS, join_frames

MATMUL_SIDE: Final = 8192
_MATMULS: Final = 20  # number of timed products, of which the median is used


@dataclass(frozen=True)
class MfuMeter:
    """Converts FLOPs and seconds of training to model FLOPs utilization (MFU)."""

    per_object: Mapping[int, float]  # FLOPs per object in a training step, by number of frames
    peak: float  # FLOP/s

    def mfu(self, flops: float, seconds: float) -> float:
        """Return the model FLOPs utilization (MFU), 0 to 1, if `flops` floating-point operations took `seconds`."""
        return flops / max(seconds * self.peak, 1e-9)


def mfu_meter(
    unet: nn.Module,
    reference: ReferenceMode,
    targets: Sequence[int],
    device: torch.device,
    side: int = MATMUL_SIDE,
    *,
    drops_reference: bool = False,
) -> MfuMeter:
    """Count the FLOPs of a training step, and measure the peak FLOP/s of the device. This takes seconds.

    Args:
        unet: UNet to train.
        reference: How the UNet uses the reference image.
        targets: Numbers of target views per object for which the FLOPs are counted.
        device: Device to measure.
        side: Rows and columns of the square matrices whose product is timed.
        drops_reference: Whether some steps leave out the reference image. Their FLOPs are counted too.
    """
    per_object = {number_of_frames(reference, number): object_flops(unet, reference, number) for number in targets}
    if drops_reference and reference == "attention":
        per_object |= {number: object_flops(unet, "none", number) for number in targets}
    return MfuMeter(per_object, matmul_peak(device, side))


def number_of_frames(reference: ReferenceMode, targets: int, *, dropped: bool = False) -> int:
    """Return the number of frames per object that the UNet processes: the targets and, possibly, the reference.

    Args:
        reference: How the UNet uses the reference image.
        targets: Number of target views.
        dropped: Whether the step leaves out the reference image.
    """
    return targets + int(reference == "attention" and not dropped)


def object_flops(unet: nn.Module, reference: ReferenceMode, targets: int) -> float:
    """Return the number of floating-point operations for one object in a training step, forward and backward.

    The step runs on torch's meta device, which stores only shapes, so nothing is computed.

    Args:
        unet: UNet to train.
        reference: How the UNet uses the reference image.
        targets: Number of target views of the object.
    """
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):  # FLOP counts of other kernels include recomputation
        twin = _twin(unet)
        encoded, draw = _one_object(unet, reference, targets)
        with FlopCounterMode(display=False) as counter:
            loss = diffusion_loss(predict(twin, encoded, draw, torch.empty(NUM_TIMESTEPS)), draw.noise)
            loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())


def _twin(unet: nn.Module) -> nn.Module:
    """Return a new UNet of the same configuration in training mode, on torch's current default device (meta)."""
    kind: Any = type(unet)
    return join_frames(kind.from_config(unet.config)).train()


def _one_object(unet: nn.Module, reference: ReferenceMode, targets: int) -> tuple[Encoded, DiffusionNoise]:
    settings: Any = unet.config
    latent = (settings.out_channels, settings.sample_size, settings.sample_size)
    encoded = Encoded(
        targets=torch.empty(1, targets, *latent),
        reference=None if reference == "none" else torch.empty(1, *latent),
        cameras=torch.empty(1, targets, CAMERA_NUMBERS),
        reference_camera=torch.empty(1, 1, CAMERA_NUMBERS),
        tokens=torch.empty(1, 1, settings.cross_attention_dim),
        use=reference,
    )
    draw = DiffusionNoise(
        torch.zeros(1, dtype=torch.int64), torch.empty_like(encoded.targets), torch.zeros(1, dtype=torch.bool)
    )
    return encoded, draw


def matmul_peak(device: torch.device, side: int = MATMUL_SIDE, dtype: torch.dtype = torch.bfloat16) -> float:
    """Return the FLOP/s of products of square matrices on the device, from the median time of 20 products.

    Args:
        device: Device to measure.
        side: Rows and columns of the matrices.
        dtype: Floating-point type of the matrices.
    """
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        first @ second
    seconds = sorted(seconds_of(lambda: first @ second, device) for _ in range(_MATMULS))[_MATMULS // 2]
    return 2 * side**3 / seconds


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that a call of `work` takes, including all operations that it starts on the device."""
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all operations that were started on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
