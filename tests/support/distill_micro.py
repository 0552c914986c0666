"""Small distillations for tests: settings, images, and fake results."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.mesh.export import MeshReport, MeshSettings
from distill.nerf.field import read_tensors
from distill.sds.checkpoint import Distillation
from distill.sds.schedule import PRESETS, DistillSettings

SETTINGS = replace(
    PRESETS["tiny"],
    steps=4,
    coarse_resolution=16,
    fine_resolution=16,
    checkpoint_every=2,
    preview_every=100,
    march=replace(PRESETS["tiny"].march, samples_per_ray=16, occupancy_every=2, occupancy_resolution=8),
)


def draw(path: Path, color: tuple[int, int, int]) -> Path:
    """A cut-out of a box."""
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:35, 8:22] = (*color, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def quick_results(
    state: Distillation, settings: DistillSettings, mesh_settings: MeshSettings, out: Path, **_: Any
) -> MeshReport:
    """Replaces `write_results`: writes the real field, and empty files for the rest."""
    state.field.save(out / "field.safetensors")
    for name in ("views.png", "turntable.mp4", "mesh.glb"):
        (out / name).write_bytes(b"in a test")
    return MeshReport(12, 8, True, 0, 16, "xatlas", 10.0, ("mesh.glb",), 0.0)


def same_field(first: Path, second: Path) -> bool:
    (a, _), (b, _) = (read_tensors(folder / "field.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(printed: str) -> dict[str, list[str]]:
    """Parse the final table: run -> words of its line."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["run", "status", "seconds", "faces", "reason"])
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 :]}
