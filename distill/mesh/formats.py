"""Encode meshes and point clouds: textured meshes as GLB or OBJ (with MTL and PNG), colored meshes and points as PLY.

Meshes are in world axes (Blender: z up, the front faces -y). glTF and OBJ are y up: (x, y, z) is stored as (x, z, -y),
so the front faces +z in a viewer. The PLY format does not define an up axis. PLY files are written with z up, since
Blender and other programs import them without rotation. The unit of length is the meter.

Axis letters: `v` vertices, `s` vertices split at texture seams, `m` faces, `n` points, `t` texels per side.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from distill.mesh.arrays import FloatArray, UInt8
from distill.mesh.isosurface import TriangleMesh
from distill.mesh.uv_unwrap import UnwrappedMesh

ROUGHNESS: Final = 0.9
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963  # glTF's bufferView.target
_POINT: Final = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [
    (name, "u1") for name in ("red", "green", "blue")
]
_PLY_TYPE: Final = {"<f4": "float", "u1": "uchar"}


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with vertex normals, UV charts and a texture."""

    surface: TriangleMesh
    normals: FloatArray  # [v, 3], unit length
    charts: UnwrappedMesh
    texture: UInt8  # [t, t, 3], sRGB


def to_y_up(vectors: FloatArray) -> FloatArray:
    """Rotate vectors [..., 3] from Blender's axes (z up) to glTF's and OBJ's (y up): (x, y, z) -> (x, z, -y)."""
    return np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], -1)


def glb(textured: TexturedMesh) -> bytes:
    """Return the bytes of a GLB file: one mesh with smooth normals and a PBR material with an embedded PNG texture."""
    surface, charts = textured.surface, textured.charts
    material = PBRMaterial(  # type: ignore[no-untyped-call]
        name="baked",
        baseColorTexture=Image.open(io.BytesIO(png(textured.texture))),  # a PNG is embedded as it is
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        doubleSided=False,
    )
    mesh = trimesh.Trimesh(
        vertices=to_y_up(surface.vertices)[charts.source],
        faces=charts.faces,
        vertex_normals=to_y_up(textured.normals)[charts.source],
        visual=TextureVisuals(uv=charts.uv, material=material),  # type: ignore[no-untyped-call]
        process=False,
    )
    scene = trimesh.Scene(mesh)
    data: bytes = scene.export(  # type: ignore[no-untyped-call]
        file_type="glb", include_normals=True, tree_postprocessor=_set_buffer_targets
    )
    return data


def _set_buffer_targets(tree: dict[str, Any]) -> None:
    """Set the `target` of each buffer view: glTF recommends it, but trimesh omits it."""
    for primitive in (primitive for mesh in tree["meshes"] for primitive in mesh["primitives"]):
        for accessor in primitive["attributes"].values():
            tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]["target"] = _VERTEX_BUFFER
        tree["bufferViews"][tree["accessors"][primitive["indices"]]["bufferView"]]["target"] = _INDEX_BUFFER


def png(texture: UInt8) -> bytes:
    """Return the bytes of a PNG file of an image [h, w, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, format="PNG")
    return buffer.getvalue()


def obj(textured: TexturedMesh, material_file: str) -> bytes:
    """Return the bytes of an OBJ file.

    Args:
        textured: The mesh.
        material_file: Name of the material file (MTL), which must be in the same folder as the OBJ file.
    """
    surface, charts = textured.surface, textured.charts
    corners = np.stack([charts.source[charts.faces], charts.faces, charts.source[charts.faces]], -1) + 1
    lines = [
        f"mtllib {material_file}",
        "o mesh",
        *_rows("v {:.6f} {:.6f} {:.6f}", to_y_up(surface.vertices)),
        *_rows("vt {:.6f} {:.6f}", charts.uv),
        *_rows("vn {:.4f} {:.4f} {:.4f}", to_y_up(textured.normals)),
        "usemtl baked",
        "s 1",
        *_rows("f {}/{}/{} {}/{}/{} {}/{}/{}", corners.reshape(-1, 9)),
    ]
    return ("\n".join(lines) + "\n").encode()


def _rows(pattern: str, values: NDArray[Any]) -> list[str]:
    return [pattern.format(*row) for row in values.tolist()]


def mtl(texture_file: str) -> bytes:
    """Return the bytes of the material file (MTL) of an OBJ file. In the MTL file, Pr is roughness and Pm is metalness.

    Args:
        texture_file: Name of the PNG file of the texture, which must be in the same folder as the material file.
    """
    return (
        f"newmtl baked\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nPr {ROUGHNESS}\nPm 0\nillum 1\nmap_Kd {texture_file}\n".encode()
    )


def ply(surface: TriangleMesh, normals: FloatArray, colors: UInt8) -> bytes:
    """Return the bytes of a binary PLY file of a mesh with vertex colors.

    Args:
        surface: The mesh, with v vertices.
        normals: Unit normals [v, 3] of the vertices.
        colors: sRGB colors [v, 3] of the vertices.
    """
    faces = np.empty(len(surface.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, surface.faces
    lines = [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    return _ply(surface.vertices, normals, colors, lines) + faces.tobytes()


def points_ply(points: FloatArray, normals: FloatArray, colors: UInt8) -> bytes:
    """Return the bytes of a binary PLY file of a point cloud.

    Args:
        points: Positions [n, 3] of the points.
        normals: Unit normals [n, 3] of the points.
        colors: sRGB colors [n, 3] of the points.
    """
    return _ply(points, normals, colors, [])


def _ply(points: FloatArray, normals: FloatArray, colors: UInt8, elements: list[str]) -> bytes:
    """Return the header and the vertices of a PLY file. `elements` are the header lines of all other elements."""
    rows = np.empty(len(points), _POINT)
    for names, values in (
        (("x", "y", "z"), points),
        (("nx", "ny", "nz"), normals),
        (("red", "green", "blue"), colors),
    ):
        for axis, name in enumerate(names):
            rows[name] = values[:, axis]
    properties = [f"property {_PLY_TYPE[kind]} {name}" for name, kind in _POINT]
    header = [
        *("ply", "format binary_little_endian 1.0", "comment z up, the front faces -y, metres"),
        *(f"element vertex {len(points)}", *properties, *elements, "end_header"),
    ]
    return ("\n".join(header) + "\n").encode() + rows.tobytes()
