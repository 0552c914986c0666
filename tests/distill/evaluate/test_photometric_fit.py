"""The fit of a field to images, at toy size: the field and the dense baseline both learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.distill.dense_grid import DenseGrid, nodes_of
from benchmarks.distill.field_fit import analytic, fit, main, rendered
from benchmarks.distill.oracle_objects import SMALL
from dataset.reading.shard_set import ShardSet
from distill.nerf.field import Field
from distill.nerf.settings import FieldSettings
from distill.sds.schedule import RandomPurpose, torch_stream

TOY = replace(SMALL, march=replace(SMALL.march, samples_per_ray=48, occupancy_resolution=16))


@pytest.mark.parametrize("way", ["field", "dense"])
def test_a_fit_learns(way):
    posed = analytic("skittle", TOY, views=8, resolution=16)
    results = []
    for steps in (1, 40):
        scene = DenseGrid(TOY.nerf, 24) if way == "dense" else Field(TOY.nerf, torch_stream(0, 0, RandomPurpose.FIELD))
        results.append(fit(scene, posed, TOY, steps, 256)["psnr_db"])
    assert results[0] < 14
    assert results[1] > results[0] + 4, results


def test_the_last_line_is_json(capsys):
    toy = ["--preset", "tiny", "--resolution", "8", "--steps", "1", "--rays", "16", "--views", "2", "--device", "cpu"]
    assert main(toy) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(line["objects"]) == {"skittle", "figure", "waver"}
    for way in ("field", "dense"):
        assert line["objects"]["waver"][way]["ms_a_step"] > 0
        assert line[f"{way}_psnr_db"] == min(found[way]["psnr_db"] for found in line["objects"].values())


def test_a_rendered_set_brings_its_own_cameras(shards):
    opened = ShardSet(shards)
    shard, sample = next(opened.objects(0))
    posed = rendered(opened, shard, sample, 16)
    assert posed.images.shape == (32, 16, 16, 3)
    assert posed.fov_deg == pytest.approx(49.13, abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(posed.c2w[:, :3, 3], axis=-1), 1.5)


def test_the_baseline_has_as_many_parameters():
    grid = DenseGrid(FieldSettings(), nodes_of(100_000))
    assert 90_000 < grid.table.numel() <= 100_000
    assert nodes_of(4 * 24**3) == 24


def test_the_baseline_interpolates_at_world_places():
    grid = DenseGrid(FieldSettings(radius=2.0, blob_density=0.0), 5)
    with torch.no_grad():
        grid.table[0, :, 3, 1, 0] = torch.tensor([5.0, 9.0, -9.0, 9.0])  # x = 1, y = -1, z = -2: outside the ball
        grid.table[0, :, 3, 1, 1] = torch.tensor([5.0, 9.0, -9.0, 9.0])
    here = torch.tensor([[1.0, -1.0, -1.0], [1.0, -1.0, -0.5], [-1.0, 1.0, 1.0], [1.0, -1.0, -2.0]])
    found = grid.query(here)
    expected = torch.nn.functional.softplus(torch.tensor([5.0, 2.5, 0.0]))
    torch.testing.assert_close(found.density, torch.cat([expected, torch.zeros(1)]))
    torch.testing.assert_close(found.albedo[0], torch.sigmoid(torch.tensor([9.0, -9.0, 9.0])))
