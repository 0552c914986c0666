"""Choose the cameras, the lighting and the noise seed of an object, as pure functions of (seed, uid).

`seed` is the seed of the whole shard set. Each object has two sets of 16 cameras, called fixed and random.

The cameras follow the paper (section 4.1), which follows SyncDreamer. Both sets use the same 16 azimuths, 22.5 degrees
apart, and the distance 1.5 from the origin. All fixed cameras have an elevation of 30 degrees. The elevation of each
random camera is uniform in [-10, 40] degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.camera import DISTANCE, spherical_to_c2w
from dataset.format.schema import VIEWS_PER_SET, ViewSet
from render.procedural.catalog import generator

FIXED_ELEVATION_DEG: Final = 30.0
RANDOM_ELEVATION_DEG: Final = (-10.0, 40.0)


@dataclass(frozen=True)
class Pose:
    """A camera that looks at the origin: elevation and azimuth in degrees, and distance from the origin.

    dataset.camera defines the conventions of these angles.
    """

    elevation_deg: float
    azimuth_deg: float
    distance: float = DISTANCE

    def c2w(self) -> NDArray[np.float64]:
        """Camera-to-world matrix [4, 4]."""
        return spherical_to_c2w(self.elevation_deg, self.azimuth_deg, self.distance)


@dataclass(frozen=True)
class Light:
    """The environment map of an object: file name, rotation about the vertical axis, and change of the exposure.

    `exposure` is in stops: the map is scaled by 2 ** exposure.
    """

    hdri: str
    rotation_deg: float
    exposure: float = 0.0


def poses(seed: int, uid: str) -> dict[ViewSet, tuple[Pose, ...]]:
    """Return the 16 fixed and the 16 random cameras of the object `uid`.

    `seed` is the seed of the shard set.
    """
    azimuths = [360.0 / VIEWS_PER_SET * i for i in range(VIEWS_PER_SET)]
    elevations = generator("elevations", seed, uid).uniform(*RANDOM_ELEVATION_DEG, VIEWS_PER_SET)
    return {
        "fixed": tuple(Pose(FIXED_ELEVATION_DEG, azimuth) for azimuth in azimuths),
        "random": tuple(Pose(float(e), azimuth) for e, azimuth in zip(elevations, azimuths, strict=True)),
    }


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
