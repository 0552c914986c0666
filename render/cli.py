"""The command-line options of `python -m render`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.format.schema import NormalizeMode
from render.settings import Backfaces, Device, Settings
from render.sources.source import SourceSelection
from render.workers.blender_process import Limits
from render.workers.resources import MachineSize

MEMORY_PER_WORKER: Final = 2**30  # bytes: Blender with a typical object; decides the default number of workers


@dataclass(frozen=True)
class RenderCommand:
    """Render objects into shards. Run the same command again to resume."""

    source: str
    """folder:DIR (glb gltf obj fbx ply stl, recursive), objaverse:lvis|all|UIDS.txt, or procedural:N."""
    shards: str = "data/shards"
    """Folder or fsspec URL (s3://bucket/set) of the shard set to write."""
    workers: int | None = None
    """Blender processes; default: one per CPU core (per GPU), fewer if memory is short. Does not change the images."""
    threads: int | None = None
    """CPU threads per worker; default: all cores, divided among the workers. Does not change the images."""
    limit: int | None = None
    """Render at most this many objects, the first ones of the source."""
    uids: Path | None = None
    """Text file with one uid per line: render only these objects of a folder or procedural source."""
    include_licenses: tuple[str, ...] = ()
    """Licenses to render (SPDX, or by, by-sa, by-nc, cc0, ...); others are recorded as skipped; default: all."""
    max_file_mb: float | None = None
    """Skip model files larger than this, and record them as skipped; default: no limit."""
    skip_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Skip objects whose file is identical to an earlier one; by default they are only flagged."""
    resolution: int = 256
    """Image width and height in pixels."""
    samples: int = 128
    """Maximum samples per pixel before denoising; SyncDreamer's script uses 128 for every pixel."""
    noise_threshold: float = 0.075
    """Stop sampling a pixel (after 16, 32, ... samples) when its noise is below this; 0: always take all samples."""
    seed: int = 0
    """Random seed of elevations, lighting, noise and procedural objects."""
    normalize: NormalizeMode = "longest"
    """longest: longest side 1, as in SyncDreamer (clipped objects are flagged); sphere: fits the frame, never clips."""
    hdri: Path | None = None
    """Folder of .exr/.hdr environment maps; default: the eight that ship with Blender."""
    backfaces: Backfaces = "hidden"
    """hidden: back faces of single-sided materials are transparent, as in glTF viewers; drawn: draw both sides."""
    device: Device = "cpu"
    """cpu; gpu: the first available of OptiX, CUDA, HIP, Metal (an error if there is none); auto: gpu, else cpu."""
    timeout_s: float = 600.0
    """Time limit per object in seconds; a Blender process that exceeds it is killed and the object retried once."""
    memory_limit_mb: float | None = None
    """Resident memory limit per Blender process in MB; default: 80% of the memory, divided among the workers."""
    objects_per_shard: int = 64
    """Objects per shard, including failed ones."""
    retry: Literal["none", "failed"] = "none"
    """failed: render the failed objects of earlier runs again."""
    keep_downloads: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep downloaded Objaverse files in the cache; by default each is deleted after its object is rendered."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan with an estimate of time and size from a few rendered objects; write nothing."""
    estimate_from: int = 4
    """Number of objects that --dry-run renders for its estimate; 0: no estimate."""
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
            self.resolution, self.samples, self.noise_threshold, self.normalize, self.device, hdri, self.backfaces
        )

    def selection(self) -> SourceSelection:
        """Which objects of the source to render."""
        return SourceSelection(self.limit, self.uids, self.include_licenses, self.max_file_mb)

    def limits(self) -> Limits:
        """The limits of the Blender processes."""
        return Limits(self.timeout_s, self.memory_limit_mb)


def num_workers(command: RenderCommand, size: MachineSize) -> int:
    """The requested number of workers; by default one per GPU, or as many as the cores and memory allow."""
    if command.workers is not None:
        return command.workers
    if command.device == "gpu":
        return max(1, size.gpus)
    return max(1, min(size.cores // (command.threads or 1), size.memory_bytes // MEMORY_PER_WORKER))
