"""Unwrap a mesh into UV charts with xatlas or, if xatlas fails, give each face its own triangle of the texture.

xatlas takes seconds for tens of thousands of faces, but minutes for noisy surfaces and for large smooth surfaces. It
crashes on some meshes (such as an icosphere of 81,920 faces). It cannot be interrupted, so it runs in a child process
with a time limit.

The UV convention is that of `distill.mesh.bake`. Axis letters: `v` vertices, `s` vertices split at seams, `m` faces.
"""

import logging
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dataset.io.paths import ROOT
from distill.mesh.arrays import FloatArray, IntArray
from distill.mesh.isosurface import TriangleMesh
from distill.mesh.xatlas_worker import NO_CHART, Arrays, from_npz, to_npz

logger = logging.getLogger(__name__)

UnwrapMethod = Literal["xatlas", "faces"]
_CELL_BORDER: Final = 1.5  # texels between the edge of a cell and its faces, so that bilinear filtering stays inside
_SHORTEST_LEG: Final = 3.0  # texels
_STDERR_TAIL: Final = 300


@dataclass(frozen=True)
class UnwrappedMesh:
    """A mesh cut into UV charts.

    Faces of zero area are in no chart; each of their corners has the UV that the same vertex has in another face.
    """

    source: IntArray  # [s] the mesh vertex of each split vertex
    faces: IntArray  # [m, 3] indices of split vertices, in the order of the faces of the mesh
    uv: FloatArray  # [s, 2], v up
    charted: NDArray[np.bool_]  # [m] whether a face is in a chart
    texture_size: int
    method: UnwrapMethod = "xatlas"


def unwrap(surface: TriangleMesh, texture_size: int, limit_s: float) -> UnwrappedMesh:
    """Cut a mesh into UV charts with xatlas and pack the charts into a square texture.

    If xatlas fails or takes too long, a warning is logged and the charts of `face_charts` are returned.

    Args:
        surface: The mesh.
        texture_size: Edge of the texture in texels.
        limit_s: Time limit for xatlas in seconds.
    """
    try:
        result = _run_xatlas(_scaled_to_face_area(surface, 100.0), surface.faces, texture_size, limit_s)
    except subprocess.TimeoutExpired:
        reason = f"did not finish in {limit_s:g} s"
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace")[-_STDERR_TAIL:].strip()
        reason = f"ended with status {error.returncode} ({tail or 'crash'})"
    else:
        return _with_all_uvs(surface, texture_size, result)
    logger.warning(
        "xatlas %s for %d faces, so each face gets its own triangle of the texture; "
        "for charts that can be painted on, allow more time or reduce the face budget",
        reason,
        len(surface.faces),
    )
    return face_charts(surface, texture_size)


def _run_xatlas(vertices: FloatArray, faces: IntArray, texture_size: int, limit_s: float) -> Arrays:
    """Run `xatlas_worker.charts` in a child process. Raises CalledProcessError or TimeoutExpired of subprocess."""
    mesh = to_npz(vertices.astype(np.float32), faces.astype(np.uint32), np.array(texture_size))
    command = [sys.executable, "-m", "distill.mesh.xatlas_worker"]
    done = subprocess.run(command, input=mesh, cwd=ROOT, capture_output=True, timeout=limit_s, check=True)
    return from_npz(done.stdout)


def _with_all_uvs(surface: TriangleMesh, texture_size: int, result: Arrays) -> UnwrappedMesh:
    """Convert the result of `xatlas_worker.charts`, and give vertices without a chart the UV of a neighbor."""
    source, faces, uv, chart = result
    source, faces, uv = source.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64)
    charted = chart != NO_CHART
    best = np.full(len(surface.vertices), -1)
    best[source[charted]] = np.flatnonzero(charted)
    uv = np.where(charted[:, None], uv, uv[best[source]])
    return UnwrappedMesh(source, faces, uv, charted[faces].all(1), texture_size)


def _scaled_to_face_area(surface: TriangleMesh, area: float) -> FloatArray:
    """Return the vertices [v, 3] scaled so that the mean area of a face is `area`.

    The tolerances of xatlas are absolute: with a mean area of 100 it does not treat small faces as degenerate.
    """
    corners = surface.vertices[surface.faces]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    scaled: FloatArray = surface.vertices * np.sqrt(2 * area / doubled.mean())
    return scaled


def face_charts(surface: TriangleMesh, texture_size: int) -> UnwrappedMesh:
    """Give each face its own triangle of the texture. This is fast for any mesh.

    The texture is divided into a square grid of cells. Each cell contains the right triangles of two faces. Neighboring
    faces of the mesh are not neighbors in the texture. The more faces there are, the smaller are the cells. If the two
    short sides of a triangle would be shorter than 3 texels, the texture is enlarged and a warning is logged.

    Args:
        surface: The mesh.
        texture_size: Smallest edge of the square texture in texels.
    """
    count = len(surface.faces)
    cells = math.ceil(math.sqrt(math.ceil(count / 2)))
    margin = _CELL_BORDER * (2 + math.sqrt(2))  # texels for borders and the gap between the triangles
    needed = 2 ** math.ceil(math.log2(cells * (_SHORTEST_LEG + margin)))  # old viewers need a power of two
    if needed > texture_size:
        logger.warning(
            "the texture has an edge of %d texels instead of %d, to give every face enough texels",
            needed,
            texture_size,
        )
        texture_size = needed
    # A right triangle in the lower left half of the cell, or the same rotated by 180 degrees in the upper right half.
    size = texture_size / cells
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) * (size - margin) + _CELL_BORDER
    halves = np.stack([corners, size - corners])  # [2, 3, 2] in texels
    cell = np.arange(count) // 2
    origin = np.stack([cell % cells, cell // cells], -1) * size
    uv = (origin[:, None] + halves[np.arange(count) % 2]) / texture_size
    return UnwrappedMesh(
        surface.faces.reshape(-1).copy(),
        np.arange(count * 3).reshape(-1, 3),
        uv.reshape(-1, 2),
        np.ones(count, np.bool_),
        texture_size,
        method="faces",
    )
