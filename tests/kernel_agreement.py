"""The Triton kernels held against plain torch: `python -m tests.kernel_agreement DEVICE` prints differences as JSON.

With TRITON_INTERPRET=1 they run on "cpu", which Triton reads when it is imported: hence a program of its own.
"""

import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from distill import composite, composite_triton, hash_grid, hash_grid_triton, sampler, sampler_triton
from distill.hash_grid import HashGridSettings

GRID = HashGridSettings(levels=3, log2_table_size=8, base_resolution=3, growth=1.75)  # two dense levels, one hashed
WIDE_GRID = HashGridSettings(levels=2, features_per_level=3, log2_table_size=7, base_resolution=3, growth=2.0)
COUNTS = (0, 3, 70, 0, 1, 33, 32, 0)  # samples of the rays; the kernels take 32 at a time


def edge_points(count: int, dtype: torch.dtype) -> Tensor:
    """Unit coordinates [3, n]: random ones, inside and out, then cell borders, corners of the box and far outside."""
    generator = torch.Generator().manual_seed(1)
    inner = torch.rand(3, count, generator=generator, dtype=dtype) * 1.4 - 0.2
    borders = torch.cartesian_prod(*[torch.tensor([0.0, 1 / 3, 0.4, 1.0, -7.0, 9.0], dtype=dtype)] * 3).T
    return torch.cat([inner, borders], 1).contiguous()


def grid_difference(device: str, dtype: torch.dtype, settings: HashGridSettings, jacobian: bool, count: int) -> float:
    """Of features (and Jacobian), and of the table's gradient."""
    generator = torch.Generator().manual_seed(2)
    unit = edge_points(count, dtype) if count else torch.zeros(3, 0, dtype=dtype)
    table = torch.randn(settings.features_per_level, sum(settings.table_sizes()), generator=generator, dtype=dtype)
    table, unit = table.to(device).requires_grad_(), unit.to(device)
    expected = hash_grid.look_up(table, unit, settings, jacobian)
    found = hash_grid_triton.LookUp.apply(table, unit, settings, jacobian)
    weights = torch.randn(expected.shape, generator=generator, dtype=dtype).to(device)
    gradients = [torch.autograd.grad((values * weights).sum(), table)[0] for values in (expected, found)]
    return max(difference(found, expected), difference(gradients[1], gradients[0]))


def composite_difference(device: str, dtype: torch.dtype, counts: tuple[int, ...]) -> float:
    """Of weights, transmittance, sums and both gradients; among the densities an opaque one and a zero."""
    generator = torch.Generator().manual_seed(3)
    starts = torch.tensor([0, *counts]).cumsum(0).to(device)
    samples = sum(counts)
    density = torch.rand(samples, generator=generator, dtype=dtype) * 20
    density[5:7] = torch.tensor([1e6, 0.0], dtype=dtype)[: len(density[5:7])]
    values, grad = (torch.randn(rows, 9, generator=generator, dtype=dtype) for rows in (samples, len(counts)))
    density, values, grad = (tensor.to(device) for tensor in (density, values, grad))
    step = 2**-6  # the same in float32, which is what Triton makes of it
    expected = composite.weights_of(density, starts, step)
    found = composite_triton.weight_kernel(density, starts, step)
    pairs = [*zip(found, expected, strict=True)]
    weights, light = expected
    pairs.append(
        (composite_triton.sum_kernel(weights, values, starts), composite.weighted_sums(weights, values, starts))
    )
    gradients = [
        function(grad, values, starts, weights, light, step=step, attached=8)
        for function in (composite_triton.gradient_kernel, composite.composite_gradients)
    ]
    pairs += zip(*gradients, strict=True)
    return max(difference(*pair) for pair in pairs)


def march_difference(device: str, rays: int, occupied: bool) -> float:
    """The share of samples that one has and the other has not; 0 in the interpreter, and on a GPU too."""
    generator = torch.Generator().manual_seed(4)
    origin = torch.randn(rays, 3, generator=generator) * 0.3
    origin[::2] += torch.tensor([0.0, -2.0, 0.0])
    direction = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator) * 0.3 - origin, dim=-1)
    middle = -(origin * direction).sum(-1)
    half = (0.81 - (origin + direction * middle[:, None]).square().sum(-1)).clamp(min=0).sqrt()
    near = (middle - half).clamp(min=0)
    far = torch.maximum(near, middle + half)
    shift = torch.rand(rays, generator=generator)
    segments = sampler.Segments(*(values.to(device) for values in (origin, direction, near, far, shift)))
    cells = sampler.Cells((torch.rand(6, 6, 6, generator=generator) < 0.3).to(device), 0.9) if occupied else None
    step = 0.07
    steps = int(1.8 / step) + 2
    expected = sampler.march_dense(segments, cells, step, steps, 7)
    found = sampler_triton.march_kernel(segments, cells, step, steps)
    known, got = ({*zip(p.ray.tolist(), p.t.tolist(), strict=True)} for p in (expected, found))
    if not torch.equal(found.starts.diff(), torch.bincount(found.ray, minlength=rays)):
        return float("inf")
    return len(known ^ got) / max(1, len(known))


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, as a share of the largest expected; infinite if the shapes differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    found, expected = found.detach(), expected.detach()
    scale = expected.abs().max().clamp(min=1)
    return float(((found - expected).abs().max() / scale).nan_to_num(float("inf")))


def cases(device: str, points: int, rays: int) -> dict[str, Callable[[], float]]:
    """What is compared, by name; names say the type whose precision is to be met."""
    wide, single = torch.float64, torch.float32
    return {
        "grid float64": lambda: grid_difference(device, wide, GRID, False, points),
        "grid and Jacobian float64": lambda: grid_difference(device, wide, GRID, True, points),
        "grid and Jacobian float32": lambda: grid_difference(device, single, GRID, True, points),
        "grid of three features float64": lambda: grid_difference(device, wide, WIDE_GRID, True, points),
        "grid without points float64": lambda: grid_difference(device, wide, GRID, True, 0),
        "composite float64": lambda: composite_difference(device, wide, COUNTS),
        "composite float32": lambda: composite_difference(device, single, COUNTS),
        "composite of empty rays float64": lambda: composite_difference(device, wide, (0, 0)),
        "composite without rays float64": lambda: composite_difference(device, wide, ()),
        "march float32": lambda: march_difference(device, rays, True),
        "march without grid float32": lambda: march_difference(device, rays, False),
        "march without rays float32": lambda: march_difference(device, 0, True),
    }


if __name__ == "__main__":
    print(json.dumps({name: compare() for name, compare in cases(sys.argv[1], 40, 150).items()}))
