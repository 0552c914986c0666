"""What a finished distillation leaves in its folder: the field, the sheet of views, the video and the mesh."""

from pathlib import Path
from typing import Final

import torch

from distill import mesh
from distill.look import PREVIEW_ELEVATION_DEG, renderers, view_distance
from distill.schedule import DistillSettings
from distill.state import Distillation
from distill.turntable import write_turntable, write_views

VIEW_RESOLUTION: Final = 128  # pixels a side of the video and the sheet, at least


def write_results(
    state: Distillation, settings: DistillSettings, mesh_settings: mesh.MeshSettings, out: Path
) -> mesh.MeshReport:
    """The field, the sheet of views, the video and the mesh."""
    field = state.field.eval()
    field.save(out / "field.safetensors")
    colours, normals = renderers(state.field, state.occupancy, settings, max(VIEW_RESOLUTION, settings.fine_resolution))
    distance = view_distance(settings)
    write_views(
        colours, out / "views.png", distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG, extra_rows=(normals,)
    )
    write_turntable(colours, out / "turntable.mp4", distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG)
    device = field.grid.table.device
    with torch.no_grad():
        return mesh.export_mesh(
            field.density, field.albedo, field.radius, out / "mesh.glb", mesh_settings, device=device
        )
