"""Render one object with common settings in its own Blender process: the baseline of `benchmarks.render.render_bench`.

`python -m benchmarks.render.plain_render JOB.json` starts, imports, renders and exits, as SyncDreamer's script does.
With 1,024 samples and no denoiser it also renders the reference images. The scene (import, pose, light, cameras) is
made by render.blender.scene.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix
from PIL import Image

from benchmarks.render.plain_settings import BASELINE, RESOLUTION, PlainJob
from render.blender.__main__ import bundled_maps
from render.blender.cycles import CYCLES, configure, render_view
from render.blender.lights import light_scene
from render.blender.scene import build, visible_points
from render.blender.screen_bounds import object_box
from render.rigs.cameras import Pose, light, noise_seed
from render.rigs.rig import poses
from render.settings import Settings, environment_maps


def main() -> None:
    job = PlainJob(**json.loads(Path(sys.argv[1]).read_text()))
    out = Path(job.out)
    seconds: dict[str, float] = {}
    started = time.monotonic()
    normalization = build(Path(job.path), "longest")
    maps = environment_maps(bundled_maps())
    chosen = light(job.seed, job.uid, list(maps))
    hdri = light_scene(chosen, maps[chosen.hdri])
    seconds["import"] = time.monotonic() - started
    configure(Settings(RESOLUTION, job.samples, noise_threshold=0.0), job.threads)
    _apply_baseline_settings(job)
    cameras = [pose for view_set in poses(job.seed, job.uid).values() for pose in view_set]
    points = visible_points().T
    started = time.monotonic()
    for view in job.views:
        pose, noise, path = (
            cameras[view],
            noise_seed(job.seed, job.uid) + job.noise_offset + view,
            out / f"{view:02d}.png",
        )
        if job.only_object:
            box = object_box(points, pose, RESOLUTION)
            Image.fromarray(render_view(pose, noise, out, box)).save(path)
        else:
            _render_image(pose, noise, path)
    seconds["render"] = time.monotonic() - started
    scene = {"scale": normalization.scale, "offset": normalization.offset, "hdri": hdri.__dict__}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (out / "done.json").write_text(json.dumps({"scene": scene, "seconds": seconds, "peak_rss_mb": peak}))


def _apply_baseline_settings(job: PlainJob) -> None:
    """Reset every setting that our renderer tunes to the value of Blender or of SyncDreamer's script."""
    missing = set(CYCLES) - set(BASELINE)
    assert not missing, f"plain_settings.BASELINE lacks {sorted(missing)}"
    scene: Any = bpy.context.scene
    for name, value in BASELINE.items():
        setattr(scene.cycles, name, value)
    scene.cycles.samples, scene.cycles.use_denoising = job.samples, job.denoise
    scene.cycles.use_light_tree = job.light_tree
    scene.world.cycles.sampling_method = "AUTOMATIC"
    scene.render.use_persistent_data = scene.render.use_compositing = scene.use_nodes = False
    layer: Any = bpy.context.view_layer
    layer.cycles.denoising_store_passes = layer.use_pass_glossy_color = layer.use_pass_transmission_color = False
    scene.render.image_settings.file_format, scene.render.image_settings.compression = "PNG", 15


def _render_image(pose: Pose, seed: int, path: Path) -> None:
    scene: Any = bpy.context.scene
    scene.camera.matrix_world = Matrix(pose.c2w().tolist())
    scene.cycles.seed = seed
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main()
