"""Density, albedo and normals of a field, and its file."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.errors import UserError
from distill.nerf.field import Field, load_field, write_tensors
from distill.nerf.settings import FieldSettings, HashGridSettings

GRID = HashGridSettings(levels=3, log2_table_size=10, base_resolution=4, growth=1.6)
SETTINGS = FieldSettings(grid=GRID, radius=0.9, hidden_width=8)


def make_field(spread: float = 1.0) -> Field:
    generator = torch.Generator().manual_seed(0)
    made = Field(SETTINGS, generator).double()
    with torch.no_grad():
        made.grid.table.uniform_(-spread, spread, generator=generator)
    return made


def points(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, generator=generator, dtype=torch.float64) * 0.8 - 0.4


def test_density_and_albedo_follow_the_definition():
    field, x = make_field(), points(9)
    features = field.grid(x)
    hidden = torch.relu(features @ field.density_mlp.hidden.weight.T)
    raw = (hidden @ field.density_mlp.output.weight.T)[:, 0]
    bias = torch.tensor([10 * (1 - float(point.norm()) / 0.5) for point in x], dtype=torch.float64)
    torch.testing.assert_close(field.density(x), torch.log1p(torch.exp(raw + bias)))
    color = torch.relu(features @ field.albedo_mlp.hidden.weight.T) @ field.albedo_mlp.output.weight.T
    torch.testing.assert_close(field.albedo(x), 1 / (1 + torch.exp(-color)))


def test_a_new_field_is_the_blob():
    field = Field(SETTINGS, torch.Generator().manual_seed(0))
    x = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.85]])
    expected = F.softplus(torch.tensor([10.0, 0.0, -7.0]))
    torch.testing.assert_close(field.density(x), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(field.albedo(x), torch.full((3, 3), 0.5), atol=1e-3, rtol=0)
    _, normal = field.density_and_normal(x[1:])
    torch.testing.assert_close(normal, F.normalize(x[1:], dim=-1), atol=1e-3, rtol=0)


def test_nothing_outside_the_ball():
    assert make_field().density(torch.tensor([[0.9, 0.3, 0.0], [0.0, 0.0, -0.91]], dtype=torch.float64)).max() == 0


def test_normals_are_minus_the_density_gradient():
    field, x, h = make_field(), points(200), 1e-6
    axes = torch.eye(3, dtype=torch.float64) * h
    gradient = torch.stack([(field.density(x + step) - field.density(x - step)) / (2 * h) for step in axes], -1)
    density, normal = field.density_and_normal(x)
    torch.testing.assert_close(density, field.density(x))
    torch.testing.assert_close(normal, -F.normalize(gradient, dim=-1), atol=2e-5, rtol=0)


def test_query_is_all_three_at_once():
    field, x = make_field(), points(20)
    found = field.query(x)
    torch.testing.assert_close(found.density, field.density(x))
    torch.testing.assert_close(found.albedo, field.albedo(x))
    torch.testing.assert_close(found.normal, field.density_and_normal(x)[1])


def test_normals_train_the_grid_and_the_network():
    field, x = make_field(), points(30)
    target = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss() -> Tensor:
        return (field.density_and_normal(x)[1] * target).sum()

    parameters = [field.grid.table, field.density_mlp.hidden.weight, field.density_mlp.output.weight]
    gradients = torch.autograd.grad(loss(), parameters)
    h = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(direction, alpha=h)
            above = loss().item()
            parameter.add_(direction, alpha=-2 * h)
            below = loss().item()
            parameter.add_(direction, alpha=h)
        assert (above - below) / (2 * h) == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


def test_file_round_trip(tmp_path):
    field = make_field().float()
    path = tmp_path / "new" / "field.safetensors"
    field.save(path)
    loaded = load_field(path)
    assert loaded.settings == SETTINGS
    x = points(10).float()
    assert torch.equal(loaded.density(x), field.density(x))
    assert torch.equal(loaded.albedo(x), field.albedo(x))


def test_files_that_are_no_fields_are_named(tmp_path):
    path = tmp_path / "field.safetensors"
    with pytest.raises(UserError, match=r"field\.safetensors does not exist"):
        load_field(path)
    write_tensors(path, {"a": torch.zeros(1)}, {"format": "other"})
    with pytest.raises(UserError, match="is not a field"):
        load_field(path)
    make_field().save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not a complete"):
        load_field(path)
