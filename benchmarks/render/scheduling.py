"""Benchmark the render driver at the size of Objaverse without Blender: `python -m benchmarks.render.scheduling`.

The manifest, the Ray actors on simulated nodes, the batches, the outcome tables, the shards and the resume are real.
Blender is replaced by a stub that takes a millisecond per object and renders nothing, so the shards are empty. The
driver is stopped after half of the set, and a new process resumes. The last line is JSON.
"""

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final

import tyro

from dataset.errors import run_cli
from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from dataset.io.paths import ROOT
from render.driver import drive
from render.output.shard_assembler import ShardAssembler
from render.output.shard_set_writer import ShardSetWriter
from render.workers.actor_pool import RenderPool
from render.workers.messages import RenderBatch, RenderResult, RenderTask

NODES: Final = 4
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """Schedule many objects on simulated nodes, in two runs: the second resumes the first."""

    out: Path = Path("data/bench-scheduling")
    """Folder for the set. It must not exist."""
    objects: int = 800_000
    workers: int = 8
    objects_per_shard: int = 256
    stub_ms: float = 1.0
    """Time in milliseconds that the stub takes per object."""
    stop_after: Annotated[int, tyro.conf.arg(help="(internal) stop the driver after this many objects")] = -1


class StubWorker:
    """Stands in for Blender: takes `seconds` per object and renders nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def ready(self) -> str:
        return str(os.getpid())

    def render(self, tasks: Sequence[RenderTask]) -> RenderBatch:
        started = time.monotonic()
        results = [self._row(task) for task in tasks]
        return RenderBatch(results, time.monotonic() - started, "stub")

    def _row(self, task: RenderTask) -> RenderResult:
        time.sleep(self._seconds)
        message = "a stub that renders nothing"
        return RenderResult(
            Outcome(
                task.asset.uid, task.position, task.shard, "failed", "render", "Stub", message, seconds=self._seconds
            )
        )

    def close(self) -> None:
        """Do nothing: there are no resources."""


def objects(count: int) -> Iterator[Asset]:
    """Yield assets with metadata as long as Objaverse's, in 160 folders."""
    for i in range(count):
        uid = f"{i:032x}"
        path = f"glbs/000-{i * 160 // count:03d}/{uid}.glb"
        yield Asset(uid, "objaverse", "CC-BY-4.0", f"author {i % 9973}", f"object {i}", f"https://example.org/{uid}",
                    objaverse_path=path)  # fmt: skip


@contextmanager
def simulated_nodes(count: int, cpus: int) -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    args = {"num_cpus": cpus, "object_store_memory": 128 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    for _ in range(count - 1):
        cluster.add_node(num_cpus=cpus, object_store_memory=128 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


class Stop(Exception):
    """Exception that simulates the end of the driver process."""


def _until(tasks: Iterator[RenderTask], assembly: ShardAssembler, stop_after: int) -> Iterator[RenderTask]:
    for task in tasks:
        if 0 <= stop_after <= assembly.done:
            raise Stop
        yield task


def one_run(bench: Bench) -> dict[str, float]:
    """Start or resume the rendering of the set. Return the measurements of this process."""
    begun = time.monotonic()
    output = ShardSetWriter(str(bench.out), bench.objects_per_shard)
    with output.locked(), simulated_nodes(NODES, -(-bench.workers // NODES)):
        nodes = time.monotonic()
        output.claim({"source": "stub", "fingerprint": str(bench.objects)}, lambda: objects(bench.objects))
        claimed = time.monotonic()
        try:
            with ShardAssembler(output) as assembly:
                figures = _render(bench, output, assembly)
        except Stop:
            logger.info("scheduling: the driver stops halfway")
            os._exit(0)
        rendered = time.monotonic()
        output.finish()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures |= {"nodes_s": nodes - begun, "manifest_s": claimed - nodes, "finish_s": time.monotonic() - rendered}
    return {**figures, "driver_peak_rss_mb": peak}


def _render(bench: Bench, output: ShardSetWriter, assembly: ShardAssembler) -> dict[str, float]:
    import ray

    started = time.monotonic()
    tasks = assembly.tasks()
    first = next(tasks)
    before = assembly.done
    actor: Any = ray.remote(StubWorker).options(num_cpus=1)
    pool = RenderPool(lambda: actor.remote(bench.stub_ms / 1000), bench.workers)
    begun = time.monotonic()
    drive(output, assembly, pool, chain([first], _until(tasks, assembly, bench.stop_after)))
    seconds = time.monotonic() - begun
    return {"start_s": begun - started, "render_s": seconds, "objects_per_s": (assembly.done - before) / seconds}


def main(bench: Bench) -> None:
    if bench.stop_after != -1:
        print(json.dumps(one_run(bench)))
        return
    figures: dict[str, float] = {}
    for name, stop in (("first", bench.objects // 2), ("resumed", bench.objects + 1)):
        line = [
            sys.executable,
            "-m",
            "benchmarks.render.scheduling",
            "--out",
            str(bench.out),
            "--objects",
            str(bench.objects),
        ]
        line += ["--workers", str(bench.workers), "--objects-per-shard", str(bench.objects_per_shard)]
        line += ["--stub-ms", str(bench.stub_ms), "--stop-after", str(stop)]
        started = time.monotonic()
        run = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        print(f"scheduling: {name} run: {time.monotonic() - started:.0f} s {run.stdout.strip()}", flush=True)
        if run.stdout.strip():
            figures = json.loads(run.stdout.splitlines()[-1])
    rows = sum(1 for _ in ShardSetWriter(str(bench.out), bench.objects_per_shard).outcomes())
    print(json.dumps({"objects": bench.objects, "rows": rows, **{k: round(v, 2) for k, v in figures.items()}}))


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(Bench, prog="python -m benchmarks.render.scheduling")))
