"""Time the field and its renderer: `python -m benchmarks.distill.field_bench`, a minute on a GPU.

The field is newly initialized, with the hash grid of the preset. Two operations are timed without and with gradients,
with the Triton kernels and in plain torch: rendering the views of both phases of the paper's schedule (8 views of 64^2,
4 of 256^2), and a look-up of the hash grid. The last line is JSON.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.options import add_device
from dataset.camera import spherical_to_c2w
from dataset.errors import run_cli
from distill.nerf import compositing, field, hash_grid, ray_sampling
from distill.nerf.backend import has_kernels
from distill.nerf.field import Field
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.nerf.shading import orientation_loss
from distill.sds.schedule import PRESETS, DistillSettings, RandomPurpose, torch_stream
from train.loop.flops import seconds_of

FOV_DEG, DISTANCE = 40.0, 2.5


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    settings, device = PRESETS[options.preset], torch.device(options.device)
    field = Field(settings.nerf, torch_stream(0, 0, RandomPurpose.FIELD)).to(device)
    occupancy = Occupancy(field.radius, settings.march).to(device)
    occupancy.update(0, field.density, seed=0)
    line: dict[str, object] = {
        "preset": options.preset,
        "occupied": round(float(occupancy.grid.binaries.float().mean()), 4),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    phases = {
        "coarse": (settings.coarse_views, settings.coarse_resolution),
        "fine": (settings.fine_views, settings.fine_resolution),
    }
    for way in ("kernels", "torch") if has_kernels(device.type) else ("torch",):
        with _computed_by(way):
            for phase, (views, resolution) in phases.items():
                measured = phase_times(
                    settings, field, occupancy, views=views, resolution=resolution, repeats=options.repeats
                )
                line[f"{phase} {way}"] = measured
                print(f"{phase} {way}: {measured}", flush=True)
            line[f"grid {way}"] = grid_times(field, options.points, options.repeats)
            print(f"grid {way}: {line[f'grid {way}']}", flush=True)
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper", help="preset whose settings are measured")
    parser.add_argument("--points", type=int, default=2**20, help="points per look-up of the hash grid")
    parser.add_argument("--repeats", type=int, default=10, help="number of repetitions; the median is reported")
    add_device(parser)
    return parser.parse_args(arguments)


@contextmanager
def _computed_by(way: str) -> Iterator[None]:
    """Inside the block, use the Triton kernels (`way` "kernels") or plain torch ("torch")."""
    if way == "kernels":
        yield
        return
    with (
        patch.object(hash_grid, "has_kernels", lambda device: False),
        patch.object(field, "has_kernels", lambda device: False),
        patch.object(compositing, "has_kernels", lambda device: False),
        patch.object(ray_sampling, "has_kernels", lambda device: False),
    ):
        yield


def phase_times(
    settings: DistillSettings, field: Field, occupancy: Occupancy, *, views: int, resolution: int, repeats: int
) -> dict[str, float | None]:
    """Time rendering one step's images in ms, without and with gradients, with the peak memory (None on a CPU)."""
    device = field.grid.table.device
    azimuths = np.arange(views) * 360 / views
    cameras = spherical_to_c2w(np.full(views, 15.0), azimuths, np.full(views, DISTANCE))

    def images() -> Tensor:
        rendered = render_views(
            field, cameras, FOV_DEG, resolution, settings=settings.march, occupancy=occupancy, device=device
        )
        return rendered.rgb.square().mean() + orientation_loss(rendered.away, rendered.alpha)

    def gradients() -> Tensor:
        field.zero_grad(set_to_none=True)
        loss = images()
        torch.autograd.backward(loss)
        return loss

    with torch.no_grad():
        forward = _milliseconds(images, device, repeats)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    both = _milliseconds(gradients, device, repeats)
    peak = round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None
    return {"forward_ms": forward, "forward_backward_ms": both, "peak_gib": peak}


def grid_times(field: Field, points: int, repeats: int) -> dict[str, float]:
    """Time a look-up of features and Jacobian at random points in ms, without and with the gradient of the table."""
    grid, device = field.grid, field.grid.table.device
    x = (torch.rand(points, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(device) * grid.radius
    upstream = torch.randn(grid.width, 4, points, device=device)

    def forward() -> Tensor:
        with torch.no_grad():
            return grid.with_jacobian(x)[0]

    def backward() -> Tensor:
        features, jacobian = grid.with_jacobian(x)
        torch.autograd.backward([features, jacobian], [upstream[:, 0].T, upstream[:, 1:].permute(2, 0, 1)])
        return features

    return {
        "forward_ms": _milliseconds(forward, device, repeats),
        "forward_backward_ms": _milliseconds(backward, device, repeats),
    }


def _milliseconds(work: Callable[[], Tensor], device: torch.device, repeats: int) -> float:
    """Return the median time of `repeats` runs in ms. A run before them compiles and is not counted."""
    work()
    return round(1000 * statistics.median(seconds_of(work, device) for _ in range(repeats)), 3)


if __name__ == "__main__":
    run_cli(main)
