"""Compare the Triton kernels with plain torch: `python -m tests.support.kernel_agreement DEVICE` prints JSON.

With TRITON_INTERPRET=1 they run on "cpu". Triton reads the variable when it is imported, so this is a program.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from dataset.camera import spherical_to_c2w
from distill.nerf import compositing, field, hash_grid, ray_sampling
from distill.nerf.field import Field
from distill.nerf.kernels import composite as composite_triton
from distill.nerf.kernels import field as field_triton
from distill.nerf.kernels import hash_grid as hash_grid_triton
from distill.nerf.kernels import ray_march
from distill.nerf.occupancy import Occupancy, OccupancyCells
from distill.nerf.rays import RaySegments
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings

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


def field_difference(device: str, dtype: torch.dtype, hidden_width: int, count: int) -> float:
    """Of density, albedo and normal, and of their gradients; one point lies at the center, some outside the ball.

    The constants are numbers that float32, which is what Triton makes of them, holds exactly.
    """
    generator = torch.Generator().manual_seed(6)
    scene = Field(FieldSettings(grid=GRID, radius=1.0, hidden_width=hidden_width), generator).to(dtype)
    x = torch.rand(count, 3, generator=generator, dtype=dtype) * 2 - 1
    x[:1] = 0
    found = torch.randn(scene.grid.width, 4, count, generator=generator, dtype=dtype)
    scene, x, found = scene.to(device), x.to(device), found.to(device).requires_grad_()
    with computed_by(True):
        weights, shape = scene.kernel_arguments()
        seen = field_triton.decode(found, x, weights, shape, exact=True)
    expected = scene.query_features(x, found[:, 0].T, found[:, 1:].permute(2, 0, 1) / (2 * scene.radius))
    density = field_triton.decode_density(found[:, :1].detach().contiguous(), x, weights, shape, exact=True)
    upstream = [torch.randn(values.shape, generator=generator, dtype=dtype).to(device) for values in expected]
    gradients = [torch.autograd.grad(values, [found, *weights], upstream) for values in (seen, expected)]
    pairs = [*zip(seen, expected, strict=True), *zip(*gradients, strict=True), (density, expected[0])]
    return max(difference(*pair) for pair in pairs)


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
    expected = compositing.weights_of(density, starts, step)
    found = composite_triton.weight_kernel(density, starts, step)
    pairs = [*zip(found, expected, strict=True)]
    weights, light = expected
    pairs.append(
        (composite_triton.sum_kernel(weights, values, starts), compositing.weighted_sums(weights, values, starts))
    )
    gradients = [
        function(grad, values, starts, weights, light, step=step, attached=8)
        for function in (composite_triton.gradient_kernel, compositing.composite_gradients)
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
    segments = RaySegments(*(values.to(device) for values in (origin, direction, near, far, shift)))
    cells = OccupancyCells((torch.rand(6, 6, 6, generator=generator) < 0.3).to(device), 0.9) if occupied else None
    step = 0.07
    steps = int(1.8 / step) + 2
    expected = ray_sampling.march_dense(segments, cells, step, steps, 7)
    found = ray_march.march_kernel(segments, cells, step, steps)
    known, got = ({*zip(p.ray.tolist(), p.t.tolist(), strict=True)} for p in (expected, found))
    if not torch.equal(found.starts.diff(), torch.bincount(found.ray, minlength=rays)):
        return float("inf")
    return len(known ^ got) / max(1, len(known))


def picture_difference(device: str) -> float:
    """Differences of a field's images and all its gradients, rendered in several chunks with all kernels."""
    settings = MarchSettings(samples_per_ray=16, occupancy_resolution=8, sample_budget=50)
    cameras = spherical_to_c2w([10.0, -20.0], [0.0, 130.0], [1.5, 1.8])
    found: list[list[Tensor]] = []
    for kernels in (False, True):
        generator = torch.Generator().manual_seed(5)
        field = Field(FieldSettings(grid=GRID, radius=0.9, hidden_width=8), generator)
        with torch.no_grad():
            field.grid.table.uniform_(-0.5, 0.5, generator=generator)
        field, occupancy = field.to(device), Occupancy(field.radius, settings).to(device)
        occupancy.grid.binaries.copy_(torch.rand(1, 8, 8, 8, generator=generator) < 0.6)
        with computed_by(kernels):
            picture = render_views(field, cameras, 45.0, 4, settings=settings, occupancy=occupancy, device=device)
            loss = picture.rgb.square().sum() + picture.normal.square().sum() + picture.away.sum()
            found.append([*picture, *torch.autograd.grad(loss, list(field.parameters()))])
    return max(difference(*pair) for pair in zip(found[1], found[0], strict=True))


@contextmanager
def computed_by(kernels: bool) -> Iterator[None]:
    """Use the kernels, or plain torch, for everything in the `with` block, on any device."""
    with (
        patch.object(hash_grid, "has_kernels", lambda device: kernels),
        patch.object(field, "has_kernels", lambda device: kernels),
        patch.object(compositing, "has_kernels", lambda device: kernels),
        patch.object(ray_sampling, "has_kernels", lambda device: kernels),
    ):
        yield


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
    """The comparisons by name; the name contains the type whose precision is expected."""
    wide, single = torch.float64, torch.float32
    return {
        "grid float64": lambda: grid_difference(device, wide, GRID, False, points),
        "grid and Jacobian float64": lambda: grid_difference(device, wide, GRID, True, points),
        "grid and Jacobian float32": lambda: grid_difference(device, single, GRID, True, points),
        "grid of three features float64": lambda: grid_difference(device, wide, WIDE_GRID, True, points),
        "grid without points float64": lambda: grid_difference(device, wide, GRID, True, 0),
        "field float64": lambda: field_difference(device, wide, 20, points),
        "field float32": lambda: field_difference(device, single, 64, points),
        "field without points float64": lambda: field_difference(device, wide, 8, 0),
        "composite float64": lambda: composite_difference(device, wide, COUNTS),
        "composite float32": lambda: composite_difference(device, single, COUNTS),
        "composite of empty rays float64": lambda: composite_difference(device, wide, (0, 0)),
        "composite without rays float64": lambda: composite_difference(device, wide, ()),
        "march float32": lambda: march_difference(device, rays, True),
        "march without grid float32": lambda: march_difference(device, rays, False),
        "march without rays float32": lambda: march_difference(device, 0, True),
        "picture float32": lambda: picture_difference(device),
    }


if __name__ == "__main__":
    print(json.dumps({name: compare() for name, compare in cases(sys.argv[1], 40, 150).items()}))
