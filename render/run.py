"""The driver: source -> manifest -> tasks for Ray workers -> staged results -> shards. Resume is the same command."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.outcome import Outcome
from dataset.schema import NormalizeMode
from dataset.shards import Index, json_bytes, shard_name
from render.check import problem
from render.output import Output
from render.pool import Pool, connected
from render.settings import Device, Settings, environment_maps
from render.sources import Asset, list_assets
from render.worker import BlenderEnded, BlenderProcess, Limits, Result, Task

MEMORY_A_WORKER: Final = 2**30  # bytes, for the default number of workers: Blender with a common object
LISTED_FAILURES: Final = 50


@dataclass(frozen=True)
class Command:
    """Render objects into shards. The same command again resumes."""

    source: str
    """folder:DIR (glb gltf obj fbx ply stl, recursive), objaverse:lvis|all|UIDS.txt, or procedural:N."""
    shards: str = "data/shards"
    """Folder or fsspec URL of the shard set to write."""
    workers: int | None = None
    """Blender processes; default: one a CPU core, fewer if memory is short. Never changes the pictures."""
    limit: int | None = None
    """Render only the first objects of the source."""
    resolution: int = 256
    """Pixels a side."""
    samples: int = 16
    """Samples a pixel, denoised; the paper's source takes 128, which costs four times as much."""
    seed: int = 0
    """Of elevations, lighting, noise and procedural objects."""
    normalize: NormalizeMode = "longest"
    """longest: longest side 1, as the paper's source (corners may be clipped: flagged); sphere: never clips."""
    hdri: Path | None = None
    """Folder of .exr/.hdr environment maps instead of the eight that Blender ships."""
    device: Device = "cpu"
    """cpu, or gpu: the first of OptiX, CUDA, HIP, Metal that is there (an error when none is)."""
    timeout_s: float = 600.0
    """Seconds an object may take before its Blender process is killed; it gets one more try."""
    memory_limit_mb: float | None = None
    """Resident memory at which an object's Blender process is killed; default: no limit."""
    objects_per_shard: int = 64
    """Objects a shard, failed ones counted."""
    retry: Literal["none", "failed"] = "none"
    """failed: render the failed objects of an earlier run again."""
    licenses: tuple[str, ...] = ()
    """Objaverse's licence codes to keep (by, by-sa, by-nc, by-nc-sa, cc0, ...); default: all."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be done, and do nothing."""

    def settings(self) -> Settings:
        hdri = str(self.hdri.resolve()) if self.hdri else None
        return Settings(self.resolution, self.samples, self.normalize, self.device, hdri)

    def limits(self) -> Limits:
        if self.timeout_s <= 0:
            raise UserError(f"--timeout-s is {self.timeout_s}; it must be positive")
        return Limits(self.timeout_s, self.memory_limit_mb)


def run(command: Command) -> int:
    """Carry out the command; 0 when every object rendered, 1 when some failed. Raises UserError on bad input."""
    settings, limits = command.settings(), command.limits()
    assets = list_assets(command.source, command.seed, command.limit, command.licenses)
    output = Output(command.shards, [asset.uid for asset in assets], command.objects_per_shard)
    workers = _num_workers(command.workers)
    if command.dry_run:
        print(plan(command, output, assets, workers))
        return 0
    version = preflight(settings)
    with output.locked():
        output.claim(request(command, assets, version))
        if command.retry == "failed":
            print(f"render: {output.reopen_failed()} failed objects will be rendered again")
        _render_missing(command, output, assets, workers, limits)
        index = output.finish()
        return summarise(index, output.outcomes(), command.shards)


def plan(command: Command, output: Output, assets: list[Asset], workers: int) -> str:
    """What a run of this command would do, for a person."""
    finished = output.finished_shards()
    done = sum(len(output.positions(shard)) for shard in finished)
    kinds = Counter(Path(asset.path).suffix.lower() for asset in assets if asset.path)
    lines = [
        f"source      {command.source}: {len(assets)} objects {dict(kinds) or ''}".rstrip(),
        f"licences    {dict(Counter(asset.license for asset in assets))}",
        f"shards      {command.shards}: {output.num_shards} of up to {output.objects_per_shard} objects",
        f"done        {done} objects in {len(finished)} finished shards",
        f"workers     {workers} Blender processes on the {command.device}, {command.timeout_s:g} s an object at most",
        f"pictures    32 an object, {command.resolution} x {command.resolution}, {command.samples} samples, denoised",
        f"normalised  {command.normalize}; seed {command.seed}",
        f"light       environment maps: {command.hdri or 'the eight that Blender ships'}",
    ]
    return "\n".join(lines)


def preflight(settings: Settings) -> str:
    """Blender's version, after a trial start. Raises UserError with the remedy when it cannot run here."""
    if found := problem():
        raise UserError(f"rendering is not available: {found}")
    if settings.hdri:
        environment_maps(Path(settings.hdri))
    if settings.device == "gpu":
        print("render: starting Blender on the GPU; its kernels are built at first use, which can take ten minutes")
    try:
        process = BlenderProcess(threads=1, device=settings.device)
    except BlenderEnded as error:
        raise UserError(str(error)) from error
    process.close()
    if process.hello.error:
        raise UserError(f"rendering is not available: {process.hello.error}")
    print(f"render: Blender {process.hello.version}, Cycles on {process.hello.device}")
    return process.hello.version


def request(command: Command, assets: list[Asset], version: str) -> dict[str, Any]:
    """What determines the bytes of the set, apart from the code: the contents of `set.json`."""
    settings = command.settings()
    maps = sorted(environment_maps(Path(settings.hdri))) if settings.hdri else "blender"
    listing = [(asdict(replace(asset, path=None)), _size(asset)) for asset in assets]
    return {
        "source": command.source,
        "assets_sha256": hashlib.sha256(json_bytes(listing)).hexdigest(),
        "blender": version,
        "seed": command.seed,
        "settings": {**asdict(settings), "hdri": maps},
    }


def _size(asset: Asset) -> int | None:
    path = Path(asset.path) if asset.path else None
    return path.stat().st_size if path and path.is_file() else None


def _num_workers(asked: int | None) -> int:
    if asked is not None:
        if asked < 1:
            raise UserError(f"--workers is {asked}; it must be at least 1")
        return asked
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(_cores(), memory // MEMORY_A_WORKER))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _render_missing(command: Command, output: Output, assets: list[Asset], workers: int, limits: Limits) -> None:
    """Render what has no outcome yet; write each shard as soon as all of its objects have one."""
    finished = output.finished_shards()
    open_shards = [shard for shard in range(output.num_shards) if shard not in finished]
    missing: dict[int, set[int]] = {
        shard: {p for p in output.positions(shard) if output.staged(p) is None} for shard in open_shards
    }
    tasks = [Task(assets[p], p, shard_name(shard)) for shard in open_shards for p in sorted(missing[shard])]
    for shard in open_shards:
        if not missing[shard]:
            output.finish_shard(shard)
    if not tasks:
        return
    skipped = len(assets) - len(tasks)
    with connected(workers, _cores()) as threads:
        pool = Pool(command.seed, command.settings(), limits, min(workers, len(tasks)), threads)
        for result in _with_progress(pool.results(tasks), len(assets), skipped):
            output.stage(result.outcome, result.tar)
            shard = output.shard_of(result.outcome.position)
            missing[shard].remove(result.outcome.position)
            if not missing[shard]:
                output.finish_shard(shard)
        pool.close()


def _with_progress(results: Iterable[Result], total: int, initial: int) -> Iterator[Result]:
    from tqdm import tqdm

    failed = 0
    with tqdm(total=total, initial=initial, unit="object", desc="render", disable=None) as bar:
        for result in results:
            yield result
            failed += result.outcome.status == "failed"
            bar.set_postfix(failed=failed)
            bar.update()


def summarise(index: Index, outcomes: list[Outcome], url: str) -> int:
    """Print what became of the set; the exit status."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    clipped = sum("clipped" in outcome.flags for outcome in outcomes)
    print(
        f"render: {url}: {index.objects} objects, {index.views} views, {len(index.shards)} shards, "
        f"{index.bytes / 1e6:.1f} MB; clipped {clipped}, failed {len(failed)}"
    )
    for outcome in failed[:LISTED_FAILURES]:
        print(f"failed: {outcome.uid}: {outcome.stage}: {outcome.error_class}: {outcome.message}", file=sys.stderr)
    if len(failed) > LISTED_FAILURES:
        print(f"failed: and {len(failed) - LISTED_FAILURES} more, see {url}/outcomes", file=sys.stderr)
    if failed:
        print("render: --retry failed renders these again", file=sys.stderr)
    return 1 if failed else 0
