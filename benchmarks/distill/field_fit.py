"""Measure how well the field can fit images of an object: `python -m benchmarks.distill.field_fit`, minutes on a GPU.

The field of a preset is fitted to images of three objects with an L2 loss, without a diffusion model or shading. The
objects are analytic objects with stripes, or objects of a rendered set (`--shards`). The baseline is a dense grid with
as many parameters, fitted with the same rays, occupancy grid and optimizer. The benchmark prints the PSNR of held-out
views. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.distill.dense_grid import DenseGrid, nodes_of
from benchmarks.distill.oracle_objects import OBJECTS, psnr
from benchmarks.options import add_device
from dataset.camera import spherical_to_c2w
from dataset.errors import run_cli
from dataset.reading.rendered_object import read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate.photometric_fit import PosedImages, fit_images
from distill.nerf.field import Field, Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.output.preview import view_distance, view_fov_deg
from distill.sds.oracle import render_truth
from distill.sds.schedule import PRESETS, DistillSettings, RandomPurpose, torch_stream
from train.loop.flops import wait_for

_STRIPE: Final = 0.09  # world units; 10 pixels of 256
_HELD_OUT: Final = 4  # views per object, the last ones
_DENSE_LEARNING_RATE: Final = 0.1  # higher than for a hash grid, whose features the networks amplify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _options(arguments)
    device = torch.device(options.device)
    settings = replace(PRESETS[options.preset], seed=options.seed)
    if options.samples_per_ray is not None:
        settings = replace(settings, march=replace(settings.march, samples_per_ray=options.samples_per_ray))
    parameters = sum(p.numel() for p in Field(settings.nerf).parameters())
    line: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        **{name: getattr(options, name) for name in ("preset", "resolution", "steps", "rays", "views")},
        "samples_per_ray": settings.march.samples_per_ray,
        "parameters": parameters,
        "dense_nodes": nodes_of(parameters),
        "objects": {},
    }
    for name, posed in _objects(options, settings):
        line["objects"][name] = {}
        for way in options.ways:
            measured = fit(_scene(way, settings, parameters).to(device), posed, settings, options.steps, options.rays)
            line["objects"][name][way] = measured
            print(f"{name}, {way}: {measured}", flush=True)
    for way in options.ways:
        line[f"{way}_psnr_db"] = min(result[way]["psnr_db"] for result in line["objects"].values())
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper", help="preset whose field is fitted")
    parser.add_argument("--shards", help="shard set to use instead of the analytic objects")
    parser.add_argument("--objects", type=int, default=3, help="number of objects")
    parser.add_argument("--resolution", type=int, default=256, help="pixels per side; larger images are downscaled")
    parser.add_argument("--views", type=int, default=64, help="number of training views per analytic object")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each fit")
    parser.add_argument("--rays", type=int, default=8192, help="rays per step")
    parser.add_argument("--samples-per-ray", type=int, help="samples per ray (default: those of the preset)")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=("field", "dense"),
        default=["field", "dense"],
        help="representations to fit: the field, the dense grid, or both",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial field, the cameras and the rays")
    add_device(parser)
    return parser.parse_args(arguments)


def _objects(options: argparse.Namespace, settings: DistillSettings) -> Iterator[tuple[str, PosedImages]]:
    """Yield the selected objects with their names."""
    if options.shards is None:
        for name in list(OBJECTS)[: options.objects]:
            yield name, analytic(name, settings, options.views, options.resolution, options.device)
        return
    shards = ShardSet(options.shards)
    for shard, sample in list(shards.objects(options.seed))[: options.objects]:
        yield shards.uid(shard, sample), rendered(shards, shard, sample, options.resolution)


def analytic(
    name: str, settings: DistillSettings, views: int, resolution: int, device: torch.device | str = "cpu"
) -> PosedImages:
    """Render a striped object of `oracle_objects` from `views` training cameras and `_HELD_OUT` others, on `device`."""
    rng = np.random.default_rng((settings.seed, len(name)))
    count = views + _HELD_OUT
    c2w = spherical_to_c2w(rng.uniform(-10, 40, count), rng.uniform(0, 360, count), view_distance(settings))
    solids = tuple(replace(solid, stripe=_STRIPE) for solid in OBJECTS[name])
    fov = view_fov_deg(settings)
    trace = partial(render_truth, solids, fov_deg=fov, resolution=resolution, supersampling=4, device=device)
    images = [trace(c2w=c2w[i : i + 1]).cpu() for i in range(count)]
    return PosedImages(c2w, fov, torch.cat(images).permute(0, 2, 3, 1))


def rendered(shards: ShardSet, shard: int, sample: int, resolution: int) -> PosedImages:
    """Return an object of a rendered set. Four random views of the object are held out."""
    truth = read_object(shards, (shard, sample))
    images = torch.from_numpy(truth.on_white).permute(0, 3, 1, 2)
    reduced = F.interpolate(images, (resolution, resolution), mode="area").permute(0, 2, 3, 1)
    return PosedImages(truth.c2w, float(truth.fov_deg[0]), reduced)


def _scene(way: str, settings: DistillSettings, parameters: int) -> nn.Module:
    """Return a new field or dense grid."""
    if way == "dense":
        return DenseGrid(settings.nerf, nodes_of(parameters))
    return Field(settings.nerf, torch_stream(settings.seed, 0, RandomPurpose.FIELD))


def _optimizer(scene: nn.Module, settings: DistillSettings) -> torch.optim.AdamW:
    """Return the optimizer of `new_distillation`: one learning rate for the grid, another for the networks."""
    groups = [{"params": list(scene.parameters()), "lr": _DENSE_LEARNING_RATE}]
    if isinstance(scene, Field):
        networks = [*scene.density_mlp.parameters(), *scene.albedo_mlp.parameters()]
        groups = [
            {"params": list(scene.grid.parameters()), "lr": settings.grid_learning_rate},
            {"params": networks, "lr": settings.mlp_learning_rate},
        ]
    return torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.adam_epsilon, weight_decay=settings.weight_decay
    )


def fit(
    module: nn.Module, posed: PosedImages, settings: DistillSettings, steps: int, rays_per_step: int
) -> Mapping[str, Any]:
    """Fit a scene to the training images and measure it at the held-out ones."""
    device = next(module.parameters()).device
    scene = cast(Scene, module)
    occupancy = Occupancy(scene.radius, settings.march).to(device)
    training = PosedImages(posed.c2w[:-_HELD_OUT], posed.fov_deg, posed.images[:-_HELD_OUT])
    optimizer = _optimizer(module, settings)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    wait_for(device)
    started = time.perf_counter()
    fit_images(scene, occupancy, optimizer, training, settings, steps=steps, rays_per_step=rays_per_step)
    wait_for(device)
    seconds = time.perf_counter() - started
    return {
        "psnr_db": round(held_out_psnr(scene, occupancy, posed, settings), 2),
        "seconds": round(seconds, 1),
        "ms_a_step": round(1000 * seconds / steps, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None,
    }


def held_out_psnr(scene: Scene, occupancy: Occupancy, posed: PosedImages, settings: DistillSettings) -> float:
    """Return the mean PSNR of the held-out views."""
    device = occupancy.grid.occs.device
    render: Callable[..., Any] = partial(
        render_views, scene, settings=settings.march, occupancy=occupancy, device=device
    )
    truth = posed.images[-_HELD_OUT:]
    with torch.no_grad():
        seen = [render(c2w[None], posed.fov_deg, truth.shape[1]).rgb.cpu() for c2w in posed.c2w[-_HELD_OUT:]]
    return float(np.mean(psnr(torch.cat(seen), truth)))


if __name__ == "__main__":
    run_cli(main)
