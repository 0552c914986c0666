"""Measure the CPU time per object outside sampling: `python -m benchmarks.render.setup_share --compare ../old`.

One process per checkout renders procedural objects and model files, one at a time, on one thread. With `--compare`, the
processes of the two checkouts alternate (old, new, new, old), the smaller time of each part counts, and the shards of
both are compared. "scene" is all time outside the views. "first view" is the time that the first view takes longer than
the others: importance map and BVH. "set-up" is the sum of both.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Final

import tyro

MODELS: Final = Path(__file__).resolve().parents[3] / "shared" / "objects"
SEED: Final = 0
PARTS: Final = ("set-up", "scene", "first view", "total")
Seconds = dict[str, float]


@dataclass(frozen=True)
class BenchJob:
    """An object to render: a procedural object by index, or a model file."""

    uid: str
    index: int | None
    path: str
    sha256: str


@dataclass(frozen=True)
class Bench:
    """Measure the CPU time per object outside sampling."""

    compare: Path | None = None
    """Another checkout of this repository, with which this one is compared."""
    objects: int = 12
    """Number of procedural objects, and number of model files."""
    models: Path = MODELS
    """Folder of folders of GLB files."""
    resolution: int = 64
    samples: int = 8
    child: Annotated[bool, tyro.conf.arg(help="(internal) answer jobs from stdin")] = False


def answer_jobs(bench: Bench) -> None:
    """Render one object per line of stdin, and write a line of CPU seconds per part to the original stdout."""
    from dataset.format.manifest import Asset
    from render.blender import cycles
    from render.blender.__main__ import allowed_cpus, hello, run_job
    from render.settings import Settings
    from render.workers.protocol import RenderJob

    replies = os.dup(1)
    os.dup2(2, 1)
    with allowed_cpus(1):
        hello("cpu")
    views: list[float] = []
    render_view = cycles.render_view

    def timed_view(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        image = render_view(*arguments, **options)
        views.append(time.process_time() - started)
        return image

    cycles.render_view = timed_view
    for line in sys.stdin:
        tar, job = json.loads(line)[0], BenchJob(**json.loads(line)[1])
        asset = Asset(job.uid, "benchmark", "CC0-1.0", procedural_index=job.index)
        settings = Settings(bench.resolution, bench.samples)
        views.clear()
        started = time.process_time()
        reply = run_job(RenderJob(asset, job.path, job.sha256, SEED, settings, tar), 1)
        total = time.process_time() - started
        if reply.failure is not None:
            sys.exit(f"{job.uid}: {reply.failure.message}")
        first = views[0] - mean(views[1:])
        parts = (total - sum(views) + first, total - sum(views), first, total)
        os.write(replies, (json.dumps(dict(zip(PARTS, parts, strict=True))) + "\n").encode())


@contextmanager
def renderer(checkout: Path, bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """Start a process that renders with the code of a checkout."""
    command = [sys.executable, __file__, "--child"]
    command += ["--resolution", str(bench.resolution), "--samples", str(bench.samples)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def render(process: subprocess.Popen[str], job: BenchJob, tar: Path) -> Seconds:
    """Let a process render an object to `tar`. Return the CPU seconds of each part."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(tar), asdict(job)]) + "\n")
    process.stdin.flush()
    reply = process.stdout.readline()
    if not reply:
        sys.exit(f"{job.uid}: the process has ended")
    seconds: Seconds = json.loads(reply)
    return seconds


def bench_jobs(count: int, models: Path) -> dict[str, list[BenchJob]]:
    """Return `count` procedural objects and as many model files, spread evenly over the files in `models`."""
    from render.procedural.catalog import uid_of

    found = sorted(models.resolve().glob("*/*.glb"))
    files = found[:: max(1, len(found) // count)][:count]
    return {
        "procedural": [BenchJob(uid_of(i, SEED), i, "", "") for i in range(count)],
        "files": [
            BenchJob(f"{path.parent.name}-{path.stem}", None, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        ],
    }


def main(bench: Bench) -> None:
    here = Path(__file__).resolve().parents[2]
    old = (bench.compare or here).resolve()
    jobs = bench_jobs(bench.objects, bench.models)
    same, rows = 0, dict[str, list[tuple[Seconds, Seconds]]]()
    with tempfile.TemporaryDirectory() as folder, renderer(old, bench) as before, renderer(here, bench) as now:
        tars = {before: Path(folder, "old.tar"), now: Path(folder, "new.tar")}
        for process, tar in tars.items():
            render(process, jobs["procedural"][0], tar)  # warm-up
        for kind, listed in jobs.items():
            for job in listed:
                runs = [(process, render(process, job, tars[process])) for process in (before, now, now, before)]
                best = [{part: min(r[part] for p, r in runs if p is process) for part in PARTS} for process in tars]
                rows.setdefault(kind, []).append((best[0], best[1]))
                same += tars[before].read_bytes() == tars[now].read_bytes()
    for kind, pairs in rows.items():
        for part in PARTS:
            ratios = [new[part] / old[part] for old, new in pairs]
            print(
                f"{kind:12s}{part:12s}{mean(old[part] for old, _ in pairs) * 1e3:7.0f} ms ->"
                f"{mean(new[part] for _, new in pairs) * 1e3:7.0f} ms; ratio: min {min(ratios):.2f}, median "
                f"{median(ratios):.2f}"
            )
    every = [pair for pairs in rows.values() for pair in pairs]
    medians = {part: round(median(new[part] / old[part] for old, new in every), 3) for part in PARTS}
    print(json.dumps({"identical_shards": same, "objects": len(every), **medians}))


if __name__ == "__main__":
    config = tyro.cli(Bench, prog="python -m benchmarks.render.setup_share")
    answer_jobs(config) if config.child else main(config)
