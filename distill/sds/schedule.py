"""Settings and presets of a distillation, and the plan of each step (`plan_step`).

Pure functions of the settings and the step: random numbers are drawn from (seed, step), so a resumed run draws the
same. Changes over time are fractions of the run, so that `--steps` stretches all of them together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dataset.camera import spherical_to_c2w
from dataset.errors import UserError
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings
from distill.nerf.shading import ShadingKind

Float = NDArray[np.float64]
SdsForm = Literal["x0", "eps"]
WITHOUT_EFFECT: Final = frozenset({"settings.checkpoint_every", "settings.preview_every"})
"""Settings, by their names in a request, that do not affect the result: they may change when a run is resumed."""
VIEWS_PER_GROUP: Final = 4  # orthogonal views that the diffusion model denoises together


class RandomPurpose(IntEnum):
    """What a random stream of a step is for; each has its own."""

    CAMERAS = 0
    SHADING = 1
    NOISE = 2
    JITTER = 3
    FIELD = 4
    LIGHT = 5
    REFERENCE = 6


@dataclass(frozen=True)
class CameraSettings:
    """Ranges of uniform draws, one draw a group of views. Defaults are the released configuration's."""

    fov_deg: tuple[float, float] = (15.0, 60.0)
    elevation_deg: tuple[float, float] = (0.0, 30.0)
    half_frame: tuple[float, float] = (0.8, 1.0)
    """World units from the middle of the picture to its edge, at the origin's depth: distance * tan(fov / 2)."""


@dataclass(frozen=True)
class ShadingSettings:
    """Draws once the coarse part is over; before, everything is unlit albedo. Defaults as released."""

    lit_probability: float = 0.75
    textureless_probability: float = 0.5
    """Of the lit steps."""
    light_perturbation: float = 1.0
    """Deviation of the normal noise on the light's direction, which starts out as the camera's position."""
    light_distance: tuple[float, float] = (0.8, 1.5)


@dataclass(frozen=True)
class DistillSettings:
    """Defaults are the paper's (App. B), completed from the released configuration."""

    steps: int = 10_000
    seed: int = 0
    coarse_fraction: float = 0.5
    """The part of the run at `coarse_*` that has no shading and in which Eq. 10 rises: 5,000 of 10,000 steps."""
    coarse_resolution: int = 64
    fine_resolution: int = 256
    coarse_views: int = 8
    fine_views: int = 4
    anneal_fraction: float = 0.8
    """Until here both ends of the timestep range move: 8,000 of 10,000 steps."""
    timestep_start: float = 0.98
    """Both ends of the range, as a fraction of the noise schedule, at step 0."""
    timestep_end: tuple[float, float] = (0.02, 0.50)
    sds_form: SdsForm = "x0"
    sds_rescale: float = 0.5
    sds_weight: float = 1.0
    orientation_weight: float = 1000.0
    """Where Eq. 10 ends. It rises from 0 as 0.2 x (the paper's formula; the released code rises from 10 instead)."""
    reference_weight: float = 0.0
    """Of the peers' L2 loss at the reference view (`reference`), an ablation; 0 leaves it out, as the paper does."""
    grid_learning_rate: float = 1e-2
    mlp_learning_rate: float = 1e-3
    """The paper says 0.01 without saying of what; the released code uses it for the grid only."""
    betas: tuple[float, float] = (0.9, 0.99)
    adam_epsilon: float = 1e-15
    weight_decay: float = 0.01
    cameras: CameraSettings = field(default_factory=CameraSettings)
    shading: ShadingSettings = field(default_factory=ShadingSettings)
    nerf: FieldSettings = field(default_factory=FieldSettings)
    march: MarchSettings = field(default_factory=partial(MarchSettings, samples_per_ray=256))
    """Released: 512 samples a ray. Half of them fit pictures of 256 pixels as well, in half the time."""
    checkpoint_every: int = 500
    preview_every: int = 500

    def __post_init__(self) -> None:
        """Raises UserError for values that no run could use."""
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}; at least 1")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must not be negative")
        if not 0 <= self.reference_weight < math.inf:
            raise UserError(f"reference_weight is {self.reference_weight}; it must be 0 (off) or a positive number")
        for name in ("coarse_views", "fine_views"):
            if getattr(self, name) % VIEWS_PER_GROUP:
                raise UserError(f"{name} is {getattr(self, name)}; it must be a multiple of {VIEWS_PER_GROUP}")


# The object of a training render has its longest side 1 and is seen from distance 1.5 with a 35 mm lens on a 32 mm
# sensor: half a frame at the origin is 1.5 * 16 / 35 world units and the field of view 49.13 degrees. A small model has
# seen nothing else, so `tiny` keeps exactly that framing (MVDream's range assumes varied training cameras) and stays
# unlit. Its ball just holds a cube of side 1. Its score distillation loss is a few hundred: Eq. 8's weight follows.
# Its timesteps end high: at low ones a small model takes the brightness from the rendering, and its errors add up to
# pale objects.
_TRAINING_HALF_FRAME: Final = 1.5 * 16 / 35
_TRAINING_FOV_DEG: Final = 49.1343
PRESETS: Final[Mapping[str, DistillSettings]] = {
    "paper": DistillSettings(),
    "tiny": DistillSettings(
        steps=400,
        coarse_resolution=64,
        fine_resolution=64,
        coarse_views=4,
        fine_views=4,
        timestep_end=(0.4, 0.9),
        orientation_weight=300.0,
        grid_learning_rate=3e-2,
        mlp_learning_rate=1e-2,
        cameras=CameraSettings(
            fov_deg=(_TRAINING_FOV_DEG, _TRAINING_FOV_DEG),
            elevation_deg=(0.0, 30.0),
            half_frame=(_TRAINING_HALF_FRAME, _TRAINING_HALF_FRAME),
        ),
        shading=ShadingSettings(lit_probability=0.0),
        nerf=FieldSettings(
            grid=HashGridSettings(levels=4, log2_table_size=15, base_resolution=8, growth=1.6),
            radius=0.87,
            hidden_width=16,
        ),
        march=MarchSettings(
            samples_per_ray=64, min_transmittance=1e-2, occupancy_every=8, occupancy_decay=0.6, occupancy_warmup=100_000
        ),
        checkpoint_every=50,
        preview_every=50,
    ),
}


@dataclass(frozen=True)
class CameraViews:
    """Cameras of a step [f], all looking at the origin; `VIEWS_PER_GROUP` neighbors are orthogonal views."""

    elevation_deg: Float
    azimuth_deg: Float
    distance: Float
    fov_deg: Float

    def __len__(self) -> int:
        return len(self.azimuth_deg)

    @property
    def c2w(self) -> Float:
        """Camera-to-world [f, 4, 4] in Blender's axes."""
        return spherical_to_c2w(self.elevation_deg, self.azimuth_deg, self.distance)


@dataclass(frozen=True)
class StepPlan:
    """The cameras, light and weights of one step."""

    resolution: int
    views: CameraViews
    timesteps: tuple[int, int]
    """First and last possible timestep."""
    shading: ShadingKind
    light_position: Float  # [f, 3] world
    ambient: float
    orientation_weight: float


def plan_step(settings: DistillSettings, step: int, num_timesteps: int = 1000) -> StepPlan:
    """What step `step` (0-based) of a run uses."""
    coarse = step < settings.coarse_fraction * settings.steps
    views = draw_views(settings, step, settings.coarse_views if coarse else settings.fine_views)
    shading, ambient = _draw_shading(settings, step, coarse)
    return StepPlan(
        resolution=settings.coarse_resolution if coarse else settings.fine_resolution,
        views=views,
        timesteps=timestep_range(settings, step, num_timesteps),
        shading=shading,
        light_position=_draw_lights(settings, step, views),
        ambient=ambient,
        orientation_weight=orientation_weight(settings, step),
    )


def views_until(settings: DistillSettings, step: int) -> int:
    """How many views the first `step` steps render."""
    coarse = min(step, math.ceil(settings.coarse_fraction * settings.steps))
    return coarse * settings.coarse_views + (step - coarse) * settings.fine_views


def timestep_range(settings: DistillSettings, step: int, num_timesteps: int = 1000) -> tuple[int, int]:
    """First and last timestep that may be drawn: linear from `timestep_start` to `timestep_end`, then constant."""
    progress = min(1.0, step / (settings.anneal_fraction * settings.steps))
    low, high = (settings.timestep_start + progress * (end - settings.timestep_start) for end in settings.timestep_end)
    return int(num_timesteps * low), int(num_timesteps * high)


def orientation_weight(settings: DistillSettings, step: int) -> float:
    """Eq. 10: 0.2 x up to step 5,000 of 10,000, then 1,000; other lengths and weights stretch it."""
    return settings.orientation_weight * min(1.0, step / (settings.coarse_fraction * settings.steps))


def draw_views(settings: DistillSettings, step: int, count: int) -> CameraViews:
    """`count` cameras in groups of orthogonal views; a group shares all but its azimuths."""
    cameras = settings.cameras
    rng = random_stream(settings.seed, step, RandomPurpose.CAMERAS)
    groups = count // VIEWS_PER_GROUP
    elevation, fov, half_frame = (
        rng.uniform(*bounds, size=groups) for bounds in (cameras.elevation_deg, cameras.fov_deg, cameras.half_frame)
    )
    azimuth = rng.uniform(0, 360, size=(groups, 1)) + np.arange(VIEWS_PER_GROUP) * 360 / VIEWS_PER_GROUP
    distance = half_frame / np.tan(np.deg2rad(fov) / 2)
    elevation, distance, fov = (np.repeat(values, VIEWS_PER_GROUP) for values in (elevation, distance, fov))
    return CameraViews(elevation, np.mod(azimuth, 360).ravel(), distance, fov)


def _draw_shading(settings: DistillSettings, step: int, coarse: bool) -> tuple[ShadingKind, float]:
    """The kind of shading and the ambient share of a step, the same for all its views."""
    lit, textureless, ambient = random_stream(settings.seed, step, RandomPurpose.SHADING).uniform(size=3)
    if coarse or lit >= settings.shading.lit_probability:
        return "albedo", 1.0
    return "textureless" if textureless < settings.shading.textureless_probability else "diffuse", float(ambient)


def _draw_lights(settings: DistillSettings, step: int, views: CameraViews) -> Float:
    """Point lights [f, 3]: about the camera's direction (DreamFusion, App. A.2), at `light_distance`."""
    shading = settings.shading
    rng = random_stream(settings.seed, step, RandomPurpose.LIGHT)
    direction = views.c2w[:, :3, 3] + rng.normal(scale=shading.light_perturbation, size=(len(views), 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    lights: Float = direction * rng.uniform(*shading.light_distance, size=(len(views), 1))
    return lights


def random_stream(seed: int, step: int, purpose: RandomPurpose) -> np.random.Generator:
    """The numpy generator of one purpose in one step."""
    return np.random.default_rng((seed, step, purpose))


def torch_stream(seed: int, step: int, purpose: RandomPurpose) -> torch.Generator:
    """A CPU torch generator of one purpose in one step."""
    return torch.Generator().manual_seed(int(random_stream(seed, step, purpose).integers(2**62)))
