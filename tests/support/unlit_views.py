"""Render images of a model file without light: `python -m tests.support.unlit_views MODEL OUT.npz VIEWS RESOLUTION`.

Import, normalization, cameras and Cycles settings are those of `render`. Materials emit their base color instead of
reflecting light, so that a pixel is the albedo, with the values of the texture.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from render.blender import cycles, scene
from render.rigs.cameras import Pose
from render.settings import Settings

ELEVATIONS_DEG = (5.0, 35.0)


def poses(views: int) -> list[Pose]:
    """Cameras all around, alternating between low and high."""
    return [Pose(ELEVATIONS_DEG[i % 2], 360.0 / views * i) for i in range(views)]


def shine(material: Any) -> None:
    """Replace the surface by an emission of the base color."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    (surface,) = [node for node in nodes if node.type == "BSDF_PRINCIPLED"]
    (output,) = [node for node in nodes if node.type == "OUTPUT_MATERIAL"]
    emission = nodes.new("ShaderNodeEmission")
    links.new(surface.inputs["Base Color"].links[0].from_socket, emission.inputs["Color"])
    links.new(emission.outputs["Emission"], output.inputs["Surface"])


def main() -> None:
    model, out, views, resolution = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    normalization = scene.build(model, "longest")
    bpy.context.scene.world = bpy.data.worlds.new("dark")
    for material in bpy.data.materials:
        shine(material)
    cycles.configure(Settings(resolution=resolution, samples=4), 1)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = [cycles.render_view(pose, 0, Path(scratch)) for pose in poses(views)]
    np.savez(
        out,
        pictures=np.stack(pictures),
        elevations_deg=[pose.elevation_deg for pose in poses(views)],
        azimuths_deg=[pose.azimuth_deg for pose in poses(views)],
        scale=normalization.scale,
        offset=np.array(normalization.offset),
    )


if __name__ == "__main__":
    main()
