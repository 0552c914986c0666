"""The layout `nerf`: one folder per object with `transforms.json`, which nerfstudio and instant-ngp read.

The format is described at https://docs.nerf.studio/quickstart/data_conventions.html and in instant-ngp's
docs/nerf_dataset_tips.md. Camera-to-world matrices use OpenGL's camera axes (x right, y up, z backwards) in a world
whose z axis points up. This is the "blender" convention of `dataset.camera`, so the matrices are stored unchanged.
"""

from typing import Any, Final

from dataset.export.layout import Files, Layout, no_files
from dataset.format.schema import View
from dataset.images.png import encode_png
from dataset.io.files import json_bytes
from dataset.reading.rendered_object import RenderedObject
from dataset.reading.shard_set import key_name

HELD_OUT_EVERY: Final = 8  # as in nerfstudio and in 3D Gaussian Splatting
# instant-ngp scales and shifts positions into its scene, the cube [0, 1]^3; objects are in [-0.5, 0.5]^3.
_NGP_SCALE: Final = 0.9
_NGP_OFFSET: Final = 0.5


def transforms(item: RenderedObject) -> dict[str, Any]:
    """Return the content of `transforms.json` for an object with `f` views.

    Every view has its own intrinsics. Every eighth view is in `test_filenames` and `val_filenames`, the others are in
    `train_filenames`; instant-ngp ignores these lists and uses all views.
    """
    names = [f"images/{key_name(key)}.png" for key in item.keys]
    held_out = names[::HELD_OUT_EVERY]
    return {
        "camera_model": "PINHOLE",
        "aabb_scale": 1,
        "scale": _NGP_SCALE,
        "offset": [_NGP_OFFSET] * 3,
        "frames": [_frame(name, view, item.size) for name, view in zip(names, item.views, strict=True)],
        "train_filenames": [name for name in names if name not in held_out],
        "val_filenames": held_out,
        "test_filenames": held_out,
    }


def _frame(name: str, view: View, size: int) -> dict[str, Any]:
    (focal_x, _, center_x), (_, focal_y, center_y), _ = view.K
    return {
        "file_path": name,
        "transform_matrix": [list(row) for row in view.c2w],
        "w": size,
        "h": size,
        "fl_x": focal_x,
        "fl_y": focal_y,
        "cx": center_x,
        "cy": center_y,
    }


def _object_files(item: RenderedObject) -> Files:
    images = {
        f"{item.uid}/images/{key_name(key)}.png": encode_png(image)
        for key, image in zip(item.keys, item.images, strict=True)
    }
    return {**images, f"{item.uid}/transforms.json": json_bytes(transforms(item))}


NERF: Final = Layout("nerf", None, ("{uid}",), _object_files, no_files)
