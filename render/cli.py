"""The command-line options of `python -m render`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.format.passes import PASSES, PassName
from dataset.format.schema import NormalizeMode
from dataset.io.options import HiddenDefault
from render.rigs.rig import DEFAULT_RIG, read_rig
from render.settings import Backfaces, Device, Settings, Up
from render.sources.source import SourceSelection
from render.workers.blender_process import Limits
from render.workers.resources import MachineSize

MEMORY_PER_WORKER: Final = 2**30  # bytes: Blender with a typical object; decides the default number of workers


@dataclass(frozen=True)
class RenderCommand:
    """Render objects into shards. Run the same command again to resume."""

    source: str
    """Render these objects: folder:DIR (all glb, gltf, obj, fbx, ply and stl files in it and its subfolders),
    objaverse:lvis|all|UIDS.txt, or procedural:N (N generated objects).
    """
    shards: str = "data/shards"
    """Write the shard set to this folder or fsspec URL, such as s3://bucket/set."""
    workers: HiddenDefault[int | None] = None
    """Number of Blender processes, which does not affect the images. With --device gpu, several can share a GPU of
    this machine.
    Default: one per GPU with --device gpu, otherwise one per CPU core, or fewer if memory is short.
    """
    threads: HiddenDefault[int | None] = None
    """Number of CPU threads per Blender process, which does not affect the images.
    Default: all cores, divided among the processes.
    """
    limit: HiddenDefault[int | None] = None
    """Render only this many objects, from the start of the source."""
    uids: HiddenDefault[Path | None] = None
    """Render only the objects whose uids are in this text file, one per line. For folder and procedural sources."""
    include_licenses: HiddenDefault[tuple[str, ...]] = ()
    """Render only objects with these licenses: SPDX identifiers, or by, by-sa, by-nc, cc0, ...
    Other objects are recorded as skipped. Default: all licenses.
    """
    max_file_mb: HiddenDefault[float | None] = None
    """Skip model files larger than this, and record them as skipped. Default: no limit."""
    skip_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Skip objects whose file is identical to that of an earlier object. By default they are rendered and flagged."""
    resolution: int = 256
    """Width and height of the images in pixels."""
    samples: int = 128
    """Take at most this many samples per pixel, then denoise. SyncDreamer's script takes 128 for every pixel."""
    noise_threshold: float = 0.075
    """Stop sampling a pixel (after 16, 32, ... samples) when its noise is below this value; 0 takes all samples."""
    seed: int = 0
    """Seed of the random elevations, lighting, render noise and procedural objects."""
    normalize: HiddenDefault[NormalizeMode | None] = None
    """longest: scale the longest side to 1, as in SyncDreamer; clipped objects are flagged.
    sphere: scale the bounding sphere to fit the frame, so that no object is clipped.
    """
    hdri: HiddenDefault[Path | None] = None
    """Light the objects with the .exr/.hdr environment maps in this folder. Default: the eight that ship with Blender.
    """
    exposure_range: HiddenDefault[float] = 0.0
    """Make the light of each object brighter or darker by a random number of stops of at most this value.
    Default: 0, the same mean brightness for all objects.
    """
    rig: str = DEFAULT_RIG
    """Cameras and light: the name of a rig in render/rigs/ or the path of a file NAME.toml.
    The default has the 32 views that training needs.
    """
    passes: HiddenDefault[tuple[PassName | Literal["all"], ...]] = ()
    """Also write these passes of each view, as 16-bit or 8-bit PNG files: all, or some of depth, normal (world axes),
    camera-normal, albedo, position, mask, material (roughness, metallic). Default: none.
    """
    frame: str = "first"
    """Frame of animated objects: first, random (drawn for each object), or a number N, the frame N after the first."""
    backfaces: Backfaces = "hidden"
    """hidden: make back faces of single-sided materials transparent, as glTF viewers do. drawn: draw both sides."""
    up: HiddenDefault[Up | None] = None
    """Axis that points up in OBJ, PLY and STL files. Default: y for OBJ, z for PLY and STL."""
    device: Device = "cpu"
    """Device to render on. gpu: the first available of OptiX, CUDA, HIP, Metal; without any, the command fails.
    auto: gpu if available, otherwise cpu.
    """
    timeout_s: float = 600.0
    """Time limit per object in seconds. A Blender process that exceeds it is killed, and the object is retried once."""
    memory_limit_mb: HiddenDefault[float | None] = None
    """Limit of resident memory per Blender process in MB, enforced like --timeout-s.
    Default: 80% of the memory, divided among the processes.
    """
    objects_per_shard: int = 64
    """Number of objects per shard, including failed objects."""
    retry: Literal["none", "failed"] = "none"
    """failed: render the failed objects of earlier runs again. none: keep them as failed."""
    keep_downloads: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep downloaded Objaverse files in the cache. By default each is deleted after its object is rendered."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan and estimate time and size by rendering a few objects; write nothing."""
    estimate_from: int = 4
    """Number of objects that --dry-run renders for its estimate. With 0, it estimates nothing."""
    price_per_hour: float = 0.0
    """Price per hour of all machines together, from which --dry-run estimates the cost."""

    def check(self) -> None:
        """Raise UserError if the value of an option is invalid.

        The check is not in `__post_init__`, because tyro would print an error of `__post_init__` inside a frame.
        """
        for option, value in (("--workers", self.workers), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise UserError(f"{option} is {value}; choose a value of at least 1")
        if self.timeout_s <= 0:
            raise UserError(f"--timeout-s is {self.timeout_s}; choose a positive number of seconds")
        if self.estimate_from < 0 or self.price_per_hour < 0:
            raise UserError(
                f"--estimate-from is {self.estimate_from} and --price-per-hour is {self.price_per_hour}; "
                "both must be at least 0"
            )

    def settings(self) -> Settings:
        """Return the settings that change the images."""
        hdri = str(self.hdri.resolve()) if self.hdri else None
        rig = read_rig(self.rig)
        return Settings(
            resolution=self.resolution,
            samples=self.samples,
            noise_threshold=self.noise_threshold,
            normalize=self.normalize or rig.normalize,
            device=self.device,
            hdri=hdri,
            backfaces=self.backfaces,
            up=self.up,
            exposure_range=self.exposure_range,
            frame=self.frame,
            rig=None if self.rig == DEFAULT_RIG else rig,
            passes=tuple(name for name in PASSES if name in self.passes or "all" in self.passes),
        )

    def selection(self) -> SourceSelection:
        """Return the options that select which objects of the source are rendered."""
        return SourceSelection(self.limit, self.uids, self.include_licenses, self.max_file_mb)

    def limits(self) -> Limits:
        """Return the time and memory limits of the Blender processes."""
        return Limits(self.timeout_s, self.memory_limit_mb)


def num_workers(command: RenderCommand, size: MachineSize) -> int:
    """Return the number of workers: `--workers` if it is given, otherwise the default.

    The default is one per GPU with `--device gpu`, otherwise as many as the CPU cores and the memory allow.

    Args:
        command: The options.
        size: Resources of this machine, or of the cluster.
    """
    if command.workers is not None:
        return command.workers
    if command.device == "gpu":
        return max(1, size.gpus)
    return max(1, min(size.cores // (command.threads or 1), size.memory_bytes // MEMORY_PER_WORKER))
