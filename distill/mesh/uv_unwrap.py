"""UV charts of a surface: xatlas in a child process with a time limit, or else a cell of the texture for each face.

xatlas takes seconds for tens of thousands of faces; noise and large smooth parts can make that minutes, nothing inside
the process can stop it, and some surfaces crash it (an icosphere of 81,920 faces does).

UV convention: distill.mesh.bake's. Letters: `v` vertices, `s` vertices split at seams, `m` faces.
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
from distill.mesh.isosurface import Surface
from distill.mesh.manifold import Float, Int
from distill.mesh.xatlas_worker import NO_CHART, Arrays, from_npz, to_npz

logger = logging.getLogger(__name__)

UnwrapMethod = Literal["xatlas", "faces"]
_CELL_BORDER: Final = 1.5  # texels from a cell's edge to its faces, so that bilinear filtering stays inside
_SHORTEST_LEG: Final = 3.0  # texels
_STDERR_TAIL: Final = 300


@dataclass(frozen=True)
class Unwrapped:
    """A surface cut into UV charts. Corners of faces without area lie in no chart, and take a neighbor's UV."""

    source: Int  # [s] the surface's vertex that each split vertex copies
    faces: Int  # [m, 3] over split vertices, in the surface's order
    uv: Float  # [s, 2], v up
    charted: NDArray[np.bool_]  # [m] faces that lie in a chart
    texture_size: int
    made_by: UnwrapMethod = "xatlas"


def unwrap(surface: Surface, texture_size: int, limit_s: float) -> Unwrapped:
    """UV charts packed into a square texture; after `limit_s` seconds `face_charts` instead, with a warning."""
    try:
        found = _in_child(_with_mean_face(surface, 100.0), surface.faces, texture_size, limit_s)
    except subprocess.TimeoutExpired:
        reason = f"not done after {limit_s:g} s"
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace")[-_STDERR_TAIL:].strip()
        reason = f"ended with status {error.returncode}: {tail or 'it crashed'};"
    else:
        return _joined(surface, texture_size, found)
    logger.warning(
        "xatlas %s with %d faces: each face gets a cell of the texture instead; "
        "give it more time, or a smaller face budget, for charts that can be painted on",
        reason,
        len(surface.faces),
    )
    return face_charts(surface, texture_size)


def _in_child(vertices: Float, faces: Int, texture_size: int, limit_s: float) -> Arrays:
    """`xatlas_worker.charts` in a process that ends with the limit. Raises subprocess's errors."""
    asked = to_npz(vertices.astype(np.float32), faces.astype(np.uint32), np.array(texture_size))
    command = [sys.executable, "-m", "distill.mesh.xatlas_worker"]
    done = subprocess.run(command, input=asked, cwd=ROOT, capture_output=True, timeout=limit_s, check=True)
    return from_npz(done.stdout)


def _joined(surface: Surface, texture_size: int, found: Arrays) -> Unwrapped:
    """The answer of `atlas.charts` with a UV for every vertex."""
    source, faces, uv, chart = found
    source, faces, uv = source.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64)
    charted = chart != NO_CHART
    best = np.full(len(surface.vertices), -1)
    best[source[charted]] = np.flatnonzero(charted)
    uv = np.where(charted[:, None], uv, uv[best[source]])
    return Unwrapped(source, faces, uv, charted[faces].all(1), texture_size)


def _with_mean_face(surface: Surface, area: float) -> Float:
    """The vertices [v, 3] scaled so that the mean area of a face is `area`.

    xatlas's tolerances are absolute: at a mean face of 100 square units it does not take small faces for empty ones.
    """
    corners = surface.vertices[surface.faces]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    scaled: Float = surface.vertices * np.sqrt(2 * area / doubled.mean())
    return scaled


def face_charts(surface: Surface, texture_size: int) -> Unwrapped:
    """Put two faces in every cell of a square grid, one in each half: equally fast for any surface, without overlap.

    Neighbors on the surface are not neighbors in the texture. Cells shrink as the number of faces grows; the texture is
    enlarged (with a warning) where legs would be shorter than _SHORTEST_LEG texels.
    """
    count = len(surface.faces)
    cells = math.ceil(math.sqrt(math.ceil(count / 2)))
    lost = _CELL_BORDER * (2 + math.sqrt(2))  # of a cell's edge: borders, and what keeps the slanted sides apart
    needed = 2 ** math.ceil(math.log2(cells * (_SHORTEST_LEG + lost)))  # a power of two is kind to old viewers
    if needed > texture_size:
        logger.warning(
            "the texture has %d texels a side instead of %d, so that each face gets some", needed, texture_size
        )
        texture_size = needed
    # A right triangle in the lower left half of the cell, or the same turned by 180 degrees in the upper right one.
    size = texture_size / cells
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) * (size - lost) + _CELL_BORDER
    halves = np.stack([corners, size - corners])  # [2, 3, 2] in texels
    cell = np.arange(count) // 2
    origin = np.stack([cell % cells, cell // cells], -1) * size
    uv = (origin[:, None] + halves[np.arange(count) % 2]) / texture_size
    return Unwrapped(
        surface.faces.reshape(-1).copy(),
        np.arange(count * 3).reshape(-1, 3),
        uv.reshape(-1, 2),
        np.ones(count, np.bool_),
        texture_size,
        made_by="faces",
    )
