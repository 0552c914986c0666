"""The options of `python -m render`, and what they make of the machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.format.schema import NormalizeMode
from render.settings import Device, Settings
from render.sources.source import Selection
from render.workers.blender_process import Limits
from render.workers.resources import Size

MEMORY_A_WORKER: Final = 2**30  # bytes, for the default number of workers: Blender with a common object


@dataclass(frozen=True)
class Command:
    """Render objects into shards. The same command again resumes."""

    source: str
    """folder:DIR (glb gltf obj fbx ply stl, recursive), objaverse:lvis|all|UIDS.txt, or procedural:N."""
    shards: str = "data/shards"
    """Folder or fsspec URL (s3://bucket/set) of the shard set to write."""
    workers: int | None = None
    """Blender processes; default: one a CPU core (one a GPU), fewer if memory is short. Never changes the pictures."""
    threads: int | None = None
    """CPU threads a worker; default: all cores, divided among the workers. Never changes the pictures."""
    limit: int | None = None
    """Only the first objects of the source."""
    uids: Path | None = None
    """File of uids, one a line: only these of a folder or procedural source."""
    include_licenses: tuple[str, ...] = ()
    """Licences to render (SPDX, or by, by-sa, by-nc, by-nc-sa, cc0, ...), others are recorded; default: all."""
    max_file_mb: float | None = None
    """Model files above this size are recorded and not rendered; default: no limit."""
    skip_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave out objects whose file equals that of an earlier one; without it they are only flagged."""
    resolution: int = 256
    """Pixels a side."""
    samples: int = 128
    """Samples a pixel at most, denoised; the paper's source takes 128 everywhere."""
    noise_threshold: float = 0.075
    """A pixel stops after 16, 32, ... samples once its noise is below; 0: all samples everywhere."""
    seed: int = 0
    """Of elevations, lighting, noise and procedural objects."""
    normalize: NormalizeMode = "longest"
    """longest: longest side 1, as the paper's source (corners may be clipped: flagged); sphere: never clips."""
    hdri: Path | None = None
    """Folder of .exr/.hdr environment maps instead of the eight that Blender ships."""
    device: Device = "cpu"
    """cpu; gpu: the first of OptiX, CUDA, HIP, Metal that is there (an error when none is); auto: gpu, else cpu."""
    timeout_s: float = 600.0
    """Seconds an object may take before its Blender process is killed; it gets one more try."""
    memory_limit_mb: float | None = None
    """Resident memory at which an object's Blender process is killed; default: its share of 80% of the memory."""
    objects_per_shard: int = 64
    """Objects a shard, failed ones counted."""
    retry: Literal["none", "failed"] = "none"
    """failed: render the failed objects of an earlier run again."""
    keep_downloads: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep downloaded Objaverse files in its cache; without it each is gone after its object is rendered."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be done and what it would take, estimated from a few objects, and write nothing."""
    estimate_from: int = 4
    """Objects that --dry-run renders for its estimate; 0: none, no estimate."""
    price_per_hour: float = 0.0
    """Price of all machines together for an hour, for --dry-run's estimate of the cost."""

    def check(self) -> None:
        """Raise UserError on values that no run can have. (tyro would put a frame around one of __post_init__'s.)"""
        for name, value in (("--workers", self.workers), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if self.timeout_s <= 0:
            raise UserError(f"--timeout-s is {self.timeout_s}; it must be positive")
        if self.estimate_from < 0 or self.price_per_hour < 0:
            raise UserError("--estimate-from and --price-per-hour cannot be negative")

    def settings(self) -> Settings:
        hdri = str(self.hdri.resolve()) if self.hdri else None
        return Settings(self.resolution, self.samples, self.noise_threshold, self.normalize, self.device, hdri)

    def selection(self) -> Selection:
        return Selection(self.limit, self.uids, self.include_licenses, self.max_file_mb)

    def limits(self) -> Limits:
        return Limits(self.timeout_s, self.memory_limit_mb)


def num_workers(command: Command, size: Size) -> int:
    """What was asked, else one a GPU, else as many as cores and memory hold."""
    if command.workers is not None:
        return command.workers
    if command.device == "gpu":
        return max(1, size.gpus)
    return max(1, min(size.cores // (command.threads or 1), size.memory_bytes // MEMORY_A_WORKER))
