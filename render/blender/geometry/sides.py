"""Hide the back faces of single-sided materials, as viewers of glTF files do. Runs inside Blender.

Cycles draws both sides of every face. This would hide objects that viewers of glTF files show. One example is a figure
with an outline hull: an enlarged black copy around the figure, with its faces turned inward. Another example is
furniture inside a room, if the walls of the room face inward.
"""

from typing import Any, Final

import numpy as np

from render.blender.geometry.coincident import SAME_PLACE, Booleans, Faces, Floats, Integers, area_vectors, places
from render.blender.geometry.repair import Piece
from render.blender.geometry.strays import surfaces

INSIDE_OUT: Final = -0.005  # a surface is inside out if volume / area^1.5 (a cube: 0.068) is below this
VISIBLE: Final = 0.01  # if less of a material's area faces any camera, both of its sides are drawn
REMAINING: Final = 0.1  # if less of an object's projected area remains in any view, both of its sides are drawn
FLAT: Final = 0.99  # a surface is flat if the sum of its area vectors is at least this share of its area
_VARIANTS: Final = ("", "front only", "one-way")


def hide_back_faces(found: list[Piece], cameras: Floats) -> float:
    """Make back faces of single-sided materials transparent to the camera.

    A connected surface is changed depending on its shape (`surface_variants`):

    - Closed surfaces that face outward are not changed.
    - On flat surfaces, the back becomes transparent to camera rays.
    - On all other surfaces, the back becomes transparent to camera rays, and light passes from back to front. The
      camera sees objects through such a surface, and they must be lit. Cycles traces light rays backwards, from an
      object to the light, so the front becomes transparent to these rays.

    There are two exceptions. A material stays visible from both sides if almost none of its area faces any camera. All
    materials stay visible from both sides if the object would almost vanish in some view, like a banner seen from
    behind.

    Args:
        found: The objects in normalized space, as `render.blender.geometry.repair.pieces` returns them.
        cameras: Positions of all cameras [n, 3] in normalized space.

    Returns:
        The area of the changed faces, divided by the area of all faces (0 to 1).
    """
    singles = [_single_sided(piece) for piece in found]
    if not any(single.any() for single in singles):
        return 0.0
    chosen, total = [], 0.0
    remaining, projected = np.zeros(len(cameras)), np.zeros(len(cameras))
    for piece, single in zip(found, singles, strict=True):
        faces = Faces(piece.positions, piece.corners, piece.starts, piece.slots, np.zeros((len(piece.corners), 0)))
        vectors = area_vectors(faces) * (-1 if piece.mirrored else 1)
        areas = np.linalg.norm(vectors, axis=1)
        total += float(areas.sum())
        variant = np.zeros(len(areas), np.int64)
        if single.any():
            variant = np.where(single & _seen(faces, vectors, areas, cameras), surface_variants(faces, vectors), 0)
        for number, camera in enumerate(cameras):
            toward = _toward(faces, vectors, camera)
            projected[number] += np.abs(toward).sum()
            remaining[number] += np.abs(toward[(variant == 0) | (toward > 0)]).sum()
        if variant.any():
            chosen.append((piece, variant, float(areas[variant > 0].sum())))
    if (remaining < REMAINING * projected).any():
        return 0.0
    _assign_all([(piece, variant) for piece, variant, _ in chosen])
    return sum(area for _, _, area in chosen) / total if total else 0.0


def _assign_all(chosen: list[tuple[Piece, Integers]]) -> None:
    """Give the faces of objects the materials of their variants [f]. Objects that share a mesh keep sharing it."""
    shared: dict[tuple[Any, bytes], Any] = {}  # the changed mesh by the mesh before and its variants
    for piece, variant in chosen:
        key = (piece.obj.data, variant.tobytes())
        if key in shared:
            piece.obj.data = shared[key]
        else:
            _assign(piece.obj, variant)
            shared[key] = piece.obj.data


def _toward(faces: Faces, vectors: Floats, camera: Floats) -> Floats:
    """Return the projected area of each face [f] as seen from a camera at [3], negative where its back is seen."""
    rays = camera - faces.positions[faces.corners[faces.starts]]
    toward: Floats = np.einsum("ij,ij->i", rays, vectors) / np.maximum(np.linalg.norm(rays, axis=1), 1e-12)
    return toward


def _single_sided(piece: Piece) -> Booleans:
    """Return which faces [f] have a single-sided material."""
    slots = [slot.material for slot in piece.obj.material_slots] or [None]
    culled = np.array([material is not None and material.use_backface_culling for material in slots])
    chosen: Booleans = culled[np.minimum(piece.slots, len(culled) - 1)]
    return chosen


def surface_variants(faces: Faces, vectors: Floats) -> Integers:
    """Choose how to draw each face [f] if its material is single-sided.

    Args:
        faces: The object's f faces.
        vectors: Area vectors [f, 3] of the faces, as `render.blender.geometry.coincident.area_vectors` returns them.

    Returns:
        The variant of the material of each face [f]. 0: the material is unchanged. 1: the back is transparent to camera
        rays. 2: as 1, and the front is transparent to all rays other than camera rays.
    """
    size = float(np.ptp(faces.positions[faces.corners], axis=0).max()) or 1.0
    _, vertex = np.unique(places(faces.positions, SAME_PLACE * size, 0.0), return_inverse=True)
    corners, counts = vertex[faces.corners].astype(np.int64), faces.counts
    following = np.arange(1, len(corners) + 1)
    following[faces.starts + counts - 1] = faces.starts
    begin, end = corners, corners[following]
    face_label = surfaces(faces)
    label, number = np.repeat(face_label, counts), int(face_label.max()) + 1
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    _, edge = np.unique(low * (int(vertex.max()) + 1) + high, return_inverse=True)
    balance = np.bincount(edge, np.sign(end - begin))  # 0 where equally many faces traverse an edge in each direction
    sides = np.bincount(label, minlength=number).astype(np.float64)
    unbalanced = np.bincount(label, (balance[edge] != 0).astype(np.float64), number) / sides
    areas = np.bincount(face_label, np.linalg.norm(vectors, axis=1), number)
    volume = _volumes(faces, vectors, face_label, number) / np.maximum(areas, 1e-30) ** 1.5
    total = np.stack([np.bincount(face_label, vectors[:, axis], number) for axis in range(3)], 1)
    flat = np.linalg.norm(total, axis=1) > FLAT * areas
    closed = (unbalanced == 0) & (volume >= INSIDE_OUT)
    variant = np.where(closed, 0, np.where(flat, 1, 2))
    return variant[face_label].astype(np.int64)


def _volumes(faces: Faces, vectors: Floats, label: Integers, number: int) -> Floats:
    """Return the volume [number] that each surface encloses about its center, negative where it faces inward."""
    points = faces.positions[faces.corners]
    centers = np.add.reduceat(points, faces.starts, 0) / faces.counts[:, None].astype(np.float64)
    members = np.maximum(np.bincount(label, minlength=number).astype(np.float64), 1.0)
    middle: Floats = np.stack([np.bincount(label, centers[:, k], number) / members for k in range(3)], 1)
    parts = np.einsum("ij,ij->i", centers - middle[label], vectors) / 3
    return np.bincount(label, parts, number).astype(np.float64)


def _seen(faces: Faces, vectors: Floats, areas: Floats, cameras: Floats) -> Booleans:
    """Return which faces [f] have a material with at least VISIBLE of its area turned toward some camera."""
    seen = np.zeros(len(areas), bool)
    first = faces.positions[faces.corners[faces.starts]]
    for slot in np.unique(faces.look).tolist():
        chosen = faces.look == slot
        for camera in cameras:
            turned = np.einsum("ij,ij->i", camera - first[chosen], vectors[chosen]) > 0
            if areas[chosen][turned].sum() >= VISIBLE * areas[chosen].sum():
                seen |= chosen
                break
    return seen


def _assign(obj: Any, variant: Integers) -> None:
    """Give the faces [f] of an object the materials of their variants. A mesh with other users is copied first."""
    if obj.data.users > 1:
        obj.data = obj.data.copy()
    polygons = obj.data.polygons
    slots = np.empty(len(polygons), np.int32)
    polygons.foreach_get("material_index", slots)
    before = np.minimum(slots, len(obj.material_slots) - 1)
    for slot, kind in sorted(set(zip(before.tolist(), variant.tolist(), strict=True))):
        if kind == 0:
            continue
        obj.data.materials.append(_variant(obj.material_slots[slot].material, kind))
        slots[(before == slot) & (variant == kind)] = len(obj.data.materials) - 1
    polygons.foreach_set("material_index", slots)
    obj.data.update()


def _variant(material: Any, kind: int) -> Any:
    """Return the material's variant 1 or 2, as `surface_variants` describes it."""
    variant = _VARIANTS[kind]
    if variant in material:
        return material[variant]
    copy = material.copy()
    copy.name = f"{material.name[:40]} {variant}"
    material[variant] = copy  # names are too short to tell long ones apart
    if not copy.use_nodes:
        copy.use_nodes = True
    tree = copy.node_tree
    output = tree.get_output_node("CYCLES") or tree.get_output_node("ALL")
    if output is None or not output.inputs["Surface"].links:
        return copy
    nodes, links = tree.nodes, tree.links
    surface = output.inputs["Surface"].links[0].from_socket
    geometry, path, both = (
        nodes.new("ShaderNodeNewGeometry"),
        nodes.new("ShaderNodeLightPath"),
        nodes.new("ShaderNodeMath"),
    )
    # Transparent where back and camera are both 1 (kind 1), or where they are equal (kind 2).
    both.operation = "MULTIPLY" if kind == 1 else "COMPARE"
    links.new(geometry.outputs["Backfacing"], both.inputs[0])
    links.new(path.outputs["Is Camera Ray"], both.inputs[1])
    both.inputs[2].default_value = 0.5  # COMPARE's tolerance
    mix, clear = nodes.new("ShaderNodeMixShader"), nodes.new("ShaderNodeBsdfTransparent")
    links.new(both.outputs[0], mix.inputs["Fac"])
    links.new(surface, mix.inputs[1])
    links.new(clear.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
    return copy
