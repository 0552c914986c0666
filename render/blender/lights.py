"""Light the open scene: with an environment map, with lamps, or with a white world. Runs inside Blender."""

import math
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Vector

from dataset.format.schema import Hdri
from render.blender.scene import ObjectError
from render.rigs.cameras import Light
from render.rigs.lamps import PlacedLamp

MEAN_LUMINANCE: Final = 0.8  # environment maps are scaled to this mean; those of Blender have 0.17 to 0.97
IMPORTANCE_MAP: Final = (256, 4096)
_LUMINANCE: Final = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709
_maps: dict[Path, tuple[float, int]] = {}  # environment maps used by this process: strength, width in pixels


def light_scene(light: Light, path: Path) -> Hdri:
    """Make the environment map at `path` the only light: rotated about z, with MEAN_LUMINANCE and the exposure.

    Raises ObjectError when the map is black or cannot be read.
    """
    image = bpy.data.images.load(str(path))
    if path not in _maps:
        _maps[path] = round(MEAN_LUMINANCE / _mean_luminance(image, path), 4), image.size[0]
    strength_at_0, width = _maps[path]
    world = bpy.data.worlds.new("environment")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.cycles.sampling_method = "MANUAL"
    world.cycles.sample_map_resolution = _importance_map(width)
    nodes, links = world.node_tree.nodes, world.node_tree.links
    environment, background = nodes.new("ShaderNodeTexEnvironment"), nodes["Background"]
    # A mapping node would compute its rotation matrix for every ray, which takes 3 % of the render time.
    environment.texture_mapping.rotation[2] = math.radians(light.rotation_deg)
    environment.image = image
    background.inputs["Strength"].default_value = strength = round(strength_at_0 * 2**light.exposure, 4)
    links.new(environment.outputs["Color"], background.inputs["Color"])
    return Hdri(light.hdri, light.rotation_deg, strength)


def light_lamps(lamps: list[PlacedLamp], world_strength: float) -> Hdri:
    """Light the open scene with lamps that shine at the origin, and with a white world of radiance `world_strength`."""
    light_white(world_strength)
    for lamp in lamps:
        data = bpy.data.lights.new("lamp", lamp.type.upper())
        data.energy, data.use_shadow = lamp.energy, lamp.shadow
        if lamp.type == "area":
            data.size = lamp.size
        elif lamp.type == "point":
            data.shadow_soft_size = lamp.size / 2
        obj = bpy.data.objects.new("lamp", data)
        obj.location = lamp.place
        obj.rotation_euler = (-Vector(lamp.place)).to_track_quat("-Z", "Y").to_euler()
        bpy.context.scene.collection.objects.link(obj)
    return Hdri("lamps", 0.0, world_strength)


def light_white(strength: float) -> Hdri:
    """Make a white world of the radiance `strength` the only light, as SyncDreamer's rendering script does."""
    world = bpy.data.worlds.new("white")
    bpy.context.scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    background.inputs["Strength"].default_value = strength
    return Hdri("white", 0.0, strength)


def _importance_map(width: int) -> int:
    """Return the width of Cycles' importance map: twice that of the environment map, because the map is rotated.

    With a width of 2048, building the map takes 0.5 s per object. A smaller map blurs the sun: 22 instead of 35 dB at
    16 samples (docs/LOG.md). Blender's default, 4096 and more, takes 2 s and gives the same quality.
    """
    narrowest, widest = IMPORTANCE_MAP
    return min(max(2 * width, narrowest), widest)


def _mean_luminance(image: Any, path: Path) -> float:
    """Return the map's mean luminance over the sphere: each row is weighted by the cosine of its latitude."""
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    if pixels.size:
        image.pixels.foreach_get(pixels)
    rows = (pixels.reshape(height, width, 4)[..., :3] @ _LUMINANCE).mean(1, dtype=np.float64) if pixels.size else pixels
    weights = np.cos((np.arange(height) + 0.5) / max(height, 1) * np.pi - np.pi / 2)
    mean = float((rows * weights).sum() / weights.sum()) if len(rows) else 0.0
    if not np.isfinite(mean) or mean <= 0:
        raise ObjectError("prepare", "UnusableHdri", f"the environment map {path} is black or unreadable; delete it")
    return mean
