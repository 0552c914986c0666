"""Run a render command: list the source, render its objects in Ray workers, store the results and write the shards.

Results are kept in a staging folder until their shard is complete. Running the same command again resumes the run.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from dataset.compile_cache import CUDA, gpu_kernel_folders
from dataset.errors import UserError
from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from dataset.format.shards import Index
from dataset.io.progress import ProgressBar
from render.cli import RenderCommand, num_workers
from render.download.http import DownloadPolicy
from render.dry_run import plan
from render.output.shard_assembler import ShardAssembler
from render.output.shard_set_writer import ShardSetWriter
from render.output.source_check import check_files_unchanged
from render.settings import Device, Settings, environment_maps
from render.sources.source import ObjectSource, assets, fingerprint, parse_source
from render.system_check import find_problem
from render.workers.actor_pool import RayLost, RenderPool, ray_connection
from render.workers.blender_process import BlenderEnded, BlenderProcess
from render.workers.logs import WorkerLogs
from render.workers.messages import RenderTask
from render.workers.prefetch import downloads_ahead, submitter
from render.workers.prometheus import ProgressMetrics
from render.workers.resources import cluster_size, machine_size
from render.workers.worker import RenderWorker

logger = logging.getLogger(__name__)
LISTED_FAILURES: Final = 50
MAX_RAY_STARTS: Final = 5
DOWNLOADS_AHEAD: Final = 2  # per worker, in addition to those that it waits for


def run(command: RenderCommand) -> int:
    """Run the render command. Return the exit status: 1 if any object failed, else 0. Raises UserError on bad input."""
    command.check()
    source, selection = parse_source(command.source), command.selection()
    output = ShardSetWriter(command.shards, command.objects_per_shard)
    if command.dry_run:
        print(plan(command, source, output))
        return 0
    mark = fingerprint(source, command.seed, selection)
    version, device = preflight(command.settings())
    command = replace(command, device=device)
    with output.locked():
        output.claim(request(command, mark, version), lambda: listed(assets(source, command.seed, selection)))
        if source.root is not None:
            check_files_unchanged(output, source.root)
        if command.retry == "failed":
            logger.info("render: %d failed objects will be rendered again", output.reopen_failed())
        render_missing(command, source, output)
        index = output.finish(command.skip_duplicates)
        return summarize(index, output.outcomes(), command.shards)


def preflight(settings: Settings) -> tuple[str, Device]:
    """Start Blender once. Return Blender's version and the device to render on.

    On a cluster, the machine that runs the driver needs no GPU, because each worker checks its own GPU.

    Raises UserError when Blender does not start or the device is not available.
    """
    if problem := find_problem():
        raise UserError(f"rendering is not available: {problem}")
    if settings.hdri:
        environment_maps(Path(settings.hdri))
    cluster = bool(os.environ.get("RAY_ADDRESS"))
    if cluster and settings.device == "auto":
        raise UserError("--device auto checks only this machine; on a cluster use --device cpu or --device gpu")
    if settings.device != "cpu" and not cluster:
        logger.info(
            "render: starting Blender; the first start with a GPU compiles kernels, which can take ten minutes and are "
            "kept in %s",
            gpu_kernel_folders().get(CUDA, "the driver's folder"),
        )
    try:
        process = BlenderProcess(threads=1, device="cpu" if cluster else settings.device)
    except BlenderEnded as error:
        raise UserError(str(error)) from error
    process.close()
    hello = process.hello
    if hello.error:
        raise UserError(f"rendering is not available: {hello.error}")
    device: Device = settings.device if cluster else "cpu" if hello.device == "CPU" else "gpu"
    logger.info("render: Blender %s, Cycles on %s", hello.version, "the workers" if cluster else hello.device)
    if hello.notice:
        logger.info("render: %s", hello.notice)
    return hello.version, device


def request(command: RenderCommand, mark: str, version: str) -> dict[str, Any]:
    """Return all settings that determine the bytes of the shard set. The file `set.json` stores them.

    Args:
        command: The options of the run.
        mark: Fingerprint of the objects that are selected from the source (`render.sources.source.fingerprint`).
        version: Blender's version.
    """
    settings = command.settings()
    maps = sorted(environment_maps(Path(settings.hdri))) if settings.hdri else "blender"
    return {
        "source": command.source,
        "fingerprint": mark,
        "blender": version,
        "seed": command.seed,
        "settings": _settings_json(settings, maps),
        "skip_duplicates": command.skip_duplicates,
    }


def _settings_json(settings: Settings, maps: list[str] | str) -> dict[str, Any]:
    """Return the render settings as stored in `set.json`.

    Options of later versions are left out if they have their defaults, so that sets of older versions can be continued.
    """
    values = {**asdict(settings), "hdri": maps}
    defaults = asdict(Settings())
    for name in ("exposure_range", "passes", "rig", "frame"):
        if values[name] == defaults[name]:
            del values[name]
    return values


def listed(objects: Iterator[Asset]) -> Iterator[Asset]:
    """Yield `objects` unchanged, and display a progress bar."""
    yield from ProgressBar(objects, desc="list", unit="object", leave=False)


def render_missing(command: RenderCommand, source: ObjectSource, output: ShardSetWriter) -> None:
    """Render all objects that have no outcome yet. Write each shard as soon as all of its objects have an outcome.

    If Ray dies on this machine, restart it and continue. The results of finished objects are kept.

    Raises UserError when Ray dies MAX_RAY_STARTS times, or when no node of a Ray cluster is alive.
    """
    for _ in range(MAX_RAY_STARTS):
        try:
            _render_with_ray(command, source, output)
        except RayLost:
            if os.environ.get("RAY_ADDRESS"):
                raise UserError(
                    "no node of the Ray cluster is alive; start the cluster, then repeat the command"
                ) from None
            logger.warning("Ray died on this machine; restarting it, finished objects are kept")
        else:
            return
    raise UserError(f"Ray died {MAX_RAY_STARTS} times on this machine; free memory, then repeat the command to resume")


def _render_with_ray(command: RenderCommand, source: ObjectSource, output: ShardSetWriter) -> None:
    with ExitStack() as stack:
        assembly = stack.enter_context(ShardAssembler(output))
        tasks = assembly.tasks()
        first = next(tasks, None)
        if first is None:
            return
        size = machine_size()
        stack.enter_context(ray_connection(size))
        if os.environ.get("RAY_ADDRESS"):
            size = cluster_size()
        workers = num_workers(command, size)
        threads = command.threads or max(1, min(size.cores // workers, size.cores_per_node))
        start = worker_factory(command, source, threads, gpu_share(command.device, workers, size.gpus))
        policy = DownloadPolicy(keep=command.keep_downloads, max_bytes=command.selection().max_bytes)
        ahead = downloads_ahead(chain([first], tasks), submitter(policy), DOWNLOADS_AHEAD * workers)
        drive(output, assembly, RenderPool(start, workers), ahead)


def gpu_share(device: Device, workers: int, gpus: int) -> float:
    """Return the share of a GPU that Ray reserves for each worker.

    On this machine, workers share the GPUs if there are more workers than GPUs. On a cluster each worker has a GPU,
    because more nodes with GPUs may join.

    Args:
        device: Device to render on.
        workers: Number of workers.
        gpus: Number of GPUs.
    """
    if device != "gpu":
        return 0.0
    if gpus == 0 or os.environ.get("RAY_ADDRESS"):
        return 1.0
    return 1 / max(1, -(-workers // gpus))


def worker_factory(command: RenderCommand, source: ObjectSource, threads: int, gpu_share: float) -> Callable[[], Any]:
    """Return a function that starts one Ray actor of the class `RenderWorker`.

    Args:
        command: The options.
        source: The objects.
        threads: Number of CPU threads per actor.
        gpu_share: Share of a GPU that Ray reserves for each actor; 0 on a CPU.
    """
    import ray

    limits, root = command.limits(), str(source.root) if source.root else None
    actor: Any = ray.remote(RenderWorker)
    options = {"num_cpus": threads, "num_gpus": gpu_share}
    return lambda: actor.options(**options).remote(command.seed, command.settings(), limits, threads, root)


def drive(output: ShardSetWriter, assembly: ShardAssembler, pool: RenderPool, tasks: Iterator[RenderTask]) -> None:
    """Render the objects of `tasks` with the workers of `pool`, and process the batches of results as they arrive.

    Args:
        output: The shard set.
        assembly: Receives the results and writes the shards.
        pool: The workers.
        tasks: The objects to render.
    """
    logs = WorkerLogs(output.logs)
    progress = ProgressMetrics(output.url, len(output.manifest), assembly.done)
    with ProgressBar(total=len(output.manifest), unit="object", desc="render") as bar:
        for batch in pool.results(tasks):
            if batch.results:
                assembly.accept(batch)
            logs.append(batch.worker, batch.log)
            ended = Counter(result.outcome.status for result in batch.results)
            progress.update(ended["ok"], ended["failed"], ended["skipped"])
            bar.update(assembly.done - bar.n)
            bar.set_postfix(failed=assembly.failed, refresh=False)
    pool.close()


def summarize(index: Index, outcomes: Iterator[Outcome], url: str) -> int:
    """Log the failed objects, print a summary and return the exit status: 1 if any object failed, else 0.

    Args:
        index: The index of the finished shard set.
        outcomes: The outcome of every object in the set.
        url: Address of the set, for the summary.
    """
    failed = skipped = clipped = 0
    for outcome in outcomes:
        skipped += outcome.status == "skipped"
        clipped += "clipped" in outcome.flags
        failed += outcome.status == "failed"
        if outcome.status == "failed" and failed <= LISTED_FAILURES:
            logger.info("failed: %s: %s: %s: %s", outcome.uid, outcome.stage, outcome.error_class, outcome.message)
    if failed > LISTED_FAILURES:
        logger.info("failed: %d more objects, listed in %s/outcomes", failed - LISTED_FAILURES, url)
    if failed:
        logger.info("render: to render the failed objects again, add `--retry failed` to the command")
    print(
        f"render: {url}: {index.objects} objects, {index.views} views, {len(index.shards)} shards, "
        f"{index.bytes / 1e6:.1f} MB; clipped {clipped}, skipped {skipped}, failed {failed}"
    )
    return 1 if failed else 0
