"""The layout `syncdreamer`: the folders that the data loader of SyncDreamer's training code reads.

`target/UID/000.png` ... `015.png` are the views at an elevation of 30 degrees, `input/UID/000.png` ... `015.png` those
at random elevations. View `i` has the azimuth 22.5 * i degrees, counted from +x towards +y, so view 0 is our view 4.
`input/UID/meta.pkl` is a pickle of `[K, azimuths, elevations, distances, cam_poses]`: float32 [3, 3], radians [16],
radians [16], [16], and world-to-camera matrices [16, 3, 4] with OpenCV's axes. `uid_set.pkl` is a pickled list of uids.
Both are defined by SyncDreamer's code (`blender_script.py`, `ldm/data/sync_dreamer.py`), which reads only pickles.
"""

import pickle
from collections.abc import Sequence
from typing import Final

import numpy as np

from dataset.camera import convert_c2w, world_to_camera
from dataset.export.layout import Files, Layout, ViewKeys
from dataset.format.schema import VIEWS_PER_SET
from dataset.images.png import encode_png
from dataset.reading.rendered_object import RenderedObject

_FIRST: Final = VIEWS_PER_SET // 4  # our azimuth 90, which is +x
VIEWS: Final[ViewKeys] = tuple(
    (view_set, (_FIRST + i) % VIEWS_PER_SET) for view_set in ("fixed", "random") for i in range(VIEWS_PER_SET)
)
_PROTOCOL: Final = 4


def _object_files(item: RenderedObject) -> Files:
    targets, inputs = item.images[:VIEWS_PER_SET], item.images[VIEWS_PER_SET:]
    files = {f"target/{item.uid}/{i:03d}.png": encode_png(image) for i, image in enumerate(targets)}
    files |= {f"input/{item.uid}/{i:03d}.png": encode_png(image) for i, image in enumerate(inputs)}
    return {**files, f"input/{item.uid}/meta.pkl": _meta(item)}


def _meta(item: RenderedObject) -> bytes:
    """Return the content of `meta.pkl`, which describes the cameras of the input views."""
    views = item.views[VIEWS_PER_SET:]
    elevations = np.deg2rad([view.elevation_deg for view in views])
    azimuths = np.deg2rad([(view.azimuth_deg - 90) % 360 for view in views]).astype(np.float32)
    distances = np.array([view.distance for view in views])
    poses = world_to_camera(convert_c2w(item.c2w[VIEWS_PER_SET:], "blender", "opencv"))
    matrix = item.K[VIEWS_PER_SET].astype(np.float32)
    return pickle.dumps([matrix, azimuths, elevations, distances, poses], protocol=_PROTOCOL)


def _set_files(uids: Sequence[str]) -> Files:
    return {"uid_set.pkl": pickle.dumps(list(uids), protocol=_PROTOCOL)}


SYNCDREAMER: Final = Layout(
    "syncdreamer",
    VIEWS,
    ("target/{uid}", "input/{uid}"),
    _object_files,
    _set_files,
    notice=(
        "this layout contains pickles (meta.pkl, uid_set.pkl), because SyncDreamer's loader reads nothing else; "
        "unpickle only files that you trust"
    ),
)
