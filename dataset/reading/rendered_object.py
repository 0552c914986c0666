"""Read an object of a shard set: the rendered images, the cameras, and the normalization of the 3D model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dataset.camera import fov_deg
from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS, Normalization, View, ViewKey
from dataset.images.prepare import composite_white
from dataset.reading.shard_set import ShardSet, check_has_views, key_name

Place = tuple[int, int]  # the shard of an object, and its sample in the shard


@dataclass(frozen=True)
class RenderedObject:
    """A rendered object: the images and cameras of `f` views, and the normalization of the 3D model."""

    uid: str
    images: NDArray[np.uint8]  # [f, h, w, 4], straight alpha
    views: tuple[View, ...]  # the camera of each image
    keys: tuple[ViewKey, ...]  # view set and index of each image
    normalization: Normalization

    @property
    def size(self) -> int:
        """Side length of the images in pixels."""
        return self.images.shape[1]

    @cached_property
    def on_white(self) -> NDArray[np.float32]:
        """The images of the `f` views composited on white, float32 [f, h, w, 3] in [0, 1]."""
        return composite_white(self.images)

    @property
    def c2w(self) -> NDArray[np.float64]:
        """Camera-to-world matrices [f, 4, 4] of the `f` views, in the "blender" convention of `dataset.camera`."""
        return np.array([view.c2w for view in self.views])

    @property
    def K(self) -> NDArray[np.float64]:
        """Intrinsic matrices [f, 3, 3] of the `f` views, in pixels."""
        return np.array([view.K for view in self.views])

    @property
    def fov_deg(self) -> NDArray[np.float64]:
        """Angle between the left and the right border of the image, in degrees, for each of the `f` views: [f]."""
        return np.array([fov_deg(view.K, self.size) for view in self.views])

    @property
    def angles_deg(self) -> NDArray[np.float64]:
        """Elevation and azimuth of the cameras of the `f` views, [f, 2], in degrees."""
        return np.array([(view.elevation_deg, view.azimuth_deg) for view in self.views])


def read_object(shards: ShardSet, place: Place, wanted: Sequence[ViewKey] | None = ALL_VIEWS) -> RenderedObject:
    """Read some views of one object of a shard set.

    Args:
        shards: The shard set.
        place: Number of the shard, and number of the object (sample) within the shard.
        wanted: The views as pairs (view set, index), such as ("fixed", 3). Default: all 32, in the order of ALL_VIEWS.
            None: all views of the object, whatever its rig.

    Raises:
        UserError: The shard cannot be read.
        DamagedMember: The metadata or an image is corrupt.
    """
    meta = shards.meta(*place)
    keys = meta.view_keys if wanted is None else tuple(wanted)
    check_has_views(meta, keys, shards.url)
    views = tuple(meta.views[view_set][index] for view_set, index in keys)
    return RenderedObject(meta.uid, shards.views(*place, keys), views, keys, meta.normalization)


def view_number(name: str) -> int:
    """Return the number, 0 to 31, of the view named `name`, such as "fixed_03" (3) or "random_12" (28).

    The number is the index of the view in ALL_VIEWS.

    Raises:
        UserError: There is no view of this name.
    """
    names = [view_name(number) for number in range(len(ALL_VIEWS))]
    if name not in names:
        raise UserError(
            f"there is no view {name!r}; the names of views are fixed_00 to fixed_15 and random_00 to random_15"
        )
    return names.index(name)


def view_name(number: int) -> str:
    """Return the name of the view with this number, 0 to 31, such as "fixed_03" for 3 or "random_12" for 28.

    `view_number` is the inverse function.
    """
    return key_name(ALL_VIEWS[number])
