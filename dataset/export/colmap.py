"""The layout `colmap`: one folder per object with a COLMAP text model, which 3D Gaussian Splatting and others read.

`sparse/0/` has `cameras.txt`, `images.txt` and `points3D.txt` (https://colmap.github.io/format.html), `images/` the
views on white, and `masks/` their alpha, named as COLMAP expects (NAME.png.png). World-to-camera rotations are unit
quaternions (w, x, y, z), cameras have OpenCV's axes, and pixel coordinates start at the corner of the image, as in
`dataset.camera`. The points lie on the visual hull, as a start for 3D Gaussians; they are observed in no image.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.camera import convert_c2w, world_to_camera
from dataset.export.layout import Files, Layout, no_files
from dataset.export.visual_hull import hull_points
from dataset.images.png import encode_png
from dataset.images.prepare import composite_white
from dataset.reading.rendered_object import RenderedObject
from dataset.reading.shard_set import key_name


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit quaternion (w, x, y, z) of a rotation matrix [3, 3], with w >= 0.

    The eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000) is exact for rotation matrices
    and needs no case distinction.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = (
        np.array(
            [
                [xx + yy + zz, zy - yz, xz - zx, yx - xy],
                [zy - yz, xx - yy - zz, yx + xy, xz + zx],
                [xz - zx, yx + xy, yy - xx - zz, zy + yz],
                [yx - xy, xz + zx, zy + yz, zz - xx - yy],
            ]
        )
        / 3
    )
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return -vector if vector[0] < 0 else vector


def _object_files(item: RenderedObject) -> Files:
    model = f"{item.uid}/sparse/0"
    files = {
        f"{model}/cameras.txt": _text(_cameras(item)),
        f"{model}/images.txt": _text(_images(item)),
        f"{model}/points3D.txt": _text(_points(item)),
    }
    for key, image, on_white in zip(item.keys, item.images, composite_white(item.images), strict=True):
        name = f"{key_name(key)}.png"
        files[f"{item.uid}/images/{name}"] = encode_png(np.rint(on_white * 255).astype(np.uint8))
        files[f"{item.uid}/masks/{name}.png"] = encode_png(image[..., 3])
    return files


def _cameras(item: RenderedObject) -> Iterator[str]:
    """Yield one line per view: each view has a camera of its own, so that intrinsics may differ."""
    for number, view in enumerate(item.views, start=1):
        (focal_x, _, center_x), (_, focal_y, center_y), _ = view.K
        yield f"{number} PINHOLE {item.size} {item.size} {focal_x!r} {focal_y!r} {center_x!r} {center_y!r}"


def _images(item: RenderedObject) -> Iterator[str]:
    """Yield two lines per view: its pose, and an empty line instead of the points that are seen in it."""
    matrices = world_to_camera(convert_c2w(item.c2w, "blender", "opencv"))
    for number, matrix in enumerate(matrices, start=1):
        numbers = [float(value) for value in (*quaternion(matrix[:, :3]), *matrix[:, 3])]
        yield f"{number} {' '.join(map(repr, numbers))} {number} {key_name(item.keys[number - 1])}.png"
        yield ""


def _points(item: RenderedObject) -> Iterator[str]:
    """Yield one line per point: number, position, color, and 0 as its reprojection error."""
    for number, (point, color) in enumerate(zip(*hull_points(item), strict=True), start=1):
        yield f"{number} {' '.join(f'{value:.6f}' for value in point)} {' '.join(map(str, color))} 0"


def _text(lines: Iterator[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


COLMAP: Final = Layout("colmap", None, ("{uid}",), _object_files, no_files)
