"""Views per second of one core, from shards to batches: ours against a plain webdataset pipeline, in the same run.

    python -m benchmarks.data.stream_bench [--shards DIR]

Every pipeline runs in a process of its own that is bound to one core, and takes its turn `rounds` times; the median
counts. A view counts when it is in a batch as float32 on white; a second is one of processor time, all threads
together, so that what else the machine does costs nobody. Ours has all its guarantees on: exact order, checksums,
a filter, damage counted. Pictures are the multi-view branch's: a reference and four targets an item.

Memory is the process's resident memory: after the first quarter and at the end. The last line is JSON;
`images_vs_plain` compares with the faster of the plain pipelines, which decodes only what it needs
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

from benchmarks.data.latent_stream import latent_batches, made_latents
from benchmarks.render.render_memory import resident_mb
from dataset.errors import UserError, run_cli
from dataset.format.shards import INDEX_NAME, shard_name, write_index, write_shard
from dataset.images.prepare import decode_webp, encode_webp
from dataset.io.files import url_to_fs
from dataset.reading.epoch_order import WINDOW_SHARDS
from dataset.reading.shard_set import ShardSet

Role = Literal["ours", "plain", "plain_all", "latents"]
ROLES: Final[dict[Role, str]] = {
    "ours": "ours",
    "plain": "webdataset, decodes what it needs",
    "plain_all": "webdataset, decodes all",
    "latents": "ours, latents",
}
NUM_VIEWS: Final = 4
LATENT_ITEMS: Final = 20  # times as many items as of pictures: they take a fraction of the time
SHOWN_BATCHES: Final = 40  # readings of memory


@dataclass(frozen=True)
class Config:
    """What to measure. Without --shards a set is made (once, in data/bench-stream; a minute or two)."""

    shards: str | None = None
    """A shard set of your own: a folder."""
    latents: str | None = None
    """A latent set of your own (train.encode); without it one of random numbers is made, of the paper's shapes."""
    objects: int = 48
    """Objects of the set that is made."""
    latent_objects: int = 256
    """Objects of the latent set that is made: 0.6 MB each."""
    resolution: int = 256
    """Pixels a side of its pictures."""
    items: int = 480
    """Items (of 5 views) that a process reads in each round after the first batch."""
    batch: int = 8
    """Items a batch."""
    items_per_object: int = 1
    """Ours: items an object and epoch."""
    rounds: int = 3
    """Turns of each pipeline."""
    role: Role | None = None
    """Measure one pipeline in this process, and print JSON (what the benchmark calls)."""


@dataclass(frozen=True)
class Measured:
    """One turn of one pipeline."""

    views: int
    cpu_s: float
    wall_s: float
    rss_first_mb: float
    rss_last_mb: float

    @property
    def views_per_s_core(self) -> float:
        return self.views / self.cpu_s


def made_set(folder: Path, objects: int, resolution: int) -> Path:
    """A set of boxes and ellipsoids with grain on them, so that a picture has about the bytes of a rendered one."""
    from tests.support.make_shards import make_sample

    fs, root = url_to_fs(folder)
    if not (folder / INDEX_NAME).is_file():
        print(f"making {objects} objects at {resolution} pixels in {folder}", flush=True)
        per_shard = -(-objects // (2 * WINDOW_SHARDS))  # two windows
        num_shards = -(-objects // per_shard)
        for shard in range(num_shards):
            numbers = range(objects)[shard * per_shard : (shard + 1) * per_shard]
            samples = ((f"bench-{i:04d}", grained(make_sample(f"bench-{i:04d}", i, resolution), i)) for i in numbers)
            write_shard(fs, root, shard_name(shard), samples)
        write_index(fs, root, num_shards=num_shards, objects_per_shard=per_shard)
    return folder


def grained(members: Mapping[str, bytes], seed: int, level: int = 2) -> dict[str, bytes]:
    """The members with colours shifted by up to `level` of 255 where the object is visible."""
    rng = np.random.default_rng(seed)
    result = dict(members)
    for name, data in members.items():
        if name.endswith(".webp"):
            rgba = decode_webp(data, name)
            grain = rng.integers(-level, level + 1, rgba[..., :3].shape) * (rgba[..., 3:] > 0)
            rgba[..., :3] = np.clip(rgba[..., :3].astype(np.int64) + grain, 0, 255)
            result[name] = encode_webp(rgba)
    return result


def our_batches(config: Config, url: str) -> Iterator[int]:
    """Views of one batch of ours after the other."""
    from train.data.loader import Feed

    whole = ShardSet(url)
    kept = tuple(np.arange(samples, dtype=np.int32) for samples in whole.samples_per_shard)  # as a filter leaves them
    feed = Feed(
        ShardSet(url, kept=kept),
        seed=0,
        objects=config.batch,
        accumulation=1,
        num_views=NUM_VIEWS,
        single_view_chance=0.0,
        convention="relative",
        items_per_object=config.items_per_object,
    )
    for views in feed.micro_batches(0, sys.maxsize):
        yield views.cameras.shape[0] * (1 + views.cameras.shape[1])


def their_batches(config: Config, url: str, *, decode_all: bool) -> Iterator[int]:
    """Views of one batch of the plain pipeline after the other."""
    from benchmarks.data.plain_stream import plain_batches

    urls = [str(path) for path in sorted(Path(url).glob("shard-*.tar"))]
    for pictures, _ in plain_batches(urls, config.batch, NUM_VIEWS, decode_all=decode_all):
        yield pictures.shape[0] * pictures.shape[1]


def measure(batches: Iterator[int], num_batches: int) -> Measured:
    """Time and memory of `num_batches` batches after the first one, which pays for starting up."""
    next(batches)
    every = max(1, num_batches // SHOWN_BATCHES)
    readings, views = [], 0
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(num_batches):
        views += next(batches)
        if number % every == 0 or number == num_batches - 1:
            readings.append(resident_mb(os.getpid()))
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return Measured(views, cpu_s, wall_s, readings[len(readings) // 4], readings[-1])


def play(config: Config, role: Role) -> None:
    """Measure one pipeline here, on one core, and print it."""
    import torch

    torch.set_num_threads(1)
    url = str(config.shards)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pipelines: dict[Role, Callable[[], Iterator[int]]] = {
        "ours": lambda: our_batches(config, url),
        "plain": lambda: their_batches(config, url, decode_all=False),
        "plain_all": lambda: their_batches(config, url, decode_all=True),
        "latents": lambda: latent_batches(url, config.batch, NUM_VIEWS, config.items_per_object),
    }
    items = config.items * (LATENT_ITEMS if role == "latents" else 1)
    print(json.dumps(asdict(measure(pipelines[role](), -(-items // config.batch)))), flush=True)
    os._exit(0)  # what was read ahead is of no use, and webdataset's files are the collector's


def turn(config: Config, role: Role, url: str) -> Measured:
    """One pipeline in a process of its own."""
    asked = ["--items", config.items, "--batch", config.batch, "--items-per-object", config.items_per_object]
    command = [sys.executable, "-m", "benchmarks.data.stream_bench", "--role", role, "--shards", url, *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{ROLES[role]} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def summarise(turns: Mapping[Role, Sequence[Measured]], about: ShardSet) -> dict[str, Any]:
    """The last line. Memory: of ours, the turn that grew most."""
    rates = {role: median(turn.views_per_s_core for turn in found) for role, found in turns.items()}
    grown = max(turns["ours"], key=lambda turn: turn.rss_last_mb - turn.rss_first_mb)
    return {
        "images_vs_plain": round(rates["ours"] / rates["plain"], 3),
        "images_vs_plain_all": round(rates["ours"] / rates["plain_all"], 3),
        "views_per_s_core": {role: round(rate, 1) for role, rate in rates.items()},
        "latent_views_per_s_core": round(rates["latents"], 1),
        "rss_first_mb": round(grown.rss_first_mb, 1),
        "rss_last_mb": round(grown.rss_last_mb, 1),
        "rounds": len(turns["ours"]),
        "objects": len(about),
        "bytes_a_view": round(about.index.bytes / about.index.views),
    }


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    if min(config.items, config.batch, config.rounds, config.objects) < 1:
        raise UserError("--items, --batch, --rounds and --objects must be at least 1")
    if config.role:
        play(config, config.role)
    made = Path("data/bench-stream") / f"{config.objects}-{config.resolution}"
    url = config.shards or str(made_set(made, config.objects, config.resolution))
    about = ShardSet(url)
    if len(about) < config.batch:
        raise UserError(f"{url}: {len(about)} objects are fewer than a batch of {config.batch}; lower --batch")
    urls: dict[Role, str] = {role: url for role in ROLES if role != "latents"}
    urls["latents"] = config.latents or str(made_latents(Path("data/bench-stream/latents"), config.latent_objects))
    turns: dict[Role, list[Measured]] = {role: [] for role in urls}
    for number in range(config.rounds):
        for role, source in urls.items():
            name, found = ROLES[role], turn(config, role, source)
            turns[role].append(found)
            print(
                f"round {number + 1}: {name}: {found.views_per_s_core:.0f} views/s a core "
                f"({found.views} views, {found.cpu_s:.1f} s of processor, {found.wall_s:.1f} s), "
                f"memory {found.rss_first_mb:.0f} -> {found.rss_last_mb:.0f} MB",
                flush=True,
            )
    print(json.dumps(summarise(turns, about)))


if __name__ == "__main__":
    run_cli(main)
