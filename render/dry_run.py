"""Describe a run for `--dry-run`, and estimate its time and size by rendering a few objects without storing them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset.format.manifest import Asset
from dataset.format.shards import SET_NAME, shard_name
from dataset.io.files import exists
from render.cli import RenderCommand, num_workers
from render.download.http import DownloadPolicy
from render.download.objaverse_cache import download
from render.output.shard_set_writer import ShardSetWriter
from render.sources.source import ObjectSource, assets
from render.workers.messages import RenderTask
from render.workers.resources import machine_size
from render.workers.worker import RenderWorker


@dataclass(frozen=True)
class Listing:
    """Statistics of the objects of a source, and a sample of the objects.

    `sample` contains pairs (position in the source, asset), spread evenly over the objects that are not excluded.
    """

    objects: int
    excluded: int
    bytes: int  # of the model files whose size is known
    kinds: Counter[str]
    licenses: Counter[str]
    sample: list[tuple[int, Asset]]


@dataclass(frozen=True)
class Estimate:
    """Time and size measured by rendering a few objects, with no other worker running on this machine.

    `rendered` and `failed` are numbers of objects. `seconds` and `bytes` are means per object.
    """

    rendered: int
    failed: int
    seconds: float
    bytes: float


def plan(command: RenderCommand, source: ObjectSource, output: ShardSetWriter) -> str:
    """Return a description of the run and an estimate of its time and size, as text. Writes nothing into the set."""
    listing = survey(assets(source, command.seed, command.selection()), command.estimate_from)
    done = _done(output) if exists(output.fs, f"{output.root}/{SET_NAME}") else 0
    workers = num_workers(command, machine_size())
    shards = -(-listing.objects // command.objects_per_shard)
    lines = [
        f"source      {command.source}: {listing.objects} objects {dict(listing.kinds) or ''}".rstrip(),
        f"excluded    {listing.excluded} by license or size",
        f"licenses    {dict(listing.licenses.most_common())}",
        f"shards      {command.shards}: {shards} of up to {command.objects_per_shard} objects",
        f"done        {done} objects in finished shards",
        f"workers     {workers} Blender processes on the {command.device}, at most {command.timeout_s:g} s per object",
        f"images      32 per object, {command.resolution} x {command.resolution}, {command.samples} samples, denoised",
        f"normalized  {command.normalize}; seed {command.seed}",
        f"light       environment maps: {command.hdri or 'the eight that ship with Blender'}",
    ]
    to_render = listing.objects - listing.excluded - done
    if listing.sample and to_render > 0:
        lines += _estimate_lines(command, measure(command, source, listing.sample), to_render, workers)
    return "\n".join(lines)


def survey(listed: Iterator[Asset], sample: int) -> Listing:
    """Count the assets in `listed`. Also choose about `sample` assets, evenly spaced, that are not excluded."""
    objects = excluded = size = seen = 0
    kinds, licenses, kept, stride = Counter[str](), Counter[str](), list[tuple[int, Asset]](), 1
    for position, asset in enumerate(listed):
        objects, size = objects + 1, size + (asset.bytes or 0)
        licenses[asset.license] += 1
        if asset.file:
            kinds[Path(asset.file).suffix.lower()] += 1
        if asset.excluded:
            excluded += 1
            continue
        if sample and seen % stride == 0:
            kept.append((position, asset))
            if len(kept) > 2 * sample:
                kept, stride = kept[::2], 2 * stride
        seen += 1
    return Listing(objects, excluded, size, kinds, licenses, kept[:: max(1, -(-len(kept) // sample))] if sample else [])


def measure(command: RenderCommand, source: ObjectSource, sample: list[tuple[int, Asset]]) -> Estimate:
    """Render a few objects in one worker, and discard the images.

    `sample` contains a pair (position in the source, asset) for each object.
    """
    root = str(source.root) if source.root else None
    worker = RenderWorker(command.seed, command.settings(), command.limits(), command.threads or 1, root)
    try:
        results = [worker.render_one(_task(command, asset, position)) for position, asset in sample]
    finally:
        worker.close()
    seconds = [result.outcome.seconds for result in results]
    sizes = [len(result.tar) for result in results]
    failed = sum(result.outcome.status == "failed" for result in results)
    return Estimate(len(results), failed, sum(seconds) / len(seconds), sum(sizes) / len(sizes))


def _estimate_lines(command: RenderCommand, estimate: Estimate, objects: int, workers: int) -> list[str]:
    hours = objects * estimate.seconds / workers / 3600
    lines = [
        f"estimate    from {estimate.rendered} objects rendered here by one worker ({estimate.failed} failed): "
        f"{estimate.seconds:.1f} s and {estimate.bytes / 1e6:.2f} MB per object",
        f"            {objects} objects: {hours:.1f} hours with {workers} workers of this speed "
        f"({3600 / estimate.seconds * workers:.0f} objects/hour), {objects * estimate.bytes / 1e9:.1f} GB of shards",
    ]
    if command.price_per_hour:
        lines.append(f"            cost {hours * command.price_per_hour:.2f} at {command.price_per_hour:g} per hour")
    return lines


def _task(command: RenderCommand, asset: Asset, position: int) -> RenderTask:
    policy = DownloadPolicy(keep=command.keep_downloads, max_bytes=command.selection().max_bytes)
    blob = download(asset, None, policy) if asset.objaverse_path else None
    return RenderTask(asset, position, shard_name(0), blob)


def _done(output: ShardSetWriter) -> int:
    return sum(len(output.positions(shard)) for shard in output.finished_shards())
