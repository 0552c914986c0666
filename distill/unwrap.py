"""UV charts of a surface: xatlas in a child process with a time limit, or else a cell of the texture for each face.

xatlas takes seconds for tens of thousands of faces; noise and large smooth parts can make that minutes, and nothing
inside the process can stop it. `python -m distill.unwrap` reads arrays from its input and writes them to its output.

UV convention: distill.texture's. Letters: `v` vertices, `s` vertices split at seams, `m` faces.
"""

import io
import logging
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xatlas
from numpy.typing import NDArray

from distill.manifold import Float, Int
from distill.surface import Surface

logger = logging.getLogger(__name__)

Charts = Literal["xatlas", "faces"]
PADDING_TEXELS: Final = 2  # between charts
_NO_ATLAS: Final = 2**32 - 1  # xatlas's mark of a vertex without a chart
_ROOT: Final = Path(__file__).resolve().parents[1]
_CELL_BORDER: Final = 1.5  # texels from a cell's edge to its faces, so that bilinear filtering stays inside
_STDERR_TAIL: Final = 300


@dataclass(frozen=True)
class Unwrapped:
    """A surface cut into UV charts. Corners of faces without area lie in no chart, and take a neighbour's UV."""

    source: Int  # [s] the surface's vertex that each split vertex copies
    faces: Int  # [m, 3] over split vertices, in the surface's order
    uv: Float  # [s, 2], v up
    charted: NDArray[np.bool_]  # [m] faces that lie in a chart
    made_by: Charts = "xatlas"


def unwrap(surface: Surface, texture_size: int, limit_s: float) -> Unwrapped:
    """UV charts packed into a square texture; after `limit_s` seconds `face_charts` instead, announced."""
    try:
        found = _in_child(_with_mean_face(surface, 100.0), surface.faces, texture_size, limit_s)
    except subprocess.TimeoutExpired:
        reason = f"not done after {limit_s:g} s"
    except subprocess.CalledProcessError as error:
        reason = f"failed with status {error.returncode}: {error.stderr.decode(errors='replace')[-_STDERR_TAIL:]}"
    else:
        return _joined(surface, *found)
    logger.warning(
        "xatlas %s with %d faces: each face gets a cell of the texture instead; "
        "give it more time, or a smaller face budget, for charts that can be painted on",
        reason,
        len(surface.faces),
    )
    return face_charts(surface, texture_size)


def _in_child(vertices: Float, faces: Int, texture_size: int, limit_s: float) -> tuple[NDArray[np.generic], ...]:
    """`_atlas` in a process that ends with the limit. Raises subprocess's errors."""
    asked = _packed(vertices.astype(np.float32), faces.astype(np.uint32), np.array(texture_size))
    command = [sys.executable, "-m", "distill.unwrap"]
    done = subprocess.run(command, input=asked, cwd=_ROOT, capture_output=True, timeout=limit_s, check=True)
    return _unpacked(done.stdout)


def _packed(*arrays: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def _unpacked(data: bytes) -> tuple[NDArray[np.generic], ...]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return tuple(file[f"arr_{i}"] for i in range(len(file.files)))


def _atlas(
    vertices: NDArray[np.float32], faces: NDArray[np.uint32], texture_size: int
) -> tuple[NDArray[np.generic], ...]:
    """xatlas's own answer: source [s], faces [m, 3], uv [s, 2], chart of each split vertex [s]."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = texture_size, PADDING_TEXELS, True
    atlas.generate(xatlas.ChartOptions(), options)
    source, split, uv = (np.asarray(part) for part in atlas[0])
    return source, split, uv, np.asarray(atlas.get_mesh_vertex_assignment(0)[0])


def _joined(
    surface: Surface,
    source: NDArray[np.generic],
    faces: NDArray[np.generic],
    uv: NDArray[np.generic],
    chart: NDArray[np.generic],
) -> Unwrapped:
    """The answer with a UV for every vertex."""
    source, faces, uv = source.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64)
    charted = chart != _NO_ATLAS
    best = np.full(len(surface.vertices), -1)
    best[source[charted]] = np.flatnonzero(charted)
    uv = np.where(charted[:, None], uv, uv[best[source]])
    return Unwrapped(source, faces, uv, charted[faces].all(1))


def _with_mean_face(surface: Surface, area: float) -> Float:
    """The vertices [v, 3] scaled so that the mean area of a face is `area`.

    xatlas's tolerances are absolute: at a mean face of 100 square units it does not take small faces for empty ones.
    """
    corners = surface.vertices[surface.faces]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    scaled: Float = surface.vertices * np.sqrt(2 * area / doubled.mean())
    return scaled


def face_charts(surface: Surface, texture_size: int) -> Unwrapped:
    """Two faces in every cell of a square grid, one in each half: as quick for any surface, and never overlapping.

    No neighbours in space are neighbours in the texture, and cells shrink as faces grow in number; a viewer shows it
    well as long as a cell has some texels (`smallest_texture`).
    """
    count = len(surface.faces)
    cells = _cells_a_side(count)
    cell = np.arange(count) // 2
    border, size = _CELL_BORDER / texture_size, 1.0 / cells
    # A right triangle in the lower left half of the cell, or turned by 180 degrees in the upper right one. The legs
    # are shorter than the cell by the borders and by what keeps the two slanted sides apart.
    leg = size - border * (2 + math.sqrt(2) / 2)
    corners = np.array([[0.0, 0.0], [leg, 0.0], [0.0, leg]]) + border
    both = np.stack([corners, size - corners])  # [2, 3, 2]
    origin = np.stack([cell % cells, cell // cells], -1) * size
    uv = origin[:, None] + both[np.arange(count) % 2]
    return Unwrapped(
        surface.faces.reshape(-1).copy(),
        np.arange(count * 3).reshape(-1, 3),
        uv.reshape(-1, 2),
        np.ones(count, np.bool_),
        made_by="faces",
    )


def _cells_a_side(faces: int) -> int:
    return math.ceil(math.sqrt(math.ceil(faces / 2)))


def smallest_texture(faces: int) -> int:
    """Edge in texels from which `face_charts` has room for this many faces: legs of two texels."""
    return math.ceil(_cells_a_side(faces) * (2 + _CELL_BORDER * (2 + math.sqrt(2) / 2)))


def main() -> None:
    vertices, faces, texture_size = _unpacked(sys.stdin.buffer.read())
    found = _atlas(vertices.astype(np.float32), faces.astype(np.uint32), int(texture_size))
    sys.stdout.buffer.write(_packed(*found))


if __name__ == "__main__":
    main()
