"""Benchmark data loading: views per second on one core, compared with a plain webdataset pipeline.

    python -m benchmarks.data.stream_bench [--shards DIR]

Every pipeline runs `rounds` times, each time in its own process bound to one core; the median is reported. A view is
counted once it is in a batch as float32 on white. Seconds are CPU seconds of all threads, so other load on the machine
does not matter. Our pipeline has all of its guarantees enabled: exact order, checksums, a filter, and counting of
damaged objects. An item is a reference and four targets, as in multi-view training.

Memory is the resident memory of the process after the first quarter and at the end. The last line is JSON;
`images_vs_plain` compares with the faster plain pipeline, which decodes only the images it needs
(`benchmarks.data.plain_stream`).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import numpy as np
import tyro

from benchmarks.data.latent_stream import create_latent_set, latent_batches
from benchmarks.render.render_memory import resident_mb
from dataset.errors import UserError, run_cli
from dataset.format.shards import INDEX_NAME, shard_name, write_index, write_shard
from dataset.images.prepare import decode_webp, encode_webp
from dataset.io.files import url_to_fs
from dataset.io.old_flags import rename_old_flags
from dataset.reading.epoch_order import WINDOW_SHARDS
from dataset.reading.shard_set import ShardSet

Role = Literal["ours", "plain", "plain_all", "latents"]
ROLES: Final[dict[Role, str]] = {
    "ours": "ours",
    "plain": "webdataset, decodes needed images",
    "plain_all": "webdataset, decodes all images",
    "latents": "ours, latents",
}
NUM_VIEWS: Final = 4
LATENT_ITEMS: Final = 20  # factor on the number of items, because latents are faster to read than images
MEMORY_READINGS: Final = 40


@dataclass(frozen=True)
class StreamBenchConfig:
    """Benchmark data loading. Without --shards, a set is created once in data/bench-stream, in a minute or two."""

    shards: str | None = None
    """Folder of a shard set to read instead of the created one."""
    latents: str | None = None
    """Latent set (train.encode) to read. Default: create a set of random numbers with the shapes of the paper."""
    objects: int = 48
    """Number of objects in the created shard set."""
    latent_objects: int = 256
    """Number of objects in the created latent set, 0.6 MB each."""
    resolution: int = 256
    """Pixels per side of the created images."""
    items: int = 480
    """Number of items (of 5 views each) that a process reads per round, after the first batch."""
    batch: int = 8
    """Number of items per batch."""
    repeats_per_object: int = 1
    """Number of items that our pipeline reads per object and epoch."""
    rounds: int = 3
    """Number of runs of each pipeline. The median is reported."""
    role: Role | None = None
    """Measure one pipeline in this process and print JSON (used internally)."""


@dataclass(frozen=True)
class PipelineRun:
    """Measurements of one run of a pipeline."""

    views: int
    cpu_s: float
    wall_s: float
    rss_first_mb: float
    rss_last_mb: float

    @property
    def views_per_s_core(self) -> float:
        return self.views / self.cpu_s


def create_shard_set(folder: Path, objects: int, resolution: int) -> Path:
    """Create a set of boxes and ellipsoids. Noise makes the image files about as large as those of rendered images."""
    from tests.support.make_shards import make_sample

    fs, root = url_to_fs(folder)
    if not (folder / INDEX_NAME).is_file():
        print(f"creating {objects} objects at {resolution} pixels in {folder}", flush=True)
        per_shard = -(-objects // (2 * WINDOW_SHARDS))  # two windows
        num_shards = -(-objects // per_shard)
        for shard in range(num_shards):
            numbers = range(objects)[shard * per_shard : (shard + 1) * per_shard]
            samples = ((f"bench-{i:04d}", add_grain(make_sample(f"bench-{i:04d}", i, resolution), i)) for i in numbers)
            write_shard(fs, root, shard_name(shard), samples)
        write_index(fs, root, num_shards=num_shards, objects_per_shard=per_shard)
    return folder


def add_grain(members: Mapping[str, bytes], seed: int, level: int = 2) -> dict[str, bytes]:
    """Return the members with colors shifted by up to `level` of 255 where the object is visible."""
    rng = np.random.default_rng(seed)
    result = dict(members)
    for name, data in members.items():
        if name.endswith(".webp"):
            rgba = decode_webp(data, name)
            grain = rng.integers(-level, level + 1, rgba[..., :3].shape) * (rgba[..., 3:] > 0)
            rgba[..., :3] = np.clip(rgba[..., :3].astype(np.int64) + grain, 0, 255)
            result[name] = encode_webp(rgba)
    return result


def our_batches(config: StreamBenchConfig, url: str) -> Iterator[int]:
    """Yield the number of views of each batch of our pipeline."""
    from train.data.loader import BatchLoader

    whole = ShardSet(url)
    kept = tuple(np.arange(samples, dtype=np.int32) for samples in whole.samples_per_shard)  # like a filter
    loader = BatchLoader(
        ShardSet(url, kept=kept),
        seed=0,
        objects=config.batch,
        accumulation=1,
        num_views=NUM_VIEWS,
        single_view_chance=0.0,
        convention="relative",
        items_per_object=config.repeats_per_object,
    )
    for views in loader.micro_batches(0, sys.maxsize):
        yield views.cameras.shape[0] * (1 + views.cameras.shape[1])


def plain_pipeline_batches(config: StreamBenchConfig, url: str, *, decode_all: bool) -> Iterator[int]:
    """Yield the number of views of each batch of the plain pipeline."""
    from benchmarks.data.plain_stream import plain_batches

    urls = [str(path) for path in sorted(Path(url).glob("shard-*.tar"))]
    for pictures, _ in plain_batches(urls, config.batch, NUM_VIEWS, decode_all=decode_all):
        yield pictures.shape[0] * pictures.shape[1]


def measure(batches: Iterator[int], num_batches: int) -> PipelineRun:
    """Measure time and memory of `num_batches` batches after the first one, which includes the startup."""
    next(batches)
    every = max(1, num_batches // MEMORY_READINGS)
    readings, views = [], 0
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(num_batches):
        views += next(batches)
        if number % every == 0 or number == num_batches - 1:
            readings.append(resident_mb(os.getpid()))
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return PipelineRun(views, cpu_s, wall_s, readings[len(readings) // 4], readings[-1])


def run_here(config: StreamBenchConfig, role: Role) -> None:
    """Measure one pipeline in this process, on one core, print the result and exit."""
    import torch

    torch.set_num_threads(1)
    url = str(config.shards)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pipelines: dict[Role, Callable[[], Iterator[int]]] = {
        "ours": lambda: our_batches(config, url),
        "plain": lambda: plain_pipeline_batches(config, url, decode_all=False),
        "plain_all": lambda: plain_pipeline_batches(config, url, decode_all=True),
        "latents": lambda: latent_batches(url, config.batch, NUM_VIEWS, config.repeats_per_object),
    }
    items = config.items * (LATENT_ITEMS if role == "latents" else 1)
    print(json.dumps(asdict(measure(pipelines[role](), -(-items // config.batch)))), flush=True)
    os._exit(0)  # skip the shutdown of readers and of webdataset's files


def run_in_process(config: StreamBenchConfig, role: Role, url: str) -> PipelineRun:
    """Measure one pipeline in a new process. Raises UserError if the process fails."""
    options = ["--items", config.items, "--batch", config.batch, "--repeats-per-object", config.repeats_per_object]
    command = [
        sys.executable,
        "-m",
        "benchmarks.data.stream_bench",
        "--role",
        role,
        "--shards",
        url,
        *map(str, options),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{ROLES[role]} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return PipelineRun(**json.loads(done.stdout.strip().splitlines()[-1]))


def summarize(runs: Mapping[Role, Sequence[PipelineRun]], about: ShardSet) -> dict[str, Any]:
    """Return the last line of the output.

    Its memory figures are those of the run of our pipeline whose memory grew most.
    """
    rates = {role: median(run.views_per_s_core for run in of_role) for role, of_role in runs.items()}
    grown = max(runs["ours"], key=lambda run: run.rss_last_mb - run.rss_first_mb)
    return {
        "images_vs_plain": round(rates["ours"] / rates["plain"], 3),
        "images_vs_plain_all": round(rates["ours"] / rates["plain_all"], 3),
        "views_per_s_core": {role: round(rate, 1) for role, rate in rates.items()},
        "latent_views_per_s_core": round(rates["latents"], 1),
        "rss_first_mb": round(grown.rss_first_mb, 1),
        "rss_last_mb": round(grown.rss_last_mb, 1),
        "rounds": len(runs["ours"]),
        "objects": len(about),
        "bytes_a_view": round(about.index.bytes / about.index.views),
    }


def main() -> None:
    arguments = rename_old_flags(sys.argv[1:], {"--items-per-object": "--repeats-per-object"})
    config = tyro.cli(StreamBenchConfig, args=arguments, description=__doc__)
    if min(config.items, config.batch, config.rounds, config.objects) < 1:
        raise UserError("--items, --batch, --rounds and --objects must be at least 1")
    if config.role:
        run_here(config, config.role)
    folder = Path("data/bench-stream") / f"{config.objects}-{config.resolution}"
    url = config.shards or str(create_shard_set(folder, config.objects, config.resolution))
    about = ShardSet(url)
    if len(about) < config.batch:
        raise UserError(f"{url}: the set has {len(about)} objects, fewer than --batch {config.batch}; lower --batch")
    urls: dict[Role, str] = {role: url for role in ROLES if role != "latents"}
    urls["latents"] = config.latents or str(create_latent_set(Path("data/bench-stream/latents"), config.latent_objects))
    runs: dict[Role, list[PipelineRun]] = {role: [] for role in urls}
    for number in range(config.rounds):
        for role, source in urls.items():
            name, result = ROLES[role], run_in_process(config, role, source)
            runs[role].append(result)
            print(
                f"round {number + 1}: {name}: {result.views_per_s_core:.0f} views/s per core "
                f"({result.views} views, {result.cpu_s:.1f} CPU seconds, {result.wall_s:.1f} s), "
                f"memory {result.rss_first_mb:.0f} -> {result.rss_last_mb:.0f} MB",
                flush=True,
            )
    print(json.dumps(summarize(runs, about)))


if __name__ == "__main__":
    run_cli(main)
