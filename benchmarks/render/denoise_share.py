"""Measure the denoiser's share of the render time: the same views with and without it, on one thread.

`python -m benchmarks.render.denoise_share SAMPLES NOISE_THRESHOLD UID=FILE...` prints one JSON line: {"uid": share,
...}. The two are compared because the status lines of Cycles do not separate sampling from denoising.
"""

import json
import sys
import tempfile
from pathlib import Path

from render.blender.__main__ import allowed_cpus

with allowed_cpus(1):
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)  # starts Blender's threads while `allowed_cpus` applies

from benchmarks.render.bench_objects import SEED
from benchmarks.render.plain_settings import RESOLUTION
from benchmarks.render.reference import VIEWS
from render.blender.__main__ import bundled_maps
from render.blender.cycles import configure, render_view
from render.blender.lights import light_scene
from render.blender.scene import build, visible_points
from render.blender.screen_bounds import object_box
from render.blender.timing import PartTimer
from render.rigs.cameras import light, noise_seed
from render.rigs.rig import poses
from render.settings import Settings, environment_maps


def main() -> None:
    settings = Settings(RESOLUTION, int(sys.argv[1]), float(sys.argv[2]))
    entries = [entry.partition("=") for entry in sys.argv[3:]]
    shares = {uid: round(share(uid, Path(path), settings), 4) for uid, _, path in entries}
    print(json.dumps(shares))


def share(uid: str, path: Path, settings: Settings) -> float:
    """Return the denoiser's share of the time between the first sample and the finished image."""
    build(path, "longest")
    maps = environment_maps(bundled_maps())
    chosen = light(SEED, uid, list(maps))
    light_scene(chosen, maps[chosen.hdri])
    configure(settings, threads=1)
    cameras = [pose for view_set in poses(SEED, uid).values() for pose in view_set]
    boxes = [object_box(visible_points().T, pose, RESOLUTION) for pose in cameras]
    seconds = {True: PartTimer(), False: PartTimer()}
    with tempfile.TemporaryDirectory(prefix="denoise-share-") as scratch:
        render_view(cameras[0], 0, Path(scratch), boxes[0])
        for view in VIEWS:
            for denoise, watch in seconds.items():
                bpy.context.scene.cycles.use_denoising = denoise
                render_view(cameras[view], noise_seed(SEED, uid) + view, Path(scratch), boxes[view], watch)
    return max(0.0, 1 - seconds[False].seconds["sample"] / seconds[True].seconds["sample"])


if __name__ == "__main__":
    main()
