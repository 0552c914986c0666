"""Check that the memory of a Blender process stays flat: `python -m benchmarks.render.render_memory --objects 500`.

The benchmark renders procedural objects one after the other in one process that is never replaced, and prints the
resident memory of the process every 25 objects. The first reading is after 25 objects, when all libraries are loaded.
The last line is JSON.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from dataset.errors import UserError, run_cli
from render.settings import Settings
from render.sources.source import procedural_assets
from render.workers.blender_process import Limits
from render.workers.messages import RenderTask
from render.workers.worker import RenderWorker


@dataclass(frozen=True)
class MemoryBenchConfig:
    """Check that the memory of a Blender process stays flat. Leaks occur at any image size, so the images are small."""

    objects: int = 500
    resolution: int = 32
    samples: int = 1
    every: int = 25


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (Linux)."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def readings(config: MemoryBenchConfig) -> list[float]:
    """Return the resident memory in MB after every `every` objects.

    Raises UserError if an object fails or Blender is restarted.
    """
    worker = RenderWorker(
        0,
        Settings(config.resolution, config.samples),
        Limits(recycle_after=sys.maxsize, recycle_rss_mb=float("inf")),
        threads=1,
    )
    memory_mb: list[float] = []
    pids = set()
    try:
        for position, asset in enumerate(procedural_assets(str(config.objects), seed=0)):
            outcome = worker.render_one(RenderTask(asset, position, "shard-000000")).outcome
            pid = worker.pid()
            if outcome.status != "ok" or pid is None:
                raise UserError(f"{asset.uid} failed ({outcome.error_class}: {outcome.message}); nothing was measured")
            pids.add(pid)
            if (position + 1) % config.every == 0:
                memory_mb.append(resident_mb(pid))
                print(f"{position + 1} objects: {memory_mb[-1]:.0f} MB", flush=True)
    finally:
        worker.close()
    if len(pids) != 1:
        raise UserError(f"Blender was restarted {len(pids) - 1} times; nothing was measured")
    return memory_mb


def main() -> None:
    config = tyro.cli(MemoryBenchConfig, description=__doc__)
    if config.objects < 2 * config.every:
        raise UserError(f"--objects {config.objects} gives fewer than two readings; give at least {2 * config.every}")
    memory_mb = readings(config)
    first, last = round(memory_mb[0], 1), round(memory_mb[-1], 1)
    result = {
        "objects": config.objects,
        "rss_first_mb": first,
        "rss_last_mb": last,
        "growth_mb": round(last - first, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_cli(main)
