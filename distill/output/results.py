"""Write the results of a finished distillation: field, sheet of views, video, mesh and metrics."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from distill.mesh import export
from distill.output.preview import PREVIEW_ELEVATION_DEG, ViewRenderer, view_distance, view_renderer
from distill.output.summary import RunSeconds, metrics, write_metrics
from distill.output.turntable import write_turntable, write_views
from distill.sds.checkpoint import Distillation
from distill.sds.loss_log import LOSSES, METRICS, read_losses
from distill.sds.schedule import DistillSettings

VIEW_RESOLUTION: Final = 128  # pixels a side of the video's panels and of the sheet's pictures, at least


def write_results(
    state: Distillation,
    settings: DistillSettings,
    mesh_settings: export.MeshSettings,
    out: Path,
    *,
    kinds: Sequence[export.Format] = ("glb",),
) -> export.MeshReport:
    """The field, the sheet of views, the video, the mesh and the metrics; these also where there is nothing to mesh."""
    started = time.perf_counter()
    field = state.field.eval()
    field.save(out / "field.safetensors")
    look = view_renderer(field, state.occupancy, settings, max(VIEW_RESOLUTION, settings.fine_resolution))
    distance = view_distance(settings)
    write_views(
        lambda c2w: look(c2w).pictures, out / "views.png", distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG
    )
    coverage = _write_video(look, out / "turntable.mp4", distance)
    losses = read_losses(out / LOSSES)
    distilled = losses.rows[-1]["seconds"] if losses.rows else 0.0
    took = RunSeconds(distilled, time.perf_counter() - started)
    write_metrics(out / METRICS, metrics(state, settings, losses, coverage, took=took))
    device = field.grid.table.device
    with torch.no_grad():
        report = export.export_mesh(
            field.density, field.albedo, field.radius, out / "mesh.glb", mesh_settings, kinds=kinds, device=device
        )
    took = RunSeconds(took.distill, took.pictures, report.seconds)
    write_metrics(out / METRICS, metrics(state, settings, losses, coverage, report=report, took=took))
    return report


def _write_video(look: ViewRenderer, path: Path, distance: float) -> list[float]:
    """One turn: colors, normals and the textureless body side by side. The opacity of each frame's picture."""
    coverage: list[float] = []

    def panels(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
        seen = look(c2w)
        coverage.extend(seen.alpha.mean((1, 2)).tolist())
        return np.concatenate(seen.pictures, 2)

    write_turntable(panels, path, distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG)
    return coverage
