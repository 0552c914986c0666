"""Benchmark rendering speed at a given quality: `python -m benchmarks.render.render_bench` (90 minutes on two cores).

(a) is common practice: one process per object, SyncDreamer's settings, all cores. (b) uses the workers of `render`, one
per core and with one thread each. Both render the same files under the same light in alternating blocks, so that other
load on the machine affects both. Four views per object are compared with a reference of 1,024 samples without a
denoiser (benchmarks.render.reference).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.render.bench_objects import SEED, BenchObject, listed, prepare
from benchmarks.render.bench_workers import Rendered, cores, render_all, workers
from benchmarks.render.plain_settings import BASELINE_SAMPLES, RESOLUTION, PlainJob
from benchmarks.render.quality import ImageQuality, compare
from benchmarks.render.reference import CACHE, VIEWS, ReferenceImages, load_images, reference, run_plain
from dataset.errors import run_cli
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET
from dataset.io.paths import ROOT
from render.blender.timing import PARTS
from render.settings import Settings

ALL_VIEWS: Final = len(VIEW_SETS) * VIEWS_PER_SET
BLOCK: Final = 7  # objects per block; each block runs (a), then (b)
REPEATS: Final = 2  # of (b) per block, to reduce the effect of workers that are idle at the end of the block


@dataclass
class VariantResults:
    """Results of one variant."""

    objects: int = 0
    views: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)  # seconds of all processes together
    quality: list[tuple[str, ImageQuality]] = field(default_factory=list)
    object_seconds: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """Return the figures of the variant. PSNR figures are the mean and the minimum over views."""
        white = [db for _, quality in self.quality for db in quality.white_db]
        box = [db for _, quality in self.quality for db in quality.box_db]
        return {
            "objects_per_hour": 3600 * self.objects / self.seconds,
            "seconds_per_view": self.seconds / self.views,
            "psnr_mean_db": float(np.mean(white)),
            "psnr_worst_db": min(white),
            "box_psnr_mean_db": float(np.mean(box)),
            "box_psnr_worst_db": min(box),
            "peak_rss_mb": self.peak_mb,
            **{f"{name}_s_per_view": seconds / self.views for name, seconds in self.parts.items()},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    settings = _settings(options)
    items = [prepare(uid, CACHE / "objects") for uid in listed()[: options.objects]]
    truths = {item.uid: _reference(item, number, len(items)) for number, item in enumerate(items, start=1)}
    baseline, ours = VariantResults(), VariantResults()
    with workers(cores()) as pool, tempfile.TemporaryDirectory(prefix="bench-render-") as scratch:
        render_all(pool, items[:1], settings, Path(scratch))  # warm-up
        for start in range(0, len(items), BLOCK):
            block = items[start : start + BLOCK]
            for item in block:
                _run_baseline(baseline, item, truths[item.uid], options.views, Path(scratch))
            longest_first = sorted(block * REPEATS, key=lambda item: -baseline.object_seconds[item.uid])
            _run_ours(ours, block, truths, render_all(pool, longest_first, settings, Path(scratch)))
    results: dict[str, Any] = {
        "a": baseline.row(),
        "b": ours.row(),
        "views": {"a": baseline.quality, "b": ours.quality},
    }
    results["b"] |= _split_sampling(results["b"], items[:BLOCK], settings)
    if not options.skip_scaling:
        results["scaling"] = _scaling(items[:BLOCK], settings)
    print(_tables(results))
    summary = summarize(results)
    if options.out:
        options.out.write_text(json.dumps({**summary, **results}, default=lambda value: value.__dict__, indent=1))
    print(json.dumps(summary))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=None, help="use only the first N objects")
    parser.add_argument(
        "--views",
        type=int,
        default=ALL_VIEWS,
        help="number of views that (a), common practice, renders per object, 4 to 32; the time is scaled to 32 views",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=None,
        help="maximum number of samples per pixel of (b), the workers of `render` (default: as in `render`)",
    )
    parser.add_argument(
        "--noise-threshold", type=float, default=None, help="noise threshold of (b) (default: as in `render`)"
    )
    parser.add_argument("--skip-scaling", action="store_true", help="skip the comparison of one worker with two")
    parser.add_argument("--out", type=Path, default=None, help="file to write all figures to, as JSON")
    options = parser.parse_args(arguments)
    if not len(VIEWS) <= options.views <= ALL_VIEWS:
        parser.error(f"--views is {options.views}; choose {len(VIEWS)} to {ALL_VIEWS}")
    return options


def _settings(options: argparse.Namespace) -> Settings:
    given = {"samples": options.samples, "noise_threshold": options.noise_threshold}
    return Settings(RESOLUTION, **{name: value for name, value in given.items() if value is not None})


def _reference(item: BenchObject, number: int, total: int) -> ReferenceImages:
    started = time.monotonic()
    truth = reference(item, cores())
    print(f"reference {number}/{total} {item.uid}: {time.monotonic() - started:.1f} s", flush=True)
    return truth


def view_list(count: int) -> list[int]:
    """Return `count` views: those that are compared with the reference, then others."""
    return [*VIEWS, *(view for view in range(ALL_VIEWS) if view not in VIEWS)][:count]


def _run_baseline(
    results: VariantResults, item: BenchObject, truth: ReferenceImages, count: int, scratch: Path
) -> None:
    """Render one object with (a). For fewer than 32 views, the render time is scaled up, but not the start-up time."""
    out = scratch / "plain"
    job = PlainJob(item.uid, str(item.path), str(out), SEED, BASELINE_SAMPLES, True, cores(), view_list(count))
    started = time.monotonic()
    run_plain(job)
    seconds = time.monotonic() - started
    done = json.loads((out / "done.json").read_text())
    _same_scene(item, truth, done["scene"])
    rendering = done["seconds"]["render"] * ALL_VIEWS / count
    once = seconds - done["seconds"]["render"]
    results.objects, results.views, results.seconds = (
        results.objects + 1,
        results.views + ALL_VIEWS,
        results.seconds + once + rendering,
    )
    results.peak_mb = max(results.peak_mb, done["peak_rss_mb"])
    for name, value in (("start_and_import", once), ("render", rendering)):
        results.parts[name] = results.parts.get(name, 0.0) + value
    results.quality.append((item.uid, compare(load_images(out, VIEWS), truth.images)))
    results.object_seconds[item.uid] = once + rendering
    _progress("a", item.uid, once + rendering, results)


def _run_ours(
    results: VariantResults,
    block: list[BenchObject],
    truths: dict[str, ReferenceImages],
    done: tuple[float, list[Rendered]],
) -> None:
    seconds, rendered = done
    results.objects, results.views = results.objects + len(rendered), results.views + ALL_VIEWS * len(rendered)
    results.seconds += seconds
    seen: set[str] = set()
    for one in rendered:
        results.peak_mb = max(results.peak_mb, one.peak_rss_mb)
        for name in PARTS:
            results.parts[name] = results.parts.get(name, 0.0) + one.timings[name]
        if one.uid not in seen:
            seen.add(one.uid)
            item = next(item for item in block if item.uid == one.uid)
            _same_scene(item, truths[one.uid], one.scene)
            results.quality.append((one.uid, compare(one.images[list(VIEWS)], truths[one.uid].images)))
            _progress("b", one.uid, one.seconds, results)


def _split_sampling(row: dict[str, float], items: list[BenchObject], settings: Settings) -> dict[str, float]:
    """Split the sampling time per view into sampling and denoising, by the denoiser's share on a few objects."""
    arguments = [f"{item.uid}={item.path}" for item in items]
    command = [
        sys.executable,
        "-m",
        "benchmarks.render.denoise_share",
        *map(str, (settings.samples, settings.noise_threshold)),
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    shares = json.loads(done.stdout.decode().splitlines()[-1])
    share, both = float(np.mean(list(shares.values()))), row["sample_s_per_view"]
    print(f"share of the denoiser in sampling and denoising: {shares}", flush=True)
    return {"sample_s_per_view": both * (1 - share), "denoise_s_per_view": both * share}


def _same_scene(item: BenchObject, truth: ReferenceImages, scene: dict[str, Any]) -> None:
    if json.loads(json.dumps(scene)) != truth.scene:
        sys.exit(
            f"{item.uid}: the scene differs from that of the reference ({scene} and {truth.scene}); "
            f"delete {CACHE / 'reference'}"
        )


def _progress(variant: str, uid: str, seconds: float, results: VariantResults) -> None:
    quality = results.quality[-1][1]
    decibels = " ".join(f"{db:.1f}" for db in quality.white_db)
    print(f"({variant}) {uid}: {seconds:.1f} s, PSNR over white {decibels} dB", flush=True)


def _scaling(items: list[BenchObject], settings: Settings) -> dict[str, float]:
    """Measure objects per hour with one single-threaded worker and with two."""
    rates = {}
    for count in (1, 2):
        with workers(count) as pool, tempfile.TemporaryDirectory(prefix="bench-render-") as scratch:
            render_all(pool, items[:1], settings, Path(scratch))
            seconds, rendered = render_all(pool, items, settings, Path(scratch))
        rates[f"workers_{count}"] = 3600 * len(rendered) / seconds
        print(f"scaling: {count} single-threaded worker(s): {rates[f'workers_{count}']:.1f} objects/hour", flush=True)
    return {**rates, "scaling": rates["workers_2"] / rates["workers_1"]}


def summarize(results: dict[str, Any]) -> dict[str, float]:
    """Return the last line of the output: the speed-up of (b) over (a), and the quality of (b)."""
    ours = results["b"]
    names = ("psnr_mean_db", "psnr_worst_db", "seconds_per_view", "objects_per_hour", "peak_rss_mb")
    summary = {"speedup": ours["objects_per_hour"] / results["a"]["objects_per_hour"]}
    summary |= {name: ours[name] for name in names}
    if "scaling" in results:
        summary["scaling"] = results["scaling"]["scaling"]
    return {name: round(value, 3) for name, value in summary.items()}


def _tables(results: dict[str, Any]) -> str:
    lines = [f"{cores()} cores, {resource.getpagesize()} byte pages, Python {sys.version.split()[0]}"]
    names = [*results["b"], *(name for name in results["a"] if name not in results["b"])]
    lines.append(f"{'':28s} {'(a)':>12s} {'(b)':>12s}")
    for name in names:
        cells = [f"{results[v][name]:12.3f}" if name in results[v] else f"{'-':>12s}" for v in "ab"]
        lines.append(f"{name:28s} {cells[0]} {cells[1]}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
