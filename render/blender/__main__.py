"""Run the Blender process, which reads render jobs from stdin and writes one reply line per job.

Usage: `python -m render.blender PARENT_PID THREADS cpu|gpu`. Replies go to the original stdout descriptor. Everything
that Blender or a library prints is redirected to stderr, so that it cannot be mistaken for a reply. The process exits
when its stdin closes or its parent dies.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import UserError
from dataset.format.outcomes import Flag
from dataset.format.passes import encode_passes
from dataset.format.schema import (
    EXTENDED_VERSION,
    SCHEMA_VERSION,
    VIEW_SETS,
    Hdri,
    Meta,
    View,
    ViewSet,
    dump_meta,
    member_name,
    meta_name,
    pass_name,
)
from dataset.format.tar import pack
from dataset.images.prepare import encode_webp
from dataset.io.interrupts import exit_with_parent
from dataset.quality_flags import (
    NOISY,
    SPECKLE,
    alpha_coverage,
    image_flags,
    in_order,
    is_clipped,
    noise_level,
    speckle,
)
from render.blender.screen_bounds import object_box
from render.blender.timing import PartTimer
from render.rigs.cameras import Pose, light, noise_seed
from render.rigs.frames import frame_number
from render.rigs.lamps import place_lamps
from render.rigs.rig import Rig, default_rig
from render.settings import Device, environment_maps, parse_device
from render.workers.protocol import Hello, RenderJob, Reply, parse_job, to_line


def hello(device: Device) -> Hello:
    """Import Blender and choose the device that Cycles renders on. If the device is a GPU, test it.

    Args:
        device: The requested device: auto, cpu or gpu.

    Returns:
        Blender's version and the chosen device. If rendering is not possible, `Hello.error` is the reason.
    """
    try:
        import bpy

        from render.blender.device import CPU, choose, warm_up

        chosen, notice = choose(device)
        evidence = "" if chosen == CPU else warm_up(chosen)
    except (ImportError, UserError) as error:
        return Hello(error=str(error))
    return Hello(bpy.app.version_string, chosen, notice=notice or evidence)


def run_job(job: RenderJob, threads: int) -> Reply:
    """Render one object and write its sample to the file `job.tar`.

    Args:
        job: The object and the render settings.
        threads: Number of CPU threads of Cycles.

    Returns:
        The object's quality flags and the times of its rendering, or the failure if the object cannot be rendered.
        Other errors are raised.
    """
    from render.blender.scene import ObjectError

    try:
        with tempfile.TemporaryDirectory(dir=Path(job.tar).parent) as scratch:
            timer = PartTimer()
            members, flags = render_sample(job, threads, Path(scratch), timer)
    except ObjectError as error:
        return Reply(error.failure)
    tar = Path(job.tar)
    temporary = tar.with_suffix(".tmp")
    temporary.write_bytes(pack(members))
    temporary.replace(tar)
    return Reply(flags=flags, timings=timer.rounded())


def render_sample(
    job: RenderJob, threads: int, scratch: Path, timer: PartTimer
) -> tuple[dict[str, bytes], tuple[Flag, ...]]:
    """Render the 32 views of an object.

    Args:
        job: The object and the render settings.
        threads: Number of CPU threads of Cycles.
        scratch: Existing folder for temporary files.
        timer: Timer to which the wall time of each part of the rendering is added.

    Returns:
        A pair: the 33 files of the object's sample (32 images and the metadata) as a mapping file name -> contents, and
        the object's quality flags.

    Raises ObjectError when the object cannot be rendered.
    """
    from render.blender.cycles import configure, render_view
    from render.blender.geometry.repair import pieces
    from render.blender.geometry.sides import hide_back_faces
    from render.blender.scene import ObjectError, normalize, outline_points, prepare
    from render.blender.textures import sanitize_textures

    uid, settings = job.asset.uid, job.settings
    path = _source_file(job, scratch)
    root = Path(job.root) if job.root else path.parent
    digest = job.asset_sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    with timer.part("import"):
        frame = partial(frame_number, settings.frame, seed=job.seed, uid=uid)
        repaired = prepare(path, root, scratch, settings.up, frame)
        normalization = normalize(settings.normalize)
        incomplete = sanitize_textures(path.parent, root, masks=path.suffix.lower() == ".obj")
        missing: tuple[Flag, ...] = ("missing-texture",) if incomplete else ()
        points = outline_points()
    with timer.part("light"):
        hdri = _light(job, settings.rig or default_rig())
    renderer = configure(settings, threads)
    rig = settings.rig or default_rig()
    cameras, first = rig.poses(job.seed, uid), noise_seed(job.seed, uid)
    if settings.backfaces == "hidden":
        hide_back_faces(pieces(), np.array([pose.c2w()[:3, 3] for view_set in VIEW_SETS for pose in cameras[view_set]]))
    members: dict[str, bytes] = {}
    views: dict[Any, tuple[View, ...]] = {}
    all_images: list[Any] = []
    for view_set in VIEW_SETS:
        boxes = [object_box(points, pose, settings.resolution) for pose in cameras[view_set]]
        images = [render_view(pose, first + i, scratch, boxes[i], timer) for i, pose in enumerate(cameras[view_set])]
        with timer.part("write"):
            members |= {member_name(uid, view_set, i): encode_webp(image) for i, image in enumerate(images)}
        views[view_set] = tuple(map(_view, cameras[view_set], images))
        first += len(images)
        all_images += images
    again = _noisiest([pose for view_set in VIEW_SETS for pose in cameras[view_set]], all_images)
    noisy = again is not None and noise_level(again[1], render_view(again[0], first, scratch, None, timer)) > NOISY
    flags = in_order([*image_flags(all_images), *(("noisy",) if noisy else ()), *repaired, *missing])
    if "empty" in flags:
        raise ObjectError("render", "Empty", "no image shows the object: all pixels are transparent", flags)
    members |= _passes(job, cameras, points, scratch, timer)
    asset = job.asset
    meta = Meta(
        schema_version=EXTENDED_VERSION if settings.passes or settings.rig else SCHEMA_VERSION,
        uid=uid,
        source=asset.source,
        license=asset.license,
        author=asset.author,
        asset_sha256=digest,
        resolution=settings.resolution,
        seed=job.seed,
        hdri=hdri,
        normalization=normalization,
        renderer=renderer,
        views=views,
        passes=settings.passes,
        rig=settings.rig.label if settings.rig else "",
        projection=rig.projection,
    )
    return {meta_name(uid): dump_meta(meta), **members}, flags


def _passes(
    job: RenderJob, cameras: Mapping[ViewSet, tuple[Pose, ...]], points: Any, scratch: Path, timer: PartTimer
) -> dict[str, bytes]:
    """Render the passes of all views, and return the members (full name -> data). Images cannot be rendered afterwards.

    Args:
        job: The object and the render settings.
        cameras: The cameras of each view set.
        points: Points of the object [3, n], from `render.blender.scene.outline_points`.
        scratch: Existing folder for temporary files.
        timer: Timer to which the wall time is added.

    Raises ObjectError when a value is out of the range that can be stored.
    """
    from render.blender.passes.surface import begin_passes, render_surface
    from render.blender.scene import ObjectError

    uid, settings = job.asset.uid, job.settings
    if not settings.passes:
        return {}
    members: dict[str, bytes] = {}
    begin_passes(scratch)
    keys = [(view_set, index) for view_set in VIEW_SETS for index in range(len(cameras[view_set]))]
    for view_set, index in keys:
        pose = cameras[view_set][index]
        surface = render_surface(pose, scratch, object_box(points, pose, settings.resolution), timer)
        try:
            with timer.part("passes"):
                K, orthographic = pose.K(settings.resolution), pose.width is not None
                encoded = encode_passes(surface, settings.passes, pose.c2w(), K, orthographic=orthographic)
        except ValueError as error:
            raise ObjectError("render", "PassOutOfRange", str(error)) from error
        members |= {pass_name(uid, view_set, index, name): data for name, data in encoded.items()}
    return members


def _light(job: RenderJob, rig: Rig) -> Hdri:
    """Light the open scene as the rig says."""
    from render.blender.lights import light_lamps, light_scene, light_white

    if rig.light == "lamps":
        return light_lamps(place_lamps(rig.lamps, job.seed, job.asset.uid), rig.light_strength)
    if rig.light == "white":
        return light_white(rig.light_strength)
    maps = environment_maps(Path(job.settings.hdri) if job.settings.hdri else bundled_maps())
    chosen = light(job.seed, job.asset.uid, list(maps), job.settings.exposure_range)
    return light_scene(chosen, maps[chosen.hdri])


def _noisiest(cameras: list[Pose], images: list[Any]) -> tuple[Pose, Any] | None:
    """Return the image [h, w, 4] that may be the noisiest, with its camera; None if all have little noise."""
    values = [speckle(image) for image in images]
    worst = int(np.argmax(values))
    return (cameras[worst], images[worst]) if values[worst] > SPECKLE else None


def _view(pose: Pose, image: Any) -> View:
    return View(
        elevation_deg=pose.elevation_deg,
        azimuth_deg=pose.azimuth_deg,
        distance=pose.distance,
        c2w=tuple(map(tuple, pose.c2w().tolist())),
        K=tuple(map(tuple, pose.K(len(image)).tolist())),
        alpha_coverage=alpha_coverage(image),
        clipped=is_clipped(image),
    )


def _source_file(job: RenderJob, scratch: Path) -> Path:
    """Return the path of the model file. A procedural object is first built in `scratch`."""
    from render.blender.scene import ObjectError

    asset = job.asset
    try:
        path = Path(job.path)
        if asset.procedural_index is not None:
            from render.blender.procedural_glb import export

            path = scratch / f"{asset.uid}.glb"
            export(asset.procedural_index, job.seed, path)
        with path.open("rb"):
            return path
    except OSError as error:
        message = f"the model file of {asset.uid} cannot be read or built ({error})"
        raise ObjectError("source", type(error).__name__, message) from error


def bundled_maps() -> Path:
    """Return the folder of the eight environment maps that ship with Blender, all CC0."""
    import bpy

    return Path(bpy.utils.system_resource("DATAFILES", path="studiolights/world"))


@contextmanager
def allowed_cpus(threads: int) -> Iterator[None]:
    """Restrict this process to `threads` CPUs while Blender starts. TBB then creates a pool of `threads` threads.

    If TBB's thread pool is larger than the number of Cycles' threads, one thread of the pool waits actively
    (sched_yield). The system time per object is then 3.5 s instead of 0.4 s, and other processes become slower
    (docs/LOG.md).
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    available = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(available)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, available)


def main() -> None:
    """Answer render jobs until stdin closes."""
    replies = os.dup(1)
    os.dup2(2, 1)
    parent, threads = int(sys.argv[1]), int(sys.argv[2])
    device: Device = parse_device(sys.argv[3])
    exit_with_parent(parent)
    with allowed_cpus(threads):
        first = hello(device)
    os.write(replies, to_line(first))
    if first.error:
        sys.exit(1)
    for line in sys.stdin:
        os.write(replies, to_line(run_job(parse_job(line), threads)))


if __name__ == "__main__":
    main()
