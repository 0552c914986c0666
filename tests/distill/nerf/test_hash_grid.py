"""Compare the hash grid with loops over Python integers, with finite differences and with its transpose."""

import itertools

import pytest
import torch
from torch import Tensor

from distill.nerf.hash_grid import HashGrid, corner_indices, interpolate, interpolate_transposed
from distill.nerf.settings import HashGridSettings

# Resolutions 3, 5, 9: 64 and 216 vertices are dense in 256 entries, 1,000 are hashed.
SETTINGS = HashGridSettings(levels=3, log2_table_size=8, base_resolution=3, growth=1.75)
RADIUS = 0.8


def make_grid(seed: int = 0) -> HashGrid:
    generator = torch.Generator().manual_seed(seed)
    grid = HashGrid(SETTINGS, RADIUS).double()
    with torch.no_grad():
        grid.table.uniform_(-1, 1, generator=generator)
    return grid


def points(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1) * RADIUS * 0.999


def naive_row(vertex: tuple[int, int, int], resolution: int, size: int) -> int:
    if (resolution + 1) ** 3 <= size:
        return (vertex[0] * (resolution + 1) + vertex[1]) * (resolution + 1) + vertex[2]
    mixed = 0
    for coordinate, prime in zip(vertex, (1, 2654435761, 805459861), strict=True):
        mixed ^= coordinate * prime % 2**32
    return mixed % size


def naive_features(grid: HashGrid, x: Tensor) -> list[float]:
    """Return the features of one point by the definition."""
    features, first = [], 0
    for resolution, size in zip(SETTINGS.resolutions(), SETTINGS.table_sizes(), strict=True):
        position = [min(max((float(v) / RADIUS + 1) / 2, 0.0), 1.0) * resolution for v in x]
        cell = [min(int(p), resolution - 1) for p in position]
        for channel in range(SETTINGS.features_per_level):
            value = 0.0
            for corner in itertools.product((0, 1), repeat=3):
                weight = 1.0
                for p, c, bit in zip(position, cell, corner, strict=True):
                    weight *= p - c if bit else 1 - (p - c)
                vertex = (cell[0] + corner[0], cell[1] + corner[1], cell[2] + corner[2])
                value += weight * grid.table[channel, first + naive_row(vertex, resolution, size)].item()
            features.append(value)
        first += size
    return features


def test_levels_are_dense_where_they_fit():
    assert SETTINGS.resolutions() == (3, 5, 9)
    assert SETTINGS.table_sizes() == (64, 216, 256)
    released = HashGridSettings()
    assert released.resolutions()[0] == 16
    assert 4090 <= released.resolutions()[-1] <= 4097
    assert released.table_sizes()[0] == 17**3
    assert released.table_sizes()[-1] == 2**19


@pytest.mark.parametrize("scale", [1.0, 1.6])  # 1.6: points outside the box, too
def test_features_equal_the_naive_loop(scale):
    grid, x = make_grid(), points(20) * scale
    expected = torch.tensor([naive_features(grid, point) for point in x], dtype=torch.float64)
    torch.testing.assert_close(grid(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(grid.with_jacobian(x)[0], expected, atol=1e-12, rtol=0)


def test_values_at_vertices_and_borders_are_the_tables():
    grid = make_grid()
    corner = torch.full((1, 3), RADIUS, dtype=torch.float64)
    last_dense = SETTINGS.table_sizes()[0] - 1
    torch.testing.assert_close(grid(corner)[0, :2], grid.table[:, last_dense])
    torch.testing.assert_close(grid(-corner)[0, :2], grid.table[:, 0])
    # resolution 3: the vertex at a third of the way along x
    vertex = torch.tensor([[-RADIUS + 2 * RADIUS / 3, -RADIUS, -RADIUS]], dtype=torch.float64)
    torch.testing.assert_close(grid(vertex)[0, :2], grid.table[:, 16])


def test_jacobian_equals_finite_differences():
    grid, x, h = make_grid(), points(50), 1e-6
    _, jacobian = grid.with_jacobian(x)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        difference = (grid(x + step) - grid(x - step)) / (2 * h)
        torch.testing.assert_close(jacobian[:, :, axis], difference, atol=1e-6, rtol=1e-6)


def differentiable_features(grid: HashGrid, x: Tensor) -> Tensor:
    """Return features [n, w] as polynomials of the points in their cells, so that autograd can differentiate them."""
    features, first = [], 0
    for resolution, size in zip(SETTINGS.resolutions(), SETTINGS.table_sizes(), strict=True):
        position = (x + RADIUS) / (2 * RADIUS) * resolution  # [n, 3]
        cell = position.detach().floor().clamp(0, resolution - 1)
        high = position - cell
        rows = corner_indices(cell.long().T, resolution, size)  # [2, 2, 2, n]
        weights = [torch.stack([1 - high[:, axis], high[:, axis]]) for axis in range(3)]  # [2, n] each
        features.append(torch.einsum("cxyzn,xn,yn,zn->nc", grid.table[:, first + rows], *weights))
        first += size
    return torch.cat(features, 1)


def border_points() -> Tensor:
    """Points on cell borders of some levels, on corners and edges of the box, and inside."""
    places = torch.tensor(
        [-1.0, -1 / 3, 0.2, 1 / 3, 1.0], dtype=torch.float64
    )  # thirds: borders of resolutions 3 and 9
    return torch.cartesian_prod(places, places, places) * RADIUS


@pytest.mark.parametrize("x", [points(40), border_points()], ids=["random", "borders"])
def test_jacobian_equals_autograds(x):
    """At a border the derivative is that of the cell to which the point belongs."""
    grid = make_grid()
    x = x.clone().requires_grad_()
    features = differentiable_features(grid, x)
    found, jacobian = grid.with_jacobian(x)
    torch.testing.assert_close(found, features, atol=1e-12, rtol=0)
    # Points are independent: the sum's derivative by a point is that point's.
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in features.T]
    torch.testing.assert_close(jacobian, torch.stack(rows, 1), atol=1e-9, rtol=0)


def test_outside_the_box_is_its_surface_and_flat():
    grid = make_grid()
    inside = torch.tensor([[RADIUS, 0.1, -0.2]], dtype=torch.float64)
    outside = inside + torch.tensor([[0.5, 0.0, 0.0]], dtype=torch.float64)
    features, jacobian = grid.with_jacobian(outside)
    torch.testing.assert_close(features, grid(inside))
    assert jacobian[0, :, 0].abs().max() == 0
    assert jacobian[0, :, 1].abs().min() > 0


@pytest.mark.parametrize("derivatives", [False, True])
def test_transpose_is_the_transpose(derivatives):
    generator = torch.Generator().manual_seed(0)
    corners = torch.randn(2, 2, 2, 2, 7, generator=generator, dtype=torch.float64)
    fraction = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    slope = torch.randn(3, 7, generator=generator, dtype=torch.float64) if derivatives else None
    grads = torch.randn(2, 4 if derivatives else 1, 7, generator=generator, dtype=torch.float64)
    forward = (interpolate(corners, fraction, slope) * grads).sum()
    backward = (interpolate_transposed(grads, fraction, slope) * corners).sum()
    torch.testing.assert_close(forward, backward)


def test_table_gradient_of_features_and_jacobian():
    grid, x = make_grid(), points(30)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(30, grid.width, 4, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        features, jacobian = grid.with_jacobian(x)
        return (features * weights[:, :, 0]).sum() + (jacobian * weights[:, :, 1:]).sum()

    (gradient,) = torch.autograd.grad(loss(), grid.table)
    # The loss is linear in the table, so one directional difference with a large step is exact.
    direction = torch.randn(grid.table.shape, generator=generator, dtype=torch.float64)
    before = loss().item()
    with torch.no_grad():
        grid.table += direction
    assert loss().item() - before == pytest.approx((gradient * direction).sum().item(), rel=1e-9)


def test_no_points_give_no_features():
    grid = make_grid()
    features, jacobian = grid.with_jacobian(torch.zeros(0, 3, dtype=torch.float64))
    assert features.shape == (0, 6)
    assert jacobian.shape == (0, 6, 3)
    (features.sum() + jacobian.sum()).backward()
    assert grid.table.grad is not None
    assert grid.table.grad.abs().max() == 0


def test_same_generator_same_table():
    first, second = (HashGrid(SETTINGS, RADIUS, torch.Generator().manual_seed(3)).table for _ in range(2))
    assert torch.equal(first, second)
    assert 0 < first.abs().max() <= 1e-4
