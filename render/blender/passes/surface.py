"""Render the passes of a view: depth, normals, base color and material, with one camera ray per pixel.

The passes are rendered after all images of an object, in a second sweep over its cameras, for two reasons. The images
are the same with and without passes. And one ray per pixel gives the values of one point: with several samples, a pixel
at an edge would mix two surfaces.
"""

from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from numpy.typing import NDArray

from dataset.format.passes import Surface
from render.blender.cycles import place_camera, render_only
from render.blender.passes.base_colors import MATERIAL_AOV, show_base_colors
from render.blender.screen_bounds import PixelBox
from render.blender.timing import PartTimer
from render.rigs.cameras import Pose

_FAR: Final = 1e9  # Cycles' depth of the background is 1e10
_LAYERS: Final = ("Image", "Depth", "Normal", MATERIAL_AOV)  # outputs of the compositor's node Render Layers
_CYCLES: Final[dict[str, Any]] = {
    "use_denoising": False,
    "use_adaptive_sampling": False,
    "samples": 1,
    "max_bounces": 0,
    "transparent_max_bounces": 256,
    "seed": 0,
}


def begin_passes(scratch: Path) -> None:
    """Prepare the open scene for `render_surface`. Images can no longer be rendered afterwards.

    `scratch` is an existing folder for temporary files.
    """
    scene, layer = bpy.context.scene, bpy.context.view_layer
    show_base_colors()
    for name, value in _CYCLES.items():
        setattr(scene.cycles, name, value)
    layer.cycles.denoising_store_passes = False
    layer.use_pass_glossy_color = layer.use_pass_transmission_color = False
    layer.use_pass_z = layer.use_pass_normal = True
    aov = layer.aovs.add()
    aov.name, aov.type = MATERIAL_AOV, "COLOR"
    _write_layers(scene, scratch)


def _write_layers(scene: Any, scratch: Path) -> None:
    """Let the compositor write each layer to an uncompressed OpenEXR file of 32-bit numbers."""
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    nodes.clear()
    layers, files = nodes.new("CompositorNodeRLayers"), nodes.new("CompositorNodeOutputFile")
    files.base_path = str(scratch)
    files.format.file_format = "OPEN_EXR"
    files.format.color_mode, files.format.color_depth, files.format.exr_codec = "RGBA", "32", "NONE"
    files.file_slots.clear()
    for name in _LAYERS:
        files.file_slots.new(f"pass-{name}-")
        links.new(layers.outputs[name], files.inputs[-1])


def render_surface(pose: Pose, scratch: Path, box: PixelBox | None, timer: PartTimer) -> Surface:
    """Render what the camera rays of a view meet. Call `begin_passes` before.

    Args:
        pose: The camera.
        scratch: The folder that was given to `begin_passes`.
        box: The pixels to render; all others are background. None: all pixels.
        timer: Timer to which the wall time is added, as the part `passes`.
    """
    scene = bpy.context.scene
    width, height = scene.render.resolution_x, scene.render.resolution_y
    box = box or PixelBox(0, 0, width, height)
    layers = {name: np.zeros((height, width, 4)) for name in _LAYERS}
    if not box.is_empty():
        with timer.part("passes"):
            place_camera(scene.camera, pose)
            render_only(scene.render, box)
            bpy.ops.render.render()
            for name in _LAYERS:
                path = scratch / f"pass-{name}-{scene.frame_current:04d}.exr"
                layers[name][box.top : box.bottom, box.left : box.right] = _read(path)
                path.unlink()
    material, depth = layers[MATERIAL_AOV], layers["Depth"][..., 0]
    covered = (material[..., 0] > 0) & (depth > 0) & (depth < _FAR)
    return Surface(
        depth=np.where(covered, depth, 0.0),
        normal=layers["Normal"][..., :3],
        albedo=layers["Image"][..., :3],
        roughness=material[..., 1],
        metallic=material[..., 2],
    )


def _read(path: Path) -> NDArray[np.float64]:
    """Return the pixels [h, w, 4] of an OpenEXR file, from top to bottom."""
    image = bpy.data.images.load(str(path))
    try:
        width, height = image.size
        pixels = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(pixels)
    finally:
        bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1].astype(np.float64)
