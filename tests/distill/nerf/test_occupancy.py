"""The occupancy grid stores the optical depth of a step, forgets it at the given rate, and is reproducible."""

import pytest
import torch
from torch import Tensor

from distill.nerf.occupancy import Occupancy
from distill.nerf.settings import MarchSettings

SETTINGS = MarchSettings(
    samples_per_ray=10, occupancy_resolution=4, occupancy_every=3, occupancy_decay=0.7, occupancy_threshold=0.01
)


def constant(density: float):
    return lambda x: torch.full((len(x),), density)


def test_cells_hold_the_optical_depth_of_a_step_and_forget_it() -> None:
    occupancy = Occupancy(0.5, SETTINGS)
    occupancy.update(0, constant(2.0), seed=0)
    depth = 2.0 * SETTINGS.step_length(0.5)
    assert depth == pytest.approx(2 * 2 * 3**0.5 * 0.5 / 10)
    torch.testing.assert_close(occupancy.grid.occs, torch.full((64,), depth))
    for done, step in enumerate((3, 6, 9), start=1):
        occupancy.update(step, constant(0.0), seed=0)
        torch.testing.assert_close(occupancy.grid.occs, torch.full((64,), depth * 0.7**done))
    assert float(occupancy.mean) == pytest.approx(depth * 0.7**3)
    occupancy.update(12, constant(1.0), seed=0)  # the larger of the old value and the new one
    torch.testing.assert_close(occupancy.grid.occs, torch.full((64,), depth / 2))


def test_other_steps_change_nothing() -> None:
    occupancy = Occupancy(0.5, SETTINGS)
    for step in (1, 2, 4, 5):
        occupancy.update(step, constant(2.0), seed=0)
    assert not occupancy.grid.occs.any()


@pytest.mark.parametrize(("depth", "occupied"), [(0.9 * 0.01, False), (1.1 * 0.01, True)])
def test_a_cell_is_occupied_above_the_threshold(depth: float, occupied: bool) -> None:
    occupancy = Occupancy(0.5, SETTINGS)
    outside = constant(1.0)

    def density(x: Tensor) -> Tensor:  # one half is dense, so that the mean of the grid is above the threshold
        return torch.where(x[:, 0] > 0, outside(x), torch.tensor(depth / SETTINGS.step_length(0.5)))

    occupancy.update(0, density, seed=0)
    assert occupancy.cells.occupied[2:].all()
    assert bool(occupancy.cells.occupied[:2].any()) == occupied


def test_the_points_depend_on_seed_and_step_alone() -> None:
    def points(seed: int, step: int) -> Tensor:
        seen = []
        Occupancy(0.5, SETTINGS).update(step, lambda x: seen.append(x.clone()) or x[:, 0].abs(), seed)
        return torch.cat(seen)

    state = torch.get_rng_state()
    first = points(1, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(points(1, 3), first)
    assert not torch.equal(points(2, 3), first)
    assert not torch.equal(points(1, 6), first)
