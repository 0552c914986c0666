"""Run xatlas in a child process: `python -m distill.mesh.xatlas_worker`.

The process reads a mesh from stdin and writes its UV charts to stdout. Arrays are passed in both
directions as .npz archives. This module imports little, so the process starts quickly.
"""

import io
import sys
from typing import Any, Final

import numpy as np
import xatlas
from numpy.typing import NDArray

Arrays = tuple[NDArray[Any], ...]

PADDING_TEXELS: Final = 2  # between charts
NO_CHART: Final = 2**32 - 1  # chart number that xatlas gives to vertices without a chart


def charts(vertices: NDArray[np.float32], faces: NDArray[np.uint32], texture_size: int) -> Arrays:
    """Unwrap a mesh with xatlas. A vertex on the border of several UV charts is split into one vertex per chart.

    Args:
        vertices: Positions [v, 3].
        faces: Vertex indices [m, 3].
        texture_size: Edge of the square texture in texels for which the charts are packed.

    Returns:
        Four arrays: the original vertex of each split vertex [s], the faces as indices of split vertices [m, 3], the UV
        of each split vertex [s, 2] (v up), and the index of each split vertex's chart [s], NO_CHART if there is none.
    """
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = texture_size, PADDING_TEXELS, True
    atlas.generate(xatlas.ChartOptions(), options)
    return *atlas[0], atlas.get_mesh_vertex_assignment(0)[0]


def to_npz(*arrays: NDArray[Any]) -> bytes:
    """Return the bytes of an .npz archive of arrays of any shape."""
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def from_npz(data: bytes) -> Arrays:
    """Return the arrays in `data`, the bytes of an .npz archive written by `to_npz`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return tuple(file[f"arr_{i}"] for i in range(len(file.files)))


def main() -> None:
    """Read a mesh from stdin, unwrap it with `charts` and write the result to stdout."""
    vertices, faces, texture_size = from_npz(sys.stdin.buffer.read())
    sys.stdout.buffer.write(to_npz(*charts(vertices, faces, int(texture_size))))


if __name__ == "__main__":
    main()
