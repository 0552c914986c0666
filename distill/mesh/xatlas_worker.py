"""xatlas as a process of its own: `python -m distill.mesh.xatlas_worker` reads a mesh from its input and writes its UV
charts.

Imports little, so that the process starts in a moment. Arrays are passed in both directions as .npz archives.
"""

import io
import sys
from typing import Any, Final

import numpy as np
import xatlas
from numpy.typing import NDArray

Arrays = tuple[NDArray[Any], ...]

PADDING_TEXELS: Final = 2  # between charts
NO_CHART: Final = 2**32 - 1  # xatlas's mark of a vertex without a chart


def charts(vertices: NDArray[np.float32], faces: NDArray[np.uint32], texture_size: int) -> Arrays:
    """The vertex [s] that each split vertex copies, faces [m, 3] over those, uv [s, 2] with v up, chart [s]."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = texture_size, PADDING_TEXELS, True
    atlas.generate(xatlas.ChartOptions(), options)
    return *atlas[0], atlas.get_mesh_vertex_assignment(0)[0]


def to_npz(*arrays: NDArray[Any]) -> bytes:
    """Arrays as the bytes of an archive."""
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def from_npz(data: bytes) -> Arrays:
    """The arrays of an archive written by `to_npz`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return tuple(file[f"arr_{i}"] for i in range(len(file.files)))


def main() -> None:
    vertices, faces, texture_size = from_npz(sys.stdin.buffer.read())
    sys.stdout.buffer.write(to_npz(*charts(vertices, faces, int(texture_size))))


if __name__ == "__main__":
    main()
