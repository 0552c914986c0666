"""Measure GPU rendering: `python -m benchmarks.render.render_gpu --limit-s 540`, on a machine with a GPU.

The benchmark renders one procedural object on the CPU (one single-threaded worker per core) and with one worker on the
GPU, and prints one JSON line. The GPU kernels are built at first use, which can take minutes. A run that exceeds the
limit is killed, and the output says so.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.render.bench_objects import BenchObject, listed, prepare
from benchmarks.render.bench_workers import Rendered, cores, render_all, workers
from benchmarks.render.plain_settings import RESOLUTION
from benchmarks.render.reference import CACHE
from dataset.errors import run_cli
from dataset.images.prepare import composite_white
from dataset.images.psnr import psnr_db
from dataset.io.paths import ROOT
from render.settings import Device, Settings
from render.workers.blender_process import BlenderProcess

HEARTBEAT_S: Final = 15.0
VIEWS: Final = 32
_SMI: Final = ("nvidia-smi", "--query-gpu=name,utilization.gpu,memory.used", "--format=csv,noheader")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-s", type=float, default=540.0, help="kill all processes after this number of seconds")
    parser.add_argument("--stage", choices=("cpu", "gpu"), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        print(json.dumps(_stage(options.stage, options.out)), flush=True)
        return 0
    started = time.monotonic()
    deadline = started + options.limit_s
    with tempfile.TemporaryDirectory(prefix="render-gpu-") as folder:
        cpu = _limited("cpu", Path(folder), started + options.limit_s / 3)
        gpu = _limited("gpu", Path(folder), deadline)
        print(json.dumps(report(cpu, gpu, _agreement(Path(folder)))))
    return 0 if "error" not in gpu else 1


def report(cpu: dict[str, Any], gpu: dict[str, Any], psnr: float | None) -> dict[str, Any]:
    """Return the last line of the output: the measurements, and an error for each one that is missing."""
    return {
        "backend": gpu.get("device"),
        "kernels_ready_s": gpu.get("ready_s"),
        "gpu_seconds_per_view": gpu.get("seconds_per_view"),
        "cpu_seconds_per_view": cpu.get("seconds_per_view"),
        "cpu_cores": cpu.get("workers"),
        "evidence": gpu.get("evidence"),
        "gpu_against_cpu_psnr_db": psnr,
        "gpu_seconds_by_part": gpu.get("timings"),
        "errors": {name: stage["error"] for name, stage in (("cpu", cpu), ("gpu", gpu)) if "error" in stage},
    }


def _limited(stage: Device, folder: Path, deadline: float) -> dict[str, Any]:
    """Run one stage in a new process, which is killed at the deadline together with its Blender."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.render.render_gpu",
        "--stage",
        stage,
        "--out",
        str(folder / f"{stage}.npy"),
    ]
    log = folder / f"{stage}.json"
    started = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, start_new_session=True)
    while True:
        remaining = deadline - time.monotonic()
        try:
            code = process.wait(max(0.0, min(HEARTBEAT_S, remaining)))
            break
        except subprocess.TimeoutExpired:
            print(f"{stage}: {time.monotonic() - started:.0f} s, {max(remaining, 0):.0f} s left", flush=True)
            if remaining <= HEARTBEAT_S / 2:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return {"error": f"killed after {time.monotonic() - started:.0f} s, before it was done"}
    lines = log.read_text().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if code == 0 and lines else {"error": f"exit status {code}"}
    print(f"{stage}: {result}", flush=True)
    return result


def _stage(device: Device, out: Path) -> dict[str, Any]:
    item, settings = prepare(listed()[0], CACHE / "objects"), Settings(resolution=RESOLUTION, device=device)
    with tempfile.TemporaryDirectory(prefix="render-gpu-") as scratch:
        if device == "cpu":
            return _on_cores(item, settings, Path(scratch), out)
        return _on_gpu(item, settings, Path(scratch), out)


def _on_cores(item: BenchObject, settings: Settings, scratch: Path, out: Path) -> dict[str, Any]:
    with workers(cores()) as pool:
        seconds, rendered = render_all(pool, [item] * len(pool), settings, scratch)
    np.save(out, rendered[0].images)
    return {"workers": len(rendered), "seconds_per_view": round(seconds / len(rendered) / VIEWS, 4)}


def _on_gpu(item: BenchObject, settings: Settings, scratch: Path, out: Path) -> dict[str, Any]:
    started = time.monotonic()
    process = BlenderProcess(threads=cores(), device="gpu")
    ready = time.monotonic() - started
    try:
        if process.hello.error:
            return {"error": process.hello.error, "ready_s": round(ready, 1)}
        render_all([process], [item], settings, scratch)
        with _GpuMonitor() as watch:
            seconds, rendered = render_all([process], [item] * 2, settings, scratch)
    finally:
        process.close()
    np.save(out, rendered[0].images)
    return {
        "device": process.hello.device,
        "ready_s": round(ready, 1),
        "seconds_per_view": round(seconds / len(rendered) / VIEWS, 4),
        "timings": _per_view(rendered),
        "evidence": {"check": process.hello.notice, "nvidia_smi": watch.busiest},
    }


def _per_view(rendered: list[Rendered]) -> dict[str, float]:
    names = rendered[0].timings
    return {name: round(sum(one.timings[name] for one in rendered) / len(rendered) / VIEWS, 4) for name in names}


class _GpuMonitor:
    """Poll nvidia-smi twice per second in a `with` block; `busiest` is the line with the highest utilization."""

    def __init__(self) -> None:
        self.busiest, self._highest, self._over = "", -1, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_GpuMonitor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            try:
                line = subprocess.run(_SMI, check=True, capture_output=True, text=True, timeout=5).stdout.splitlines()[
                    0
                ]
            except (OSError, subprocess.SubprocessError, IndexError) as error:
                self.busiest = self.busiest or f"nvidia-smi: {error}"
                return
            used = utilization(line)
            if used > self._highest:
                self.busiest, self._highest = line, used


def utilization(line: str) -> int:
    """Return the percentage in an nvidia-smi line like "NVIDIA H100 80GB HBM3, 37 %, 1234 MiB"; 0 if there is none."""
    field = line.split(",")[1].strip() if line.count(",") >= 2 else ""
    return int(field.split()[0]) if field and field.split()[0].isdecimal() else 0


def _agreement(folder: Path) -> float | None:
    """Return the PSNR on white between the images of GPU and CPU, which use the same samples."""
    files = folder / "cpu.npy", folder / "gpu.npy"
    if not all(file.is_file() for file in files):
        return None
    cpu, gpu = (composite_white(np.load(file)) for file in files)
    return round(psnr_db(gpu, cpu), 2)


if __name__ == "__main__":
    run_cli(main)
