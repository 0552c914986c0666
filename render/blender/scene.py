"""Import a model file, clean it up, normalize it and light it. Runs inside Blender.

The world axes are Blender's: z is up. The front of a glTF file (+z) faces -y after the import, which is toward the
camera at azimuth 0. The module render.blender.cycles renders the images.
"""

import logging
import logging.handlers
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Failure, Flag, Stage
from dataset.format.schema import Normalization, NormalizeMode
from render.blender.colors import color_by_vertex, draws_images, show_texture
from render.blender.empty_file import open_empty_file
from render.blender.geometry.coincident import Floats
from render.blender.geometry.poses import VANISHED, is_scattered, may_have_vanished, relative_areas, vanished_share
from render.blender.geometry.repair import mark_twins, pieces, validate
from render.blender.geometry.repair_all import repair_all
from render.model_files.errors import ModelError
from render.model_files.prepare import prepare_model
from render.model_files.prepared import Scenes
from render.settings import Up

SPHERE_RADIUS: Final = 0.62  # the largest sphere that fits the frame is 1.5 * sin(fov / 2) = 0.624
_GEOMETRY: Final = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
_UNWANTED: Final = {"LIGHT", "LIGHT_PROBE", "CAMERA", "SPEAKER"}
MOST_POINTS: Final = 2**22
_SMALLEST: Final = 1e-12
_AXES: Final[dict[Up, dict[str, str]]] = {  # axis that points up -> arguments of importers
    "y": {"forward_axis": "NEGATIVE_Z", "up_axis": "Y"},
    "z": {"forward_axis": "Y", "up_axis": "Z"},
}
_COLORED: Final = (".obj", ".fbx")  # formats whose importers leave vertex colors out of materials
_RECURSION: Final = 4  # most recursive calls of Blender's glTF importer per node of a chain
_FRAMES: Final = (-1_000_000, 1_000_000)  # about the range of Blender's frame numbers
FrameChoice = Callable[[int, int], int]


class ObjectError(Exception):
    """Raised when an object cannot be rendered and a retry would not help."""

    def __init__(self, stage: Stage, error_class: str, message: str, flags: tuple[Flag, ...] = ()) -> None:
        super().__init__(message)
        self.failure = Failure(stage, error_class, message, flags)


def build(path: Path, mode: NormalizeMode) -> Normalization:
    """Import, repair and normalize the object of the file `path`. Raises ObjectError when it cannot be rendered."""
    prepare(path)
    return normalize(mode)


def prepare(
    path: Path,
    root: Path | None = None,
    scratch: Path | None = None,
    up: Up | None = None,
    choose_frame: FrameChoice = min,
) -> tuple[Flag, ...]:
    """Replace the open scene with the object of a model file, and repair the object.

    An animated object is shown at one frame. If this frame does not show the whole object, the object is shown without
    its animation (`render.blender.geometry.poses`).

    Args:
        path: The model file.
        root: Folder that must contain all files that the model refers to; None: the folder of the model file.
        scratch: Existing folder for temporary files; None: the system's folder for temporary files.
        up: Axis of an OBJ, PLY or STL file that points up; None: the usual axis of the file's format.
        choose_frame: Function from the first and the last frame of an animation to the one to show. Default: the first.

    Returns flags for missing data and for repairs. Raises ObjectError when the object cannot be rendered.
    """
    root = (root or path.parent).resolve()
    with tempfile.TemporaryDirectory(dir=scratch, prefix="import-") as folder:
        flags, areas = _load(path, root, Path(folder), choose_frame, up)
        if not bpy.data.actions:
            return flags
        whole = not is_scattered(list(_face_boxes()))
        if whole and not may_have_vanished(areas):
            return flags
        at_rest, rest_areas = _load(path, root, Path(folder), None, up)
        if not is_scattered(list(_face_boxes())) and not (whole and vanished_share(areas, rest_areas) < VANISHED):
            return (*at_rest, "rest-pose")
        return _load(path, root, Path(folder), choose_frame, up)[0]


def _load(
    path: Path, root: Path, scratch: Path, choose_frame: FrameChoice | None, up: Up | None
) -> tuple[tuple[Flag, ...], Floats]:
    """Import and repair a model file. Return its flags and, if it is animated, its `relative_areas` before repairs.

    Without `choose_frame`, animations are not imported.
    """
    animations = choose_frame is not None
    lacks, has_images = _import(path, root, scratch, animations, up)
    _check_raw_vertices()
    _go_to_frame(choose_frame or min)
    _hide_unwanted()
    color_by_vertex(beside_gray=path.suffix.lower() in _COLORED)
    found = pieces()
    _check_finite(np.isfinite(piece.positions).all() for piece in found)
    if has_images and not draws_images():
        lacks = (*lacks, "untextured")
    areas = relative_areas(found) if bpy.data.actions or not animations else np.empty(0)
    repairs = repair_all(found)
    bpy.context.view_layer.update()
    return (*lacks, *repairs), areas


def _import(path: Path, root: Path, scratch: Path, animations: bool, up: Up | None) -> tuple[tuple[Flag, ...], bool]:
    """Import a model file into an empty scene. Return flags for missing parts, and whether it declares images."""
    open_empty_file()
    name = str(path)
    try:
        model = prepare_model(path, root, scratch, animations)
        name = str(model.path)
        with _recursion_limit(_RECURSION * model.depth):
            _import_by_suffix(model.path, animations, up)
    except ModelError as error:
        raise ObjectError("import", type(error).__name__, str(error)) from error
    except RuntimeError as error:  # raised by a failing Blender operator
        message = _last_line(str(error)).replace(name, path.name)
        raise ObjectError("import", "ImportFailed", f"{path.name} cannot be imported: {message[:400]}") from error
    if model.scenes is not None:
        mark_twins(model.scenes.twins)
        _exclude_other_scenes(model.scenes)
    if model.texture is not None:
        show_texture(model.texture)
    return model.flags, model.images


def _last_line(message: str) -> str:
    """Return the line of an operator's error that names the exception, which is after the traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("Location:")]
    return lines[-1] if lines else message.strip()


@contextmanager
def _recursion_limit(extra: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + extra)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _import_by_suffix(path: Path, animations: bool, up: Up | None) -> None:
    """Call Blender's importer for the file's format, without mesh validation, which would silently replace NaN.

    `_check_raw_vertices` validates the meshes afterwards.
    """
    name = str(path)
    match path.suffix.lower():
        case ".glb" | ".gltf":
            _import_gltf(name)
        case ".obj":
            bpy.ops.wm.obj_import(filepath=name, validate_meshes=False, **_AXES[up or "y"])
        case ".fbx":
            bpy.ops.wm.fbx_import(filepath=name, validate_meshes=False, use_anim=animations)
        case ".ply":
            bpy.ops.wm.ply_import(filepath=name, **_AXES[up or "z"])
        case ".stl":
            bpy.ops.wm.stl_import(filepath=name, use_mesh_validate=False, **_AXES[up or "z"])
        case suffix:
            raise ObjectError("import", "UnknownFormat", f"{path.name}: the suffix {suffix!r} is not supported")


def _import_gltf(name: str) -> None:
    """Import a glTF without bone shapes, which would be rendered.

    Raises ModelError where Blender's importer only logs that it skipped a part of the geometry.
    """
    log, errors = (logging.getLogger(f"glTFImporter{suffix}") for suffix in ("", "_errors"))
    buffer = logging.handlers.BufferingHandler(sys.maxsize)
    errors.addHandler(buffer)
    try:
        bpy.ops.import_scene.gltf(
            filepath=name, disable_bone_shape=True, import_webp_texture=True, import_scene_extras=False
        )
    finally:  # a failed import leaves its handlers behind, which would repeat every later log line
        log.handlers.clear()
        errors.handlers.clear()
    for record in buffer.buffer:
        if record.getMessage().startswith("Draco"):
            raise ModelError(f"{Path(name).name}: the importer skipped compressed geometry: {record.getMessage()}")


def _exclude_other_scenes(scenes: Scenes) -> None:
    """Exclude nodes that are not in the default scene, including nodes in no scene.

    If there are several scenes, Blender's importer makes one collection per scene, in order, and last a collection of
    the nodes in no scene. If a file has no scenes, all nodes are used.
    """
    for place, layer in enumerate(bpy.context.view_layer.layer_collection.children):
        layer.exclude = scenes.count == 1 or (scenes.count > 1 and place != scenes.default)


def _check_raw_vertices() -> None:
    for mesh in bpy.data.meshes:
        if not np.isfinite(_coordinates(mesh)).all():
            raise ObjectError(
                "prepare", "NonFinitePositions", f"the mesh {mesh.name!r} has vertex positions that are NaN or infinite"
            )
        validate(mesh)


def _coordinates(mesh: Any) -> NDArray[np.float64]:
    """Return the vertex positions [n, 3] in the mesh's own axes."""
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    positions: NDArray[np.float64] = flat.reshape(-1, 3).astype(np.float64)
    return positions


def _go_to_frame(choose_frame: FrameChoice) -> None:
    """Go to one frame of all animations."""
    ranges = [np.clip(np.nan_to_num(action.frame_range), *_FRAMES) for action in bpy.data.actions]
    if ranges:  # a NaN time is detected later, by the check of the geometry
        first, last = min(start for start, _ in ranges), max(end for _, end in ranges)
        bpy.context.scene.frame_set(choose_frame(math.floor(first), math.floor(last)))
    bpy.context.view_layer.update()


def _hide_unwanted() -> None:
    """Exclude the file's lights, cameras and objects that are hidden in the viewport from the rendering."""
    for obj in bpy.context.scene.objects:
        if obj.type in _UNWANTED or not obj.visible_get():
            obj.hide_render = True


def visible_points() -> NDArray[np.float64]:
    """Return the world positions of all n vertices of rendered faces [n, 3], with modifiers and instances applied."""
    return np.concatenate([np.empty((0, 3)), *_clouds()])


def outline_points() -> NDArray[np.float32]:
    """Return n world positions [3, n] from which the object's bounding rectangle in an image can be computed.

    Above MOST_POINTS vertices, bounding boxes replace some instances. The computed rectangle may then be too large.
    """
    clouds, total = [], 0
    for cloud in _clouds():
        kept = cloud if total + len(cloud) <= MOST_POINTS else _corners(cloud)
        clouds.append(kept.astype(np.float32))
        total += len(kept)
    return np.ascontiguousarray(np.concatenate(clouds).T)


def _corners(cloud: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eight corners [8, 3] of the points' bounding box."""
    bounds = np.stack([cloud.min(0), cloud.max(0)])
    return np.stack([bounds[list(choice), range(3)] for choice in np.ndindex(2, 2, 2)])


def _clouds() -> Iterator[NDArray[np.float64]]:
    """Yield the points of `visible_points` per instance, [m, 3] with m > 0, to save memory."""
    for mesh, to_world in _instances():
        used = np.zeros(len(mesh.vertices), bool)
        used[_corner_vertices(mesh)] = True
        cloud = _coordinates(mesh)[used] @ to_world[:3, :3].T + to_world[:3, 3]
        if len(cloud):
            yield cloud


def _face_boxes() -> Iterator[Floats]:
    """Yield the bounds [f, 2, 3] of the faces of each instance in world space."""
    for mesh, to_world in _instances():
        points = (_coordinates(mesh) @ to_world[:3, :3].T + to_world[:3, 3])[_corner_vertices(mesh)]
        starts = np.empty(len(mesh.polygons), np.int32)
        mesh.polygons.foreach_get("loop_start", starts)
        if len(starts):
            yield np.stack([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], 1)


def _instances() -> Iterator[tuple[Any, Floats]]:
    """Yield the mesh of each rendered instance, with modifiers applied, and its matrix [4, 4] to world space."""
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        obj = instance.object
        if obj.type not in _GEOMETRY or obj.original.hide_render or not instance.show_self:
            continue
        mesh = obj.to_mesh()
        if mesh is not None:
            yield mesh, np.array(instance.matrix_world)
        obj.to_mesh_clear()


def _corner_vertices(mesh: Any) -> NDArray[np.int32]:
    """Return the vertex of every corner [c] of a mesh."""
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    return corners


def normalize(mode: NormalizeMode) -> Normalization:
    """Center the object's bounds at the origin. Scale the longest side to 1, or the radius to SPHERE_RADIUS (`mode`).

    Returns this transform. Raises ObjectError when the object has no visible faces or no size, or is not finite.
    """
    bounds = np.array([(cloud.min(0), cloud.max(0)) for cloud in _clouds()])  # [instances, 2, 3]
    if not len(bounds):
        raise ObjectError("prepare", "NoMesh", f"nothing can be rendered: the file contains {_without_faces()}")
    _check_finite([np.isfinite(bounds).all()])
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    center, longest = (low + high) / 2, float((high - low).max())
    if longest < _SMALLEST:
        small = f"the longest side of the object is {longest:.3g}; the minimum is {_SMALLEST:g}"
        raise ObjectError("prepare", "ZeroSize", small if longest else "all vertices are at one point")
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


def _check_finite(finite: Iterable[np.bool_]) -> None:
    if not all(finite):
        raise ObjectError("prepare", "NonFinitePositions", "vertex positions in the scene are NaN or infinite")


def _without_faces() -> str:
    """Return what an object without visible faces consists of."""
    meshes = [obj.data for obj in bpy.context.scene.objects if obj.type == "MESH"]
    if not any(len(mesh.polygons) for mesh in meshes):
        if any(len(mesh.edges) for mesh in meshes):
            return "only lines, no faces with an area"
        if any(len(mesh.vertices) for mesh in meshes):
            return "only points, no faces with an area"
    return "no visible faces"


def _radius(center: NDArray[np.float64]) -> float:
    return max(float(np.linalg.norm(cloud - center, axis=1).max()) for cloud in _clouds())
