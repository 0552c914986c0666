"""Measure cost and quality of Cycles settings: `python -m benchmarks.render.settings_sweep "" "samples=32"`.

Each argument is one variant: comma-separated `NAME=VALUE` pairs that override `render`'s settings. Values are Python
literals (`samples=32,adaptive_threshold=0.1`). Every benchmark object is imported once. Each variant renders four views
of it on one thread, and these are compared with the reference (benchmarks.render.reference). Times are CPU seconds,
which depend less on other load. The last line is JSON: variant -> object -> [CPU seconds per view, [dB of each view]].
"""

import argparse
import ast
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from render.blender.__main__ import allowed_cpus

with allowed_cpus(1):
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)  # starts Blender's threads while `allowed_cpus` applies

from benchmarks.render.bench_objects import SEED, BenchObject, listed, prepare
from benchmarks.render.bench_workers import cores
from benchmarks.render.plain_settings import RESOLUTION
from benchmarks.render.quality import compare
from benchmarks.render.reference import CACHE, VIEWS, reference
from render.blender.__main__ import bundled_maps
from render.blender.cycles import NOISY_SHARE_NODE, configure, render_view
from render.blender.lights import light_scene
from render.blender.scene import build, outline_points
from render.blender.screen_bounds import object_box
from render.rigs.cameras import light, noise_seed
from render.rigs.rig import poses
from render.settings import Settings, environment_maps

Figures = dict[str, tuple[float, tuple[float, ...]]]  # object -> CPU seconds per view, dB of each view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "variants",
        nargs="+",
        help="NAME=VALUE,... of scene.cycles, or share_base and share_slope (see _share_input); '' changes nothing",
    )
    parser.add_argument("--only", nargs="*", default=None, help="use only uids that contain one of these words")
    options = parser.parse_args()
    uids = [uid for uid in listed() if options.only is None or any(word in uid for word in options.only)]
    results: dict[str, Figures] = {variant: {} for variant in options.variants}
    for uid in uids:
        for variant, figures in sweep(prepare(uid, CACHE / "objects"), options.variants).items():
            results[variant][uid] = figures
            decibels = " ".join(f"{db:.1f}" for db in figures[1])
            print(f"{uid:40s} {variant:60s} {figures[0]:.3f} s  {decibels} dB", flush=True)
    for variant, by_uid in results.items():
        white = [db for _, views in by_uid.values() for db in views]
        seconds = float(np.mean([seconds for seconds, _ in by_uid.values()]))
        print(f"{variant:60s} {seconds:.3f} CPU s per view, mean {np.mean(white):.2f} dB, worst {min(white):.2f} dB")
    print(json.dumps(results))


def sweep(item: BenchObject, variants: list[str]) -> Figures:
    truth = reference(item, cores()).images
    build(item.path, "longest")
    points = outline_points()
    maps = environment_maps(bundled_maps())
    chosen = light(SEED, item.uid, list(maps))
    light_scene(chosen, maps[chosen.hdri])
    configure(Settings(RESOLUTION), threads=1)
    cameras = [pose for view_set in poses(SEED, item.uid).values() for pose in view_set]
    boxes = [object_box(points, cameras[view], RESOLUTION) for view in VIEWS]
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="settings-sweep-") as scratch:
        render_view(cameras[0], 0, Path(scratch), boxes[0])  # warm-up: 32 views share the BVH
        for variant in variants:
            before = apply(parse(variant))
            started, images = time.process_time(), []
            for view, box in zip(VIEWS, boxes, strict=True):
                images.append(render_view(cameras[view], noise_seed(SEED, item.uid) + view, Path(scratch), box))
            seconds = (time.process_time() - started) / len(VIEWS)
            figures[variant] = (
                round(seconds, 4),
                tuple(round(db, 3) for db in compare(np.stack(images), truth).white_db),
            )
            apply(before)
    return figures


def parse(variant: str) -> dict[str, Any]:
    pairs = [pair.partition("=") for pair in variant.split(",") if pair]
    return {name: ast.literal_eval(value) for name, _, value in pairs}


def apply(values: dict[str, Any]) -> dict[str, Any]:
    """Set the properties that `values` names. Return the former values of these properties."""
    before: dict[str, Any] = {}
    for name, value in values.items():
        target, attribute = _share_input(name) if name.startswith("share_") else (bpy.context.scene.cycles, name)
        before[name] = getattr(target, attribute)
        setattr(target, attribute, value)
    return before


def _share_input(name: str) -> tuple[Any, str]:
    """Return the node input for share_base (noisy share of a diffuse surface) or share_slope (added for a mirror)."""
    scene: Any = bpy.context.scene
    return scene.node_tree.nodes[NOISY_SHARE_NODE].inputs[{"share_base": 2, "share_slope": 1}[name]], "default_value"


if __name__ == "__main__":
    main()
