"""Compare the query with hand-written gradients with autograd through the definition."""

import pytest
import torch
from torch import Tensor

from distill.nerf import field_query
from distill.nerf.field import Field
from distill.nerf.settings import FieldSettings, HashGridSettings

# Resolutions 4, 6 and 10: the last level is hashed.
GRID = HashGridSettings(levels=3, features_per_level=2, log2_table_size=9, base_resolution=4, growth=1.6)


def make_field(channels: int = 2) -> Field:
    generator = torch.Generator().manual_seed(0)
    grid = HashGridSettings(**{**vars(GRID), "features_per_level": channels})
    made = Field(FieldSettings(grid=grid, radius=0.9, hidden_width=8), generator).double()
    with torch.no_grad():
        made.grid.table.uniform_(-1, 1, generator=generator)
    return made


def points(count: int = 40) -> Tensor:
    """Random points, some of them outside the ball and outside the cube, and the origin."""
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2.2 - 1.1
    return torch.cat([x, x.new_zeros(1, 3)])


def values_and_gradients(field: Field, found: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(values.shape, generator=generator, dtype=torch.float64) for values in found]
    loss = sum((values * weight).sum() for values, weight in zip(found, weights, strict=True))
    return found, list(torch.autograd.grad(loss, list(field.parameters())))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1000, 7])
def test_values_and_gradients_are_autograds(channels, chunk, monkeypatch):
    monkeypatch.setattr(field_query, "CHUNK", chunk)
    field, x = make_field(channels), points()
    expected = values_and_gradients(field, field.query_features(x, *field.grid.with_jacobian(x)))
    found = values_and_gradients(field, tuple(field.query(x)))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-9)


def test_a_loss_on_one_value_has_gradients():
    """Autograd passes no gradient, or zeros, for the values that the loss does not use."""
    field, x = make_field(), points()
    expected = torch.autograd.grad(field.density(x).sum(), field.density_mlp.hidden.weight)
    found = torch.autograd.grad(field.query(x).density.sum(), field.density_mlp.hidden.weight)
    torch.testing.assert_close(found, expected)


def test_no_points_have_no_values():
    field = make_field()
    found = field.query(points()[:0])
    assert [values.shape for values in found] == [(0,), (0, 3), (0, 3)]
    found.albedo.sum().backward()
    assert field.grid.table.grad is not None
    assert field.grid.table.grad.abs().max() == 0


def test_repeated_queries_are_equal():
    field, x = make_field().float(), points(500).float()
    (first, first_gradients), (second, second_gradients) = (
        values_and_gradients(field, tuple(values.double() for values in field.query(x))) for _ in range(2)
    )
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first_gradients, second_gradients))
