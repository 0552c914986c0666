"""Distill three objects with a perfect denoiser: `python -m benchmarks.distill.oracle_assets`.

Each object of `oracle_objects` is distilled from its oracle. The output contains the files of every run (mesh, video,
sheet of views) and `compare.png`, an image of held-out views: ground truth, colors, normals and silhouettes. The last
line is JSON.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.distill.oracle_objects import HELD_OUT, OBJECTS, SMALL, quality, rebuild
from benchmarks.distill.schedules import SCHEDULES, shortened
from dataset.errors import run_cli
from distill.mesh import export
from distill.nerf.render import render_views
from distill.output.preview import view_fov_deg
from distill.output.results import write_results
from distill.sds.checkpoint import Distillation
from distill.sds.oracle import Solids, render_truth
from distill.sds.schedule import DistillSettings

_RESOLUTION = 96  # of the images in compare.png


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _options(arguments)
    settings = shortened(replace(SMALL, steps=options.steps, seed=options.seed), options.schedule)
    line: dict[str, object] = {"steps": settings.steps, "schedule": options.schedule, "seed": options.seed}
    for name in options.objects:
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        started = time.process_time()
        state = rebuild(OBJECTS[name], settings)
        measured = {**asdict(quality(state, OBJECTS[name], settings)), "cpu_seconds": time.process_time() - started}
        compare(state, OBJECTS[name], settings, folder / "compare.png")
        report = write_results(state, settings, export.PRESETS["tiny"], folder)
        line[name] = {key: round(value, 3) for key, value in measured.items()} | {"faces": report.faces}
        (folder / "quality.json").write_text(json.dumps(line[name], indent=2) + "\n")
        print(f"{folder}: {line[name]}", flush=True)
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("out/oracle"), help="folder to write one run folder per object to"
    )
    parser.add_argument(
        "--objects", nargs="+", choices=sorted(OBJECTS), default=list(OBJECTS), help="objects to distill (default: all)"
    )
    parser.add_argument("--steps", type=int, default=SMALL.steps, help="steps per object of the full schedule")
    parser.add_argument("--schedule", choices=SCHEDULES, default="full", help="a shorter schedule (schedules.py)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the distillations")
    return parser.parse_args(arguments)


def compare(state: Distillation, solids: Solids, settings: DistillSettings, path: Path) -> None:
    """Write a sheet of the held-out views: rows of ground truth, colors, normals and silhouettes."""
    fov_deg = view_fov_deg(settings)
    truth = render_truth(solids, HELD_OUT, fov_deg, _RESOLUTION, supersampling=4).permute(0, 2, 3, 1)
    with torch.no_grad():
        seen = render_views(
            state.field, HELD_OUT, fov_deg, _RESOLUTION, settings=settings.march, occupancy=state.occupancy
        )
    alpha = seen.alpha[..., None]
    rows = [truth, seen.rgb, 0.5 * (seen.normal + alpha) + 1 - alpha, alpha.expand(-1, -1, -1, 3)]
    sheet = torch.cat([torch.cat(list(row), 1) for row in rows])
    Image.fromarray(np.rint(sheet.clamp(0, 1).numpy() * 255).astype(np.uint8)).save(path)


if __name__ == "__main__":
    run_cli(main)
