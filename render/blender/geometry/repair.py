"""Repair coincident faces and stored normals of the open scene before it is rendered. Runs inside Blender."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import bmesh
import bpy
import numpy as np
from numpy.typing import NDArray

from render.blender.geometry.coincident import (
    Booleans,
    Faces,
    Floats,
    Integers,
    Repair,
    area_vectors,
    doubled_share,
    plan_repair,
)
from render.blender.geometry.strays import invisible_slots, stray_faces
from render.model_files.windings import reversed_twins

STEP: Final = 1e-4  # of the longest side; distance by which a face is moved off a coincident one
MOST_FACES: Final = 4_000_000  # a scene with more faces than this is not repaired
CONTRADICTING: Final = 0.5  # share of a mesh's area whose stored normals point to the back
DOUBLED: Final = 0.01  # an object is flagged if coincident faces make up more of its area
TWIN: Final = "reversed_twin"  # marks faces whose reversed copy on the same vertices was deleted on import
_BOTH: Final = "both sides"  # property of a material: its copy that is drawn from both sides
_SOURCE: Final = "source_corner"


def validate(mesh: Any) -> None:
    """Remove invalid and repeated faces of an imported mesh with Blender's `Mesh.validate`.

    Of two faces on the same vertices, `Mesh.validate` deletes one. If the two faces have opposite windings, this
    function marks the remaining face with the attribute TWIN, because it replaces both.
    """
    corners, starts = np.empty(len(mesh.loops), np.int32), np.empty(len(mesh.polygons), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_start", starts)
    twins = reversed_twins(corners.astype(np.int64), starts.astype(np.int64))
    if twins.any():
        mesh.attributes.new(TWIN, "BOOLEAN", "FACE").data.foreach_set("value", twins)
    mesh.validate()


def mark_twins(names: frozenset[str]) -> None:
    """Mark all faces of the named meshes with the attribute TWIN.

    Each of these meshes had faces with opposite windings on the same vertices. Blender's glTF importer keeps one of two
    such faces and does not record which faces were affected, so all faces of the mesh are marked. If a mesh name was
    already in use, Blender has appended a number to it, as in "name.001".
    """
    for mesh in bpy.data.meshes:
        if mesh.name in names or mesh.name.rpartition(".")[0] in names:
            twins = np.ones(len(mesh.polygons), bool)
            mesh.attributes.new(TWIN, "BOOLEAN", "FACE").data.foreach_set("value", twins)


@dataclass(frozen=True)
class Piece:
    """A mesh object of the scene as it is rendered: v vertices in world space, f faces and c face corners.

    Attributes:
        obj: The Blender object.
        positions: World positions of the vertices [v, 3].
        corners: Index of the vertex at every corner [c]. The corners of each face are consecutive.
        starts: Index of the first corner of every face [f].
        slots: Index of the material slot of every face [f].
        mirrored: Whether the object's matrix reverses windings.
    """

    obj: Any
    positions: Floats
    corners: Integers
    starts: Integers
    slots: Integers
    mirrored: bool


def is_too_large() -> bool:
    """Return whether the open scene has more than MOST_FACES faces. A mesh counts once per object that uses it."""
    return sum(len(obj.data.polygons) for obj in _rendered_meshes()) > MOST_FACES


def _rendered_meshes() -> list[Any]:
    return [
        obj
        for obj in bpy.context.scene.objects
        if obj.type == "MESH" and not obj.hide_render and obj.visible_get() and len(obj.data.polygons)
    ]


def pieces() -> list[Piece]:
    """Return the mesh objects that will be rendered, or an empty list if `is_too_large()` is True.

    A mesh object is left out if its modifiers add or remove faces.
    """
    if is_too_large():
        return []
    graph = bpy.context.evaluated_depsgraph_get()
    found = []
    for obj in _rendered_meshes():
        evaluated = obj.evaluated_get(graph)
        mesh = evaluated.to_mesh()
        if len(mesh.polygons) == len(obj.data.polygons) and len(mesh.loops) == len(obj.data.loops):
            found.append(_piece(obj, mesh, np.array(evaluated.matrix_world)))
        evaluated.to_mesh_clear()
    return found


def _piece(obj: Any, mesh: Any, to_world: Floats) -> Piece:
    corners, starts, slots = (np.empty(n, np.int32) for n in (len(mesh.loops), len(mesh.polygons), len(mesh.polygons)))
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_start", starts)
    mesh.polygons.foreach_get("material_index", slots)
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    positions = flat.reshape(-1, 3).astype(np.float64) @ to_world[:3, :3].T + to_world[:3, 3]
    mirrored = bool(np.linalg.det(to_world[:3, :3]) < 0)
    return Piece(obj, positions, corners.astype(np.int64), starts.astype(np.int64), slots.astype(np.int64), mirrored)


def repair_coincident_faces(found: list[Piece]) -> float:
    """Delete or move coincident faces of the scene. `plan_repair` decides which ones.

    Args:
        found: The mesh objects, as `pieces` returns them. This list is out of date afterwards; call `pieces` again.

    Returns:
        The area of the coincident faces, divided by the area of all faces (0 to 1).
    """
    if not found:
        return 0.0
    faces = _join(found)
    size = float(np.ptp(faces.positions[faces.corners], axis=0).max())
    if not np.isfinite(faces.positions).all() or size <= 0:
        return 0.0
    plan = plan_repair(faces, size, np.concatenate([_twins(piece.obj.data) for piece in found]))
    _apply(found, plan, STEP * size)
    return doubled_share(faces, plan)


def _apply(found: list[Piece], plan: Repair, step: float) -> None:
    """Change the meshes as planned. Objects that share a mesh and have the same plan share the changed mesh."""
    alike: dict[tuple[Any, bytes], list[tuple[Piece, Repair]]] = {}  # objects that share a mesh and a plan
    for piece, part in zip(found, _split(plan, found), strict=True):
        if part.drop.any() or part.layer.any() or part.both_sides.any():
            key = part.drop.tobytes() + part.both_sides.tobytes() + part.layer.tobytes()
            alike.setdefault((piece.obj.data, key), []).append((piece, part))
    for (mesh, _), users in alike.items():
        changed = mesh if mesh.users == len(users) else mesh.copy()
        for piece, _ in users:
            piece.obj.data = changed
        piece, part = users[0]
        _draw_both_sides(piece.obj, part.both_sides)
        _edit(piece.obj, part, step)


def _join(found: list[Piece]) -> Faces:
    materials: dict[Any, int] = {}
    looks, wound, colors = [], [], []
    for piece in found:
        slots = [slot.material for slot in piece.obj.material_slots] or [None]
        numbers = np.array([materials.setdefault(material, len(materials)) for material in slots])
        looks.append(numbers[np.minimum(piece.slots, len(numbers) - 1)])
        order = _reversed_corners(piece.starts, len(piece.corners)) if piece.mirrored else slice(None)
        wound.append(piece.corners[order])
        colors.append(_colors(piece.obj.data, piece.corners)[order])
    width = max(part.shape[1] for part in colors)
    first_vertex = np.cumsum([0, *(len(piece.positions) for piece in found)])
    first_corner = np.cumsum([0, *(len(piece.corners) for piece in found)])
    corners = [part + first for part, first in zip(wound, first_vertex[:-1], strict=True)]
    starts = [piece.starts + first for piece, first in zip(found, first_corner[:-1], strict=True)]
    return Faces(
        np.concatenate([piece.positions for piece in found]),
        np.concatenate(corners),
        np.concatenate(starts),
        np.concatenate(looks),
        np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in colors]),
    )


def _colors(mesh: Any, corners: Integers) -> Floats:
    """Return the texture coordinates and colors [c, k] of every corner of a mesh."""
    columns = []
    for layer in mesh.uv_layers:
        values = np.zeros(len(corners) * 2, np.float32)
        layer.uv.foreach_get("vector", values)
        columns.append(values.reshape(-1, 2))
    for attribute in mesh.color_attributes:
        values = np.zeros(len(attribute.data) * 4, np.float32)
        attribute.data.foreach_get("color", values)
        table = values.reshape(-1, 4)
        columns.append(table[corners] if attribute.domain == "POINT" else table)
    stacked = np.concatenate(columns, 1) if columns else np.zeros((len(corners), 0))
    return np.nan_to_num(stacked.astype(np.float64), posinf=0.0, neginf=0.0).clip(-1e6, 1e6)


def remove_uncounted_faces(found: list[Piece]) -> bool:
    """Delete invisible faces, and faces far away from nearly all others (`stray_faces`).

    If all faces are invisible, they are not deleted.

    Args:
        found: The mesh objects, as `pieces` returns them.

    Returns:
        Whether any face was deleted.
    """
    if not found:
        return False
    faces = _join(found)
    hidden = np.concatenate([np.isin(piece.slots, invisible_slots(piece.obj)) for piece in found])
    hidden &= not hidden.all()
    visible = np.flatnonzero(~hidden)
    corners = np.repeat(~hidden, faces.counts)
    counts = faces.counts[visible]
    seen = Faces(
        faces.positions,
        faces.corners[corners],
        np.cumsum(counts) - counts,
        faces.look[visible],
        faces.colors[corners],
    )
    stray = stray_faces(seen) if np.isfinite(faces.positions).all() else np.zeros(len(visible), bool)
    hidden[visible[stray]] = True
    nothing = np.zeros(len(hidden), np.int64)
    _apply(found, Repair(hidden, nothing > 0, nothing, nothing > 0), 0.0)
    return bool(hidden.any())


def _twins(mesh: Any) -> Booleans:
    """Return which faces [f] of a mesh are marked as representing both sides."""
    marked = np.zeros(len(mesh.polygons), bool)
    if TWIN in mesh.attributes:
        mesh.attributes[TWIN].data.foreach_get("value", marked)
    return marked


def _split(plan: Repair, found: list[Piece]) -> Iterator[Repair]:
    first = 0
    for piece in found:
        chosen = slice(first, first + len(piece.starts))
        yield Repair(plan.drop[chosen], plan.both_sides[chosen], plan.layer[chosen], plan.doubled[chosen])
        first += len(piece.starts)


def _draw_both_sides(obj: Any, chosen: Booleans) -> None:
    """Give the chosen faces [f] of an object materials that are drawn from both sides."""
    polygons = obj.data.polygons
    slots = np.empty(len(polygons), np.int32)
    polygons.foreach_get("material_index", slots)
    for slot in np.unique(slots[chosen]).tolist():
        material = obj.material_slots[slot].material if slot < len(obj.material_slots) else None
        if material is None or not material.use_backface_culling:
            continue
        both = material.get(_BOTH) or material.copy()
        both.name, both.use_backface_culling = f"{material.name[:40]} {_BOTH}", False
        material[_BOTH] = both  # names are too short to tell long ones apart
        if not (chosen | (slots != slot)).all():
            obj.data.materials.append(both)
            slots[chosen & (slots == slot)] = len(obj.data.materials) - 1
        else:
            obj.data.materials[slot] = both
    polygons.foreach_set("material_index", slots)


def _edit(obj: Any, part: Repair, step: float) -> None:
    """Delete and move faces of an object's mesh; texture coordinates, colors, weights and stored normals are kept."""
    mesh = obj.data
    normals = _stored_normals(mesh)
    scale = float(np.linalg.norm(np.array(obj.matrix_world)[:3, :3], axis=0).mean()) or 1.0
    edited = bmesh.new()
    edited.from_mesh(mesh)
    source = edited.loops.layers.int.new(_SOURCE)
    for number, loop in enumerate(loop for face in edited.faces for loop in face.loops):
        loop[source] = number
    faces = list(edited.faces)
    moved = part.layer * ~part.drop
    if normals is None:  # windings decide how smooth surfaces are shaded
        free = [faces[i] for i in np.flatnonzero(part.both_sides & ~part.drop & (moved == 0)).tolist()]
        bmesh.ops.recalc_face_normals(edited, faces=free)
    bmesh.ops.delete(edited, geom=[faces[i] for i in np.flatnonzero(part.drop).tolist()], context="FACES")
    for layer in sorted(set(moved.tolist()) - {0}):
        _move(edited, [faces[i] for i in np.flatnonzero(moved == layer).tolist()], layer * step / scale)
    edited.to_mesh(mesh)
    edited.free()
    kept = np.empty(len(mesh.loops), np.int32)
    attribute = mesh.attributes[_SOURCE]
    attribute.data.foreach_get("value", kept)
    mesh.attributes.remove(attribute)
    if normals is not None:
        mesh.normals_split_custom_set(normals[kept].tolist())
    mesh.update()


def _move(edited: Any, chosen: list[Any], distance: float) -> None:
    """Separate faces from their neighbors and move them along their normals; `distance` is in the mesh's own units."""
    split = bmesh.ops.split(edited, geom=chosen)["geom"]
    edited.normal_update()
    shapes = list(edited.verts.layers.shape.values())
    for vertex in (item for item in split if isinstance(item, bmesh.types.BMVert)):
        offset = vertex.normal * (distance * vertex.calc_shell_factor())
        for shape in shapes:
            vertex[shape] = vertex[shape] + offset
        vertex.co += offset


def _stored_normals(mesh: Any) -> NDArray[np.float32] | None:
    """Return the normals [c, 3] of all corners if the file contained any, else None: Blender computes them."""
    if not mesh.has_custom_normals:
        return None
    flat = np.empty(len(mesh.loops) * 3, np.float32)
    mesh.corner_normals.foreach_get("vector", flat)
    return flat.reshape(-1, 3)


def repair_normals(found: list[Piece]) -> float:
    """Make the stored normals of faces agree with the windings.

    A face is contradicting if the stored normals of all its corners point to its back. Cycles renders such faces black,
    so their normals are reversed. There is one exception. If contradicting faces make up more than the share
    CONTRADICTING of a mesh's area, and the mesh encloses a negative volume, the windings are wrong: all faces of the
    mesh are flipped, and the normals of the contradicting faces are kept.

    Args:
        found: The mesh objects, as `pieces` returns them. If a mesh is flipped, the `corners` of its objects are out of
            date afterwards; call `pieces` again.

    Returns:
        The area of the contradicting faces, divided by the area of all faces (0 to 1).
    """
    wrong_area, area = 0.0, 0.0
    for mesh, piece in {piece.obj.data: piece for piece in found}.items():
        faces = Faces(piece.positions, piece.corners, piece.starts, piece.slots, np.zeros((len(piece.corners), 0)))
        areas = np.linalg.norm(area_vectors(faces), axis=1)
        area += float(areas.sum())
        normals = _stored_normals(mesh)
        if normals is None:
            continue
        wrong = _contradicting(mesh, normals, piece.starts)
        share = float(areas[wrong].sum()) / max(float(areas.sum()), 1e-30)
        wrong_area += float(areas[wrong].sum())
        if not wrong.any():
            continue
        if share > CONTRADICTING and _volume(mesh) < 0:
            flipped = np.repeat(~wrong, faces.counts)
            mesh.flip_normals()  # keeps each face's first corner and reverses the order of the others
            order = _reversed_corners(faces.starts, len(faces.corners))
            normals, flipped = normals[order], flipped[order]
        else:
            flipped = np.repeat(wrong, faces.counts)
        normals[flipped] *= -1
        mesh.normals_split_custom_set(normals.tolist())
        mesh.update()
    return wrong_area / area if area else 0.0


def _contradicting(mesh: Any, normals: NDArray[np.float32], starts: Integers) -> Booleans:
    """Return which faces [f] have stored normals [c, 3] that point to the back at all of their corners."""
    own = np.empty(len(mesh.polygons) * 3, np.float32)
    mesh.polygons.foreach_get("normal", own)
    counts = np.diff(np.append(starts, len(normals)))
    along = np.einsum("ij,ij->i", normals, np.repeat(own.reshape(-1, 3), counts, 0))
    chosen: Booleans = np.maximum.reduceat(along, starts) < 0
    return chosen


def _volume(mesh: Any) -> float:
    """Return volume / area^1.5 of a mesh in its own space; the volume is negative if the faces point inward."""
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    mesh.calc_loop_triangles()
    triangles = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    points = flat.reshape(-1, 3).astype(np.float64)[triangles.reshape(-1, 3)]
    if not len(points):
        return 0.0
    points = points - (points.min((0, 1)) + points.max((0, 1))) / 2
    crossed = np.cross(points[:, 1], points[:, 2])
    area = np.linalg.norm(np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]), axis=1).sum() / 2
    return float(np.einsum("ij,ij->i", points[:, 0], crossed).sum() / 6 / max(float(area), 1e-30) ** 1.5)


def _reversed_corners(starts: Integers, total: int) -> Integers:
    """Return, for each corner [c] after flipping all faces, its index before flipping.

    The first corner of a face stays first; the order of the others is reversed.
    """
    counts = np.diff(np.append(starts, total))
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(total) - starts[owner]
    order: Integers = starts[owner] + (counts[owner] - number) % counts[owner]
    return order
