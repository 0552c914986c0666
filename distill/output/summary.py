"""The metrics of a distillation, stored in `metrics.json`.

On a CPU, a repeated run has the same metrics, except the durations and memory under the key `took`.
"""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from dataset.io.files import write_file_atomic
from distill.mesh.export import MeshReport, sample_density
from distill.sds.checkpoint import Distillation
from distill.sds.loss_log import Losses
from distill.sds.schedule import DistillSettings, views_until

_DENSITY_NODES: Final = 64  # per edge of the grid on which the highest density is determined
_END: Final = (
    0.1  # losses are averaged over this last fraction of the run, since timesteps and views differ between steps
)


@dataclass(frozen=True)
class RunSeconds:
    """Durations in seconds of the parts of a run, named as in metrics.json."""

    distill: float
    pictures: float  # of the sheet of views and the video
    mesh: float | None = None
    texture: float | None = None  # of the texture phase


def metrics(
    state: Distillation,
    settings: DistillSettings,
    losses: Losses,
    coverage: Sequence[float],
    *,
    durations: RunSeconds,
    report: MeshReport | None = None,
) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    Args:
        state: The final state of the distillation.
        settings: Settings of the distillation.
        losses: The losses of all steps.
        coverage: Mean opacity of each frame of the turntable video.
        durations: Durations of the parts of the run.
        report: Statistics of the mesh; None if there is no mesh.
    """
    return {
        "steps": settings.steps,
        "views": views_until(settings, settings.steps),
        "losses": final_losses(losses, settings.steps),
        "field": _field(state),
        "turntable": {
            "coverage": _rounded(np.mean(coverage)),
            "coverage_lowest": _rounded(np.min(coverage)),
            "coverage_highest": _rounded(np.max(coverage)),
        },
        "mesh": None if report is None else mesh_metrics(report),
        "took": {
            "seconds": {name: round(value, 2) for name, value in asdict(durations).items() if value is not None},
            "views_per_s": round(views_until(settings, settings.steps) / durations.distill, 2)
            if durations.distill
            else None,
            **_memory(state),
        },
    }


def mesh_metrics(report: MeshReport) -> dict[str, Any]:
    """Return the statistics of a mesh as stored in `metrics.json`: without the duration, which is not reproducible."""
    return {name: value for name, value in asdict(report).items() if name != "seconds"}


def final_losses(losses: Losses, steps: int) -> dict[str, float]:
    """Return the mean of each loss over the last tenth of the run, by the name of the loss.

    Args:
        losses: The losses of all steps.
        steps: Number of steps of the whole run.
    """
    end = [row for row in losses.rows if row["step"] > steps * (1 - _END)]
    named = {name: [row[name] for row in end if name in row] for name in losses.names}
    return {name: _rounded(np.mean(values)) for name, values in named.items() if values}


@torch.no_grad()
def _field(state: Distillation) -> dict[str, float]:
    field = state.field
    density = sample_density(field.density, field.radius, _DENSITY_NODES, field.grid.table.device)
    occupied = state.occupancy.cells.occupied.float().mean().item()
    return {"occupied_share": _rounded(occupied), "highest_density": _rounded(density.max())}


def _memory(state: Distillation) -> dict[str, float | None]:
    """Return the peak memory of this process on the host and on its GPU."""
    device = state.field.grid.table.device
    unit = 2**20 if sys.platform == "darwin" else 2**10  # units of ru_maxrss per MiB
    return {
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
        "peak_gpu_mib": round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None,
    }


def _rounded(value: Any) -> float:
    """Round to six significant digits."""
    return float(f"{float(value):.6g}")


def write_metrics(path: Path, values: dict[str, Any]) -> None:
    """Write `values`, the metrics of a run, to the JSON file `path` atomically."""
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    write_file_atomic(path, text.encode())
