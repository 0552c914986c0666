"""Import a model file, clean it up, normalize it and light it. Runs inside Blender.

World axes are Blender's. The +z front of a glTF file is imported facing -y, which azimuth 0 sees. The images are
rendered by render.blender.cycles.
"""

import logging
import logging.handlers
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Flag, Stage
from dataset.format.schema import Hdri, Normalization, NormalizeMode
from render.blender.cameras import Light
from render.model_files.errors import ModelError
from render.model_files.fbx import check_fbx
from render.model_files.gltf import Scenes, check_gltf
from render.model_files.obj import check_obj
from render.model_files.ply import check_ply

SPHERE_RADIUS: Final = 0.62  # 1.5 * sin(fov / 2) = 0.624 is the largest sphere that the frame holds
MEAN_LUMINANCE: Final = 0.8  # every environment map is scaled to it: Blender's own eight range from 0.17 to 0.97
IMPORTANCE_MAP: Final = (256, 4096)
_GEOMETRY: Final = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
_UNWANTED: Final = {"LIGHT", "LIGHT_PROBE", "CAMERA", "SPEAKER"}
MOST_POINTS: Final = 2**22
_SMALLEST: Final = 1e-12
_FRAMES: Final = (-1_000_000, 1_000_000)  # about what Blender can count
_LUMINANCE: Final = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709
_strengths: dict[Path, float] = {}  # of environment maps measured by this process


class ObjectError(Exception):
    """This object cannot be rendered, now or ever. `stage` is dataset.format.outcomes's, `kind` a short name of the
    reason.
    """

    def __init__(self, stage: Stage, kind: str, message: str, flags: tuple[Flag, ...] = ()) -> None:
        super().__init__(message)
        self.stage, self.kind, self.flags = stage, kind, flags


def build(path: Path, mode: NormalizeMode) -> Normalization:
    """Replace whatever is open by the prepared object of a model file. Raises ObjectError."""
    _import(path)
    _check_raw_vertices()
    _first_frame()
    _hide_unwanted()
    _color_by_vertex()
    return _normalize(mode)


def _import(path: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
    try:
        scenes = _check(path)
        _import_by_suffix(path)
    except ModelError as error:
        raise ObjectError("import", type(error).__name__, str(error)) from error
    except RuntimeError as error:  # what a failing operator raises
        raise ObjectError("import", "ImportFailed", f"{path.name}: {str(error).strip()[-400:]}") from error
    if scenes is not None:
        _leave_other_scenes(scenes)


def _check(path: Path) -> Scenes | None:
    """What can be known of a file before Blender reads it; the scenes of a glTF. Raises a ModelError."""
    match path.suffix.lower():
        case ".glb" | ".gltf":
            return check_gltf(path)
        case ".ply":
            check_ply(path)
        case ".obj":
            check_obj(path)
        case ".fbx":
            check_fbx(path)
    return None


def _import_by_suffix(path: Path) -> None:
    """Blender's importers. Their mesh validation is off: it replaces NaN silently; `_check_raw_vertices` repeats it."""
    name = str(path)
    match path.suffix.lower():
        case ".glb" | ".gltf":  # bone shapes are helpers that would be rendered
            _import_gltf(name)
        case ".obj":
            bpy.ops.wm.obj_import(filepath=name, validate_meshes=False)
        case ".fbx":
            bpy.ops.wm.fbx_import(filepath=name, validate_meshes=False)
        case ".ply":
            bpy.ops.wm.ply_import(filepath=name)
        case ".stl":
            bpy.ops.wm.stl_import(filepath=name, use_mesh_validate=False)
        case suffix:
            raise ObjectError("import", "UnknownFormat", f"{path.name}: no importer for {suffix or 'no suffix'}")


def _import_gltf(name: str) -> None:
    """Raises ModelError where Blender's importer only logs that it left out a part of the geometry."""
    log, errors = (logging.getLogger(f"glTFImporter{suffix}") for suffix in ("", "_errors"))
    heard = logging.handlers.BufferingHandler(sys.maxsize)
    errors.addHandler(heard)
    try:
        bpy.ops.import_scene.gltf(
            filepath=name, disable_bone_shape=True, import_webp_texture=True, import_scene_extras=False
        )
    finally:  # each import that fails leaves its handlers behind, and every later line is written once more
        log.handlers.clear()
        errors.handlers.clear()
    for record in heard.buffer:
        if record.getMessage().startswith("Draco"):
            raise ModelError(f"{Path(name).name}: {record.getMessage()}")


def _leave_other_scenes(scenes: Scenes) -> None:
    """Exclude what is in no scene and what is in another than the one shown.

    Blender makes a collection of each scene, in their order, when there are several; one of the nodes in no scene
    comes last. Without any scene it is all there is.
    """
    for place, layer in enumerate(bpy.context.view_layer.layer_collection.children):
        layer.exclude = scenes.count == 1 or (scenes.count > 1 and place != scenes.shown)


def _check_raw_vertices() -> None:
    for mesh in bpy.data.meshes:
        if not np.isfinite(_coordinates(mesh)).all():
            raise ObjectError(
                "prepare", "NonFinitePositions", f"mesh {mesh.name!r} has vertices that are NaN or infinite"
            )
        mesh.validate()


def _coordinates(mesh: Any) -> NDArray[np.float64]:
    """Vertex positions [n, 3] in the mesh's own axes."""
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    positions: NDArray[np.float64] = flat.reshape(-1, 3).astype(np.float64)
    return positions


def _first_frame() -> None:
    """Stand at the first frame of whatever is animated."""
    starts = [action.frame_range[0] for action in bpy.data.actions]
    if starts:  # a NaN time is caught by the check of the geometry
        bpy.context.scene.frame_set(math.floor(np.clip(np.nan_to_num(min(starts)), *_FRAMES)))
    bpy.context.view_layer.update()


def _hide_unwanted() -> None:
    """Take the asset's lights and cameras, and what it hides in the viewport, out of the rendering."""
    for obj in bpy.context.scene.objects:
        if obj.type in _UNWANTED or not obj.visible_get():
            obj.hide_render = True


def _color_by_vertex() -> None:
    """Show the colors of meshes that have them but no material (PLY scans, some OBJ); importers leave those gray."""
    for mesh in bpy.data.meshes:
        if any(mesh.materials) or not mesh.color_attributes:
            continue
        material = bpy.data.materials.new("vertex colors")
        material.use_nodes = True
        nodes = material.node_tree.nodes
        attribute = nodes.new("ShaderNodeVertexColor")
        attribute.layer_name = mesh.color_attributes[0].name
        material.node_tree.links.new(attribute.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
        mesh.materials.clear()
        mesh.materials.append(material)


def visible_points() -> NDArray[np.float64]:
    """World positions [n, 3] of the vertices of all faces that will be rendered: evaluated, instances included."""
    return np.concatenate([np.empty((0, 3)), *_clouds()])


def outline_points() -> NDArray[np.float32]:
    """Points [3, n] whose projection fills the object's own rectangle; above MOST_POINTS a larger one, by boxes."""
    clouds, total = [], 0
    for cloud in _clouds():
        kept = cloud if total + len(cloud) <= MOST_POINTS else _corners(cloud)
        clouds.append(kept.astype(np.float32))
        total += len(kept)
    return np.ascontiguousarray(np.concatenate(clouds).T)


def _corners(cloud: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight corners [8, 3] of the box about the points."""
    bounds = np.stack([cloud.min(0), cloud.max(0)])
    return np.stack([bounds[list(choice), range(3)] for choice in np.ndindex(2, 2, 2)])


def _clouds() -> Iterator[NDArray[np.float64]]:
    """The same, one instance [m, 3] (m > 0) at a time: a mesh in a thousand places need not fit a thousandfold."""
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        obj = instance.object
        if obj.type not in _GEOMETRY or obj.original.hide_render or not instance.show_self:
            continue
        mesh = obj.to_mesh()
        cloud = np.empty((0, 3)) if mesh is None else _face_points(mesh, np.array(instance.matrix_world))
        obj.to_mesh_clear()
        if len(cloud):
            yield cloud


def _face_points(mesh: Any, to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    points: NDArray[np.float64] = _coordinates(mesh)[np.unique(corners)] @ to_world[:3, :3].T + to_world[:3, 3]
    return points


def _normalize(mode: NormalizeMode) -> Normalization:
    """Put every root under one empty that moves the bounds' center to the origin and scales the whole."""
    bounds = np.array([(cloud.min(0), cloud.max(0)) for cloud in _clouds()])  # [instances, 2, 3]
    if not len(bounds):
        raise ObjectError("prepare", "NoMesh", "the file holds no visible face")
    if not np.isfinite(bounds).all():
        raise ObjectError("prepare", "NonFinitePositions", "the evaluated geometry is NaN or infinite")
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    center, longest = (low + high) / 2, float((high - low).max())
    if longest < _SMALLEST:
        raise ObjectError("prepare", "ZeroSize", "all vertices are in one point")
    scale = 1.0 / longest if mode == "longest" else SPHERE_RADIUS / _radius(center)
    scene = bpy.context.scene
    root = bpy.data.objects.new("normalized", None)
    for obj in list(scene.objects):
        if obj.parent is None:
            obj.parent = root
    scene.collection.objects.link(root)
    root.scale, root.location = (scale,) * 3, tuple(-scale * center)
    bpy.context.view_layer.update()
    x, y, z = (-center).tolist()
    return Normalization(mode, scale, (x, y, z))


def _radius(center: NDArray[np.float64]) -> float:
    return max(float(np.linalg.norm(cloud - center, axis=1).max()) for cloud in _clouds())


def light_scene(light: Light, path: Path) -> Hdri:
    """Light the scene by an environment map alone, turned about z, scaled to a mean luminance of MEAN_LUMINANCE."""
    image = bpy.data.images.load(str(path))
    if path not in _strengths:
        _strengths[path] = round(MEAN_LUMINANCE / _mean_luminance(image, path), 4)
    world = bpy.data.worlds.new("environment")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.cycles.sampling_method = "MANUAL"
    world.cycles.sample_map_resolution = _importance_map(image.size[0])
    nodes, links = world.node_tree.nodes, world.node_tree.links
    environment, background = nodes.new("ShaderNodeTexEnvironment"), nodes["Background"]
    # A mapping node would compute its matrix anew, sines and all, for every ray: 3 % of a picture's time.
    environment.texture_mapping.rotation[2] = math.radians(light.rotation_deg)
    environment.image = image
    background.inputs["Strength"].default_value = _strengths[path]
    links.new(environment.outputs["Color"], background.inputs["Color"])
    return Hdri(light.hdri, light.rotation_deg, _strengths[path])


def _importance_map(width: int) -> int:
    """Width of the map by which Cycles finds the light: twice the picture's, for it is turned. 0.5 s an object at 2048.

    A coarser one blurs the sun away: 22 instead of 35 dB at 16 samples (docs/LOG.md). Blender's own choice, 4096 and
    more, is no better and takes 2 s.
    """
    narrowest, widest = IMPORTANCE_MAP
    return min(max(2 * width, narrowest), widest)


def _mean_luminance(image: Any, path: Path) -> float:
    """Over the sphere: rows of an equirectangular map weigh as the cosine of their latitude."""
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    if pixels.size:
        image.pixels.foreach_get(pixels)
    rows = (pixels.reshape(height, width, 4)[..., :3] @ _LUMINANCE).mean(1, dtype=np.float64) if pixels.size else pixels
    weights = np.cos((np.arange(height) + 0.5) / max(height, 1) * np.pi - np.pi / 2)
    mean = float((rows * weights).sum() / weights.sum()) if len(rows) else 0.0
    if not np.isfinite(mean) or mean <= 0:
        raise ObjectError("prepare", "UnusableHdri", f"the environment map {path} is black or unreadable")
    return mean
