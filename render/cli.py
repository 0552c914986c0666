"""The command-line options of `python -m render`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.format.schema import NormalizeMode
from dataset.io.options import HiddenDefault
from render.settings import Backfaces, Device, Settings, Up
from render.sources.source import SourceSelection
from render.workers.blender_process import Limits
from render.workers.resources import MachineSize

MEMORY_PER_WORKER: Final = 2**30  # bytes: Blender with a typical object; decides the default number of workers


@dataclass(frozen=True)
class RenderCommand:
    """Render objects into shards. Run the same command again to resume."""

    source: str
    """Objects to render: folder:DIR (all glb, gltf, obj, fbx, ply and stl files in it and its subfolders),
    objaverse:lvis|all|UIDS.txt, or procedural:N (N generated objects).
    """
    shards: str = "data/shards"
    """Folder or fsspec URL (s3://bucket/set) of the shard set to write."""
    workers: HiddenDefault[int | None] = None
    """Number of Blender processes. Default: one per GPU with --device gpu, else one per CPU core, fewer if memory is
    short. Does not change the images.
    """
    threads: HiddenDefault[int | None] = None
    """CPU threads per worker. Default: all cores, divided among the workers. Does not change the images."""
    limit: HiddenDefault[int | None] = None
    """Render only this many objects, from the start of the source."""
    uids: HiddenDefault[Path | None] = None
    """Text file with one uid per line: render only these objects of a folder or procedural source."""
    include_licenses: HiddenDefault[tuple[str, ...]] = ()
    """Licenses to render (SPDX, or by, by-sa, by-nc, cc0, ...); others are recorded as skipped. Default: all."""
    max_file_mb: HiddenDefault[float | None] = None
    """Skip model files larger than this, and record them as skipped. Default: no limit."""
    skip_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Skip objects whose file is identical to that of an earlier object. By default they are rendered and flagged."""
    resolution: int = 256
    """Image width and height in pixels."""
    samples: int = 128
    """Maximum number of samples per pixel before denoising. SyncDreamer's script takes 128 for every pixel."""
    noise_threshold: float = 0.075
    """Stop sampling a pixel (after 16, 32, ... samples) when its noise is below this value; 0 takes all samples."""
    seed: int = 0
    """Random seed of elevations, lighting, noise and procedural objects."""
    normalize: NormalizeMode = "longest"
    """longest: scale the longest side to 1, as in SyncDreamer; clipped objects are flagged. sphere: scale the bounding
    sphere to fit the frame, so that no object is clipped.
    """
    hdri: HiddenDefault[Path | None] = None
    """Folder of .exr/.hdr environment maps. Default: the eight that ship with Blender."""
    backfaces: Backfaces = "hidden"
    """hidden: make back faces of single-sided materials transparent, as glTF viewers do. drawn: draw both sides."""
    up: HiddenDefault[Up | None] = None
    """Axis that points up in OBJ, PLY and STL files. Default: y for OBJ, z for PLY and STL."""
    device: Device = "cpu"
    """gpu: the first available of OptiX, CUDA, HIP, Metal; fails if there is none. auto: gpu if available, else cpu."""
    timeout_s: float = 600.0
    """Time limit per object in seconds. A Blender process that exceeds it is killed, and the object is retried once."""
    memory_limit_mb: HiddenDefault[float | None] = None
    """Resident memory limit per Blender process in MB. Default: 80% of the memory, divided among the workers."""
    objects_per_shard: int = 64
    """Objects per shard, including failed ones."""
    retry: Literal["none", "failed"] = "none"
    """failed: render the failed objects of earlier runs again. none: keep them as failed."""
    keep_downloads: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep downloaded Objaverse files in the cache. By default each is deleted after its object is rendered."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan and estimate time and size by rendering a few objects; write nothing."""
    estimate_from: int = 4
    """Number of objects that --dry-run renders for its estimate; with 0, nothing is estimated."""
    price_per_hour: float = 0.0
    """Price of all machines together per hour, for --dry-run's cost estimate."""

    def check(self) -> None:
        """Raise UserError on invalid values. (Not in __post_init__, whose errors tyro would print in a frame.)"""
        for name, value in (("--workers", self.workers), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if self.timeout_s <= 0:
            raise UserError(f"--timeout-s is {self.timeout_s}; it must be positive")
        if self.estimate_from < 0 or self.price_per_hour < 0:
            raise UserError("--estimate-from and --price-per-hour cannot be negative")

    def settings(self) -> Settings:
        """The settings that change the images."""
        hdri = str(self.hdri.resolve()) if self.hdri else None
        return Settings(
            resolution=self.resolution,
            samples=self.samples,
            noise_threshold=self.noise_threshold,
            normalize=self.normalize,
            device=self.device,
            hdri=hdri,
            backfaces=self.backfaces,
            up=self.up,
        )

    def selection(self) -> SourceSelection:
        """Which objects of the source to render."""
        return SourceSelection(self.limit, self.uids, self.include_licenses, self.max_file_mb)

    def limits(self) -> Limits:
        """The limits of the Blender processes."""
        return Limits(self.timeout_s, self.memory_limit_mb)


def num_workers(command: RenderCommand, size: MachineSize) -> int:
    """Return the requested number of workers.

    The default is one per GPU with `--device gpu`, otherwise as many as the cores and the memory allow.
    """
    if command.workers is not None:
        return command.workers
    if command.device == "gpu":
        return max(1, size.gpus)
    return max(1, min(size.cores // (command.threads or 1), size.memory_bytes // MEMORY_PER_WORKER))
