"""Distillations small enough for tests: settings, pictures, and results that take no time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill.mesh import MeshReport, MeshSettings
from distill.schedule import PRESETS, DistillSettings
from distill.state import Distillation

SETTINGS = replace(
    PRESETS["tiny"],
    steps=4,
    coarse_resolution=16,
    fine_resolution=16,
    checkpoint_every=2,
    preview_every=100,
    march=replace(PRESETS["tiny"].march, samples_per_ray=16, occupancy_every=2, occupancy_resolution=8),
)


def draw(path: Path, colour: tuple[int, int, int]) -> Path:
    """A cut-out of a box."""
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:35, 8:22] = (*colour, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def quick_results(
    state: Distillation, settings: DistillSettings, mesh_settings: MeshSettings, out: Path, **_: Any
) -> MeshReport:
    """In place of `write_results`: the field for real, the rest by name only."""
    state.field.save(out / "field.safetensors")
    for name in ("views.png", "turntable.mp4", "mesh.glb"):
        (out / name).write_bytes(b"in a test")
    return MeshReport(12, 8, True, 0, 16, "xatlas", 10.0, ("mesh.glb",), 0.0)
