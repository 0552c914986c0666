"""Describe cameras, and choose the lighting and the noise seed of an object, as pure functions of (seed, uid).

`seed` is the seed of the whole shard set. A rig (`render.rigs.rig`) chooses the cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset.camera import DISTANCE, intrinsics, intrinsics_from_fov, spherical_to_c2w
from render.procedural.catalog import generator


@dataclass(frozen=True)
class Pose:
    """A camera that looks at the origin: elevation and azimuth in degrees, and distance from the origin.

    dataset.camera defines the conventions of these angles. `fov_deg` is the angle between the left and the right border
    of the image; None: the paper's lens. If `width` is given, the camera is orthographic, and this is the width of what
    the image shows, in world units.
    """

    elevation_deg: float
    azimuth_deg: float
    distance: float = DISTANCE
    fov_deg: float | None = None
    width: float | None = None

    def c2w(self) -> NDArray[np.float64]:
        """Camera-to-world matrix [4, 4]."""
        return spherical_to_c2w(self.elevation_deg, self.azimuth_deg, self.distance)

    def K(self, resolution: int) -> NDArray[np.float64]:
        """Intrinsic matrix [3, 3] of an image with `resolution` pixels per side, as `dataset.format.schema.View.K`."""
        if self.width is not None:
            return intrinsics(resolution, lens_mm=1.0, sensor_mm=self.width)
        return intrinsics(resolution) if self.fov_deg is None else intrinsics_from_fov(resolution, self.fov_deg)


@dataclass(frozen=True)
class Light:
    """The environment map of an object: file name, rotation about the vertical axis, and change of the exposure.

    `exposure` is in stops: the map is scaled by 2 ** exposure.
    """

    hdri: str
    rotation_deg: float
    exposure: float = 0.0


def light(seed: int, uid: str, hdris: Sequence[str], exposure_range: float = 0.0) -> Light:
    """Choose the environment map of an object, its rotation, and its exposure.

    The rotation is uniform in [0, 360) degrees, and the exposure is uniform in [-exposure_range, exposure_range].

    Args:
        seed: Seed of the shard set.
        uid: Identifier of the object.
        hdris: File names of the available environment maps. Their order does not matter.
        exposure_range: Largest change of the exposure, in stops. It does not affect the other choices.
    """
    rng = generator("light", seed, uid)
    name, rotation = sorted(hdris)[int(rng.integers(len(hdris)))], float(rng.uniform(0.0, 360.0))
    return Light(name, rotation, float(rng.uniform(-exposure_range, exposure_range)) if exposure_range else 0.0)


def noise_seed(seed: int, uid: str) -> int:
    """Return Cycles' sampling seed for the first view of the object `uid`. View number i (from 0) uses this seed + i.

    `seed` is the seed of the shard set.
    """
    return int(generator("noise", seed, uid).integers(2**30))
