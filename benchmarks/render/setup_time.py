"""Measure the CPU time per object outside sampling: `python -m benchmarks.render.setup_time --compare ../old`.

One process per checkout renders procedural objects and model files, one at a time, on one thread. With `--compare`, the
processes of the two checkouts alternate (old, new, new, old), the smaller time of each part counts, and the shards of
both are compared. "scene" is all time outside the views. "first_view" is the time that the first view takes longer than
the others: importance map and BVH. "setup" is the sum of both. The last line is JSON: for each part, the median of new
time divided by old time.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import IO, Annotated, Any, Final

import tyro

from benchmarks.render.bench_objects import MODELS, SEED
from dataset.errors import UserError, run_cli
from dataset.io.paths import ROOT

PARTS: Final = ("setup", "scene", "first_view", "total")
STDERR_TAIL: Final = 2000  # characters
Seconds = dict[str, float]


@dataclass(frozen=True)
class BenchJob:
    """An object to render: a procedural object by index, or a model file."""

    uid: str
    index: int | None
    path: str
    sha256: str


@dataclass(frozen=True)
class SetupTimeConfig:
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


@dataclass(frozen=True, eq=False)
class Renderer:
    """A process that renders with the code of one checkout."""

    process: subprocess.Popen[str]
    stderr: IO[bytes]


def answer_jobs(config: SetupTimeConfig) -> None:
    """Render one object per line of stdin. For each, write a line of JSON to the original stdout.

    The line contains the CPU seconds of each part, or, if the object cannot be rendered, the reason as "failure".
    """
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
        settings = Settings(config.resolution, config.samples)
        views.clear()
        started = time.process_time()
        reply = run_job(RenderJob(asset, job.path, job.sha256, SEED, settings, tar), 1)
        total = time.process_time() - started
        answer: dict[str, Any]
        if reply.failure is not None:
            answer = {"failure": f"{reply.failure.error_class}: {reply.failure.message}"}
        else:
            first = views[0] - mean(views[1:])
            parts = (total - sum(views) + first, total - sum(views), first, total)
            answer = dict(zip(PARTS, parts, strict=True))
        os.write(replies, (json.dumps(answer) + "\n").encode())


@contextmanager
def renderer(checkout: Path, config: SetupTimeConfig) -> Iterator[Renderer]:
    """Start a process that renders with the code of a checkout."""
    command = [sys.executable, __file__, "--child"]
    command += ["--resolution", str(config.resolution), "--samples", str(config.samples)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            yield Renderer(process, stderr)
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # text that the process has not read
                process.communicate()


def render(chosen: Renderer, job: BenchJob, tar: Path) -> Seconds:
    """Make a process render an object to `tar`. Return the CPU seconds of each part.

    Raises UserError with the reason if the object cannot be rendered or the process has ended.
    """
    process = chosen.process
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # then there is no reply
        process.stdin.write(json.dumps([str(tar), asdict(job)]) + "\n")
        process.stdin.flush()
    reply = process.stdout.readline()
    if not reply:
        process.wait()
        chosen.stderr.seek(0)
        tail = chosen.stderr.read().decode(errors="replace")[-STDERR_TAIL:].strip()
        raise UserError(
            f"{job.uid}: the process ended with status {process.returncode}; the end of its output:\n{tail}"
        )
    seconds: Seconds = json.loads(reply)
    if "failure" in seconds:
        raise UserError(f"{job.uid} cannot be rendered, so nothing was measured: {seconds['failure']}")
    return seconds


def bench_jobs(count: int, models: Path) -> dict[str, list[BenchJob]]:
    """Return `count` procedural objects and as many model files, spread evenly over the files in `models`.

    Raises UserError if `count` is less than 1 or there are fewer files.
    """
    from render.procedural.catalog import uid_of

    if count < 1:
        raise UserError(f"--objects must be at least 1, not {count}")
    files = sorted(models.resolve().glob("*/*.glb"))
    if len(files) < count:
        raise UserError(
            f"{models} contains {len(files)} files */*.glb, but --objects needs {count}; give another --models"
        )
    chosen = [files[i * len(files) // count] for i in range(count)]
    return {
        "procedural": [BenchJob(uid_of(i, SEED), i, "", "") for i in range(count)],
        "files": [
            BenchJob(f"{path.parent.name}-{path.stem}", None, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in chosen
        ],
    }


def main(config: SetupTimeConfig) -> None:
    old = (config.compare or ROOT).resolve()
    if not (old / "render" / "blender" / "__main__.py").is_file():
        raise UserError(f"--compare {config.compare} is not a checkout of this repository: it has no render/blender")
    jobs = bench_jobs(config.objects, config.models)
    same, rows = 0, dict[str, list[tuple[Seconds, Seconds]]]()
    with tempfile.TemporaryDirectory() as folder, renderer(old, config) as before, renderer(ROOT, config) as now:
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


def run(config: SetupTimeConfig) -> None:
    answer_jobs(config) if config.child else main(config)


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(SetupTimeConfig, prog="python -m benchmarks.render.setup_time")))
