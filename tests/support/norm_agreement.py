"""Compare the Triton kernels of group norm with torch: `python -m tests.support.norm_agreement DEVICE` prints JSON.

With TRITON_INTERPRET=1 they run on "cpu". Triton reads the variable when it is imported, so this is a program.
"""

import json
import sys
from unittest.mock import patch

import torch
from torch import Tensor

from tests.support.kernel_agreement import difference
from train.layers import group_norm

# images, channels, height, width, groups; a part has 256 pixels or more, a program 64 channels
SHAPES = {
    "one pixel": (2, 64, 1, 1, 4),
    "one image": (1, 32, 4, 4, 32),
    "ragged": (2, 60, 3, 7, 4),
    "groups across programs": (2, 160, 5, 5, 16),
    "several parts": (2, 40, 19, 31, 5),
    "one group": (3, 24, 17, 16, 1),
    "no images": (0, 24, 4, 4, 3),
}
LARGE = {"of Stable Diffusion": (6, 640, 32, 32, 32), "of its VAE": (2, 128, 256, 256, 32)}


def compare(device: str, shape: tuple[int, ...], *, shifted: bool, silu: bool, dtype: torch.dtype) -> float:
    """Of result, statistics and all gradients, to torch's in float64. Values lie about 30 deviations from 0."""
    images, channels, height, width, groups = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    x = (normal(images, channels, height, width) + 30).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias, grad = normal(channels), normal(channels), normal(*x.shape).to(dtype)
    shift = normal(images, channels) * 5 if shifted else None
    found: list[list[Tensor]] = []
    for kernels in (False, True):
        given, slope = (x, grad) if kernels else (x.double(), grad.double())
        with patch.object(group_norm, "_has_kernels", lambda _, kernels=kernels: kernels):
            out, statistics = group_norm.group_norm(given, weight, bias, shift, groups, 1e-5, silu)
            gradients = group_norm.group_norm_backward(slope, given, weight, bias, shift, statistics, silu)
            found.append([out, statistics, *gradients])
    expected, got = found
    if not all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (got[0], got[2])):
        return float("inf")
    return max(difference(one, other.to(one.dtype)) for one, other in zip(got, expected, strict=True))


def cases(device: str, *, large: bool, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Differences by name of the shape, whether it is shifted and whether SiLU follows."""
    shapes = {**SHAPES, **LARGE} if large else SHAPES
    return {
        f"{name}, {'shifted' if shifted else 'plain'}{', SiLU' if silu else ''}": compare(
            device, shape, shifted=shifted, silu=silu, dtype=dtype
        )
        for name, shape in shapes.items()
        for shifted in (False, True)
        for silu in (False, True)
    }


if __name__ == "__main__":
    print(json.dumps(cases(sys.argv[1], large=False)))
