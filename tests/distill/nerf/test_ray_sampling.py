"""Compare ray marching with a loop over numbers; packing and chunking of samples."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Samples
from distill.nerf.occupancy import Occupancy, OccupancyCells
from distill.nerf.ray_sampling import march_dense, occupied_samples
from distill.nerf.rays import PackedSamples, RayChunk, Rays, RaySegments, ball_bounds, join, ray_chunks, sample_chunks
from distill.nerf.render import render_rays
from distill.nerf.settings import MarchSettings
from distill.nerf.shading import albedo_only

RADIUS, STEP = 0.9, 0.07
STEPS = int(2 * RADIUS / STEP) + 2


def some_rays(count: int = 30) -> Rays:
    """Rays that hit and miss the ball; every third starts inside."""
    generator = torch.Generator().manual_seed(0)
    origin = torch.randn(count, 3, generator=generator) * 0.3
    origin[torch.arange(count) % 3 > 0] += torch.tensor([0.0, -2.0, 0.0])
    direction = F.normalize(torch.randn(count, 3, generator=generator) * 0.4 - origin, dim=-1)
    return Rays(origin, direction, torch.zeros(count, dtype=torch.long))


def segments_of(rays: Rays) -> RaySegments:
    shift = torch.rand(len(rays.frame), generator=torch.Generator().manual_seed(1))
    return RaySegments(rays.origin, rays.direction, *ball_bounds(rays, RADIUS), shift)


def some_cells(side: int = 5) -> OccupancyCells:
    return OccupancyCells(torch.rand(side, side, side, generator=torch.Generator().manual_seed(2)) < 0.4, RADIUS)


def naive_places(segments: RaySegments, cells: OccupancyCells | None, index: int) -> list[float]:
    """Return the distances of the samples of one ray by the definition."""
    found = []
    near, far, shift = (float(values[index]) for values in segments[2:])
    for place in range(STEPS):
        t = near + (place + shift - 0.5) * STEP
        if not near < t < far:
            continue
        point = [float(segments.origin[index, i] + segments.direction[index, i] * t) for i in range(3)]
        if cells is not None:
            side = len(cells.occupied)
            cell = [min(max(int((value + RADIUS) / (2 * RADIUS) * side), 0), side - 1) for value in point]
            if not cells.occupied[tuple(cell)]:
                continue
        found.append(t)
    return found


@pytest.mark.parametrize("cells", [some_cells(), None])
@pytest.mark.parametrize("budget", [10_000, 1])  # 1: a ray at a time
def test_samples_equal_the_naive_loop(cells, budget):
    segments = segments_of(some_rays())
    packed = occupied_samples(segments, cells, STEP, 2 * RADIUS, budget)
    expected = [naive_places(segments, cells, index) for index in range(30)]
    assert packed.starts.diff().tolist() == [len(places) for places in expected]
    assert packed.ray.tolist() == [index for index, places in enumerate(expected) for _ in places]
    torch.testing.assert_close(packed.t, torch.tensor([t for places in expected for t in places]))
    assert any(not places for places in expected)


def corner_cells(*corner: int) -> OccupancyCells:
    occupied = torch.zeros(5, 5, 5, dtype=torch.bool)
    occupied[corner] = True
    return OccupancyCells(occupied, RADIUS)


@pytest.mark.parametrize("cells", [corner_cells(2, 1, 3), corner_cells(4, 2, 2), corner_cells(0, 2, 1)])
def test_samples_of_one_cell_equal_the_naive_loop(cells):
    """Steps outside the box around the occupied cells are not tested; rays parallel to an axis never leave its slab."""
    places = torch.linspace(-0.8, 0.8, 9)
    across = torch.cartesian_prod(places, places)
    origins, directions = [], []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        origin, direction = torch.full((len(across), 3), -2.0), torch.zeros(len(across), 3)
        origin[:, others], direction[:, axis] = across, 1.0
        origins.append(origin)
        directions.append(direction)
    origin, direction = torch.cat(origins), torch.cat(directions)
    some = some_rays()
    rays = Rays(torch.cat([origin, some.origin]), torch.cat([direction, some.direction]), torch.zeros(len(origin) + 30))
    segments = segments_of(rays)
    packed = occupied_samples(segments, cells, STEP, 2 * RADIUS, 10_000)
    expected = [naive_places(segments, cells, index) for index in range(len(rays.frame))]
    assert packed.starts.diff().tolist() == [len(places) for places in expected]
    torch.testing.assert_close(packed.t, torch.tensor([t for places in expected for t in places]))
    assert len(packed.t) > 10


def test_empty_cells_have_no_samples():
    cells = OccupancyCells(torch.zeros(5, 5, 5, dtype=torch.bool), RADIUS)
    packed = occupied_samples(segments_of(some_rays()), cells, STEP, 2 * RADIUS, 10_000)
    assert packed.starts.tolist() == [0] * 31
    assert packed.t.shape == (0,)


def test_no_rays_have_no_samples():
    nothing = RaySegments(*(values[:0] for values in segments_of(some_rays())))
    packed = march_dense(nothing, some_cells(), STEP, STEPS, 10)
    assert packed.starts.tolist() == [0]
    assert packed.ray.shape == packed.t.shape == (0,)


def packed_of(counts: list[int]) -> PackedSamples:
    starts = torch.tensor([0, *counts]).cumsum(0)
    return PackedSamples(
        torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), torch.arange(float(sum(counts))), starts
    )


def test_keep_repacks():
    kept = packed_of([2, 0, 3]).keep(torch.tensor([False, True, False, True, True]))
    assert kept.ray.tolist() == [0, 2, 2]
    assert kept.t.tolist() == [1, 3, 4]
    assert kept.starts.tolist() == [0, 1, 1, 3]


def test_join_is_the_inverse_of_parting():
    whole = packed_of([2, 0, 3, 1, 0, 4])
    parts = [whole.of_rays(RayChunk(*bounds)) for bounds in ((0, 2, 0, 2), (2, 5, 2, 6), (5, 6, 6, 10))]
    for found, expected in zip(join(parts), whole, strict=True):
        assert torch.equal(found, expected)


def test_samples_of_some_rays():
    part = packed_of([2, 0, 3, 1]).of_rays(RayChunk(1, 3, 2, 5))
    assert part.ray.tolist() == [1, 1, 1]
    assert part.t.tolist() == [2, 3, 4]
    assert part.starts.tolist() == [0, 0, 3]


@pytest.mark.parametrize("budget", [1, 4, 7, 20, 1000])
@pytest.mark.parametrize("counts", [[0, 3, 5, 0, 0, 1, 4, 4, 9, 0], [0, 0], [6], [0, 30, 0]])
def test_chunks_cover_every_ray_and_stay_within_the_budget(counts, budget):
    packed = packed_of(counts)
    chunks = ray_chunks(packed, budget)
    assert [ray for chunk in chunks for ray in range(chunk.first_ray, chunk.last_ray)] == list(range(len(counts)))
    for first, last, begin, end in chunks:
        assert first < last
        assert (begin, end) == (sum(counts[:first]), sum(counts[:last]))
        assert end - begin <= budget + max(counts)
    if sum(counts) <= budget:
        assert len(chunks) == 1


def test_slices_cover_every_sample():
    assert [range(7)[chunk] for chunk in sample_chunks(7, 3)] == [range(3), range(3, 6), range(6, 7)]
    assert list(sample_chunks(0, 3)) == [slice(0, 3)]


class Fog:
    """A gray scene with the density of a function."""

    radius = RADIUS

    def __init__(self, density: Tensor | float) -> None:
        self.value = density
        self.asked = 0

    def density(self, x: Tensor) -> Tensor:
        return torch.ones(len(x)) * self.value

    def query(self, x: Tensor) -> Samples:
        self.asked += len(x)
        return Samples(self.density(x), torch.full((len(x), 3), 0.5), F.normalize(x, dim=-1))


def test_occluded_samples_are_not_evaluated():
    rays, settings = some_rays(), MarchSettings(samples_per_ray=100)
    thin, thick = Fog(0.1), Fog(1e4)
    for scene in (thin, thick):
        render_rays(scene, rays, torch.full((30,), 0.5), settings=settings, occupancy=None, shade=albedo_only)
    near, far = ball_bounds(rays, RADIUS)
    assert thick.asked == (far > near).sum()  # the first sample of each ray that meets the ball
    assert thin.asked > 10 * thick.asked


def test_a_density_that_is_no_number_is_seen():
    pixels = render_rays(
        Fog(float("nan")),
        some_rays(),
        torch.full((30,), 0.5),
        settings=MarchSettings(),
        occupancy=None,
        shade=albedo_only,
    )
    assert pixels.isnan().any()


def test_cells_are_the_occupancy_grids():
    occupancy = Occupancy(RADIUS, MarchSettings(occupancy_resolution=4))
    occupancy.grid.binaries[0, 1, 2, 3] = True
    assert occupancy.cells.occupied[1, 2, 3]
    assert occupancy.cells.occupied.sum() == 1
