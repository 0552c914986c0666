"""The layout `zero123`: the folder that the data loader of Zero123's training code reads (`ObjaverseData`).

Each object has a folder with `000.png`, `001.png`, ... (RGBA) and, for each image, an .npy file with the same name. It
contains the matrix [3, 4] that maps world points to camera coordinates with OpenGL's axes (x right, y up, z backwards),
as `get_3x4_RT_matrix_from_blender` of Zero123's rendering script computes it. `valid_paths.json` lists the folders.
"""

from collections.abc import Sequence
from typing import Final

from dataset.camera import world_to_camera
from dataset.export.layout import Files, Layout, ViewKeys, encode_npy
from dataset.images.png import encode_png
from dataset.io.files import json_bytes
from dataset.reading.rendered_object import RenderedObject

# The loader's default is `total_view=12`: it uses the files 000 to 011. The views with random elevations come first,
# spread over all azimuths, so that these 12 contain no two of the fixed elevation.
_ORDER: Final = (0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15)
VIEWS: Final[ViewKeys] = tuple(("random", i) for i in _ORDER) + tuple(("fixed", i) for i in _ORDER)


def _object_files(item: RenderedObject) -> Files:
    files: dict[str, bytes] = {}
    for number, (image, matrix) in enumerate(zip(item.images, world_to_camera(item.c2w), strict=True)):
        files[f"{item.uid}/{number:03d}.png"] = encode_png(image)
        files[f"{item.uid}/{number:03d}.npy"] = encode_npy(matrix)
    return files


def _set_files(uids: Sequence[str]) -> Files:
    return {"valid_paths.json": json_bytes(list(uids))}


ZERO123: Final = Layout(
    "zero123",
    VIEWS,
    ("{uid}",),
    _object_files,
    _set_files,
    notice=(
        "each object has 32 views; Zero123's loader uses the first 12 unless total_view is 32, and the last 1 % of "
        "valid_paths.json for validation"
    ),
)
