"""Settings and presets of a distillation, and the plan of each step (`plan_step`).

The plan of a step is a pure function of the settings and the step: random numbers are drawn from (seed, step), so a
resumed run draws the same numbers. Schedules are defined as fractions of the run, so that `--steps` scales all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dataset.camera import spherical_to_c2w
from dataset.errors import UserError
from dataset.io.option_checks import check_seed
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings
from distill.nerf.shading import ShadingKind
from distill.sds.texture_settings import TextureSettings

SdsForm = Literal["x0", "eps"]
WITHOUT_EFFECT: Final = frozenset({"settings.checkpoint_every", "settings.preview_every"})
"""Names (as in a request) of settings that do not affect the result and may change when a run is resumed. On a GPU,
`checkpoint_every` affects the choice of samples in the first step after each checkpoint (`distill.sds.march_ahead`)."""
BEFORE: Final[Mapping[str, Mapping[str, float]]] = {
    "cameras": {"low_elevation_probability": 0.0},
    "march": {"alpha_threshold": 0.0},
}
"""For settings that were added later: the values that reproduce older runs. Requests do not store these values."""
VIEWS_PER_GROUP: Final = 4  # orthogonal views that the diffusion model denoises jointly


class RandomPurpose(IntEnum):
    """What random numbers are used for. In each step, each purpose has its own independent random numbers."""

    CAMERAS = 0
    SHADING = 1
    NOISE = 2
    JITTER = 3
    FIELD = 4
    LIGHT = 5
    REFERENCE = 6
    TEXTURE = 7


@dataclass(frozen=True)
class CameraSettings:
    """Ranges from which the cameras are drawn uniformly, once per group of views.

    The defaults are those of the released configuration.
    """

    fov_deg: tuple[float, float] = (15.0, 60.0)
    elevation_deg: tuple[float, float] = (0.0, 30.0)
    low_elevation_probability: float = 0.5
    """Probability that a step draws low elevations. The sine of the elevation is then uniform in `elevation_deg` / 90,
    so the range 0 to 30 degrees becomes 0 to 19.5. Otherwise the elevation is uniform in `elevation_deg`."""
    half_frame: tuple[float, float] = (0.8, 1.0)
    """Half the frame in world units at the depth of the origin: distance * tan(fov / 2)."""


@dataclass(frozen=True)
class ShadingSettings:
    """Settings of the shading in the fine part of a run. The coarse part is unlit.

    The defaults are those of the released configuration.
    """

    lit_probability: float = 0.75
    textureless_probability: float = 0.5
    """Probability of textureless shading in lit steps."""
    light_perturbation: float = 1.0
    """Standard deviation of the noise that is added to the camera position to get the direction of the light. The views
    of a group share the noise."""
    light_distance: tuple[float, float] = (0.8, 1.5)


@dataclass(frozen=True)
class DistillSettings:
    """Settings of a distillation.

    The defaults are those of the paper (App. B) or, if the paper does not give a value, those of the released code.
    """

    steps: int = 10_000
    seed: int = 0
    coarse_fraction: float = 0.5
    """Fraction of the run (5,000 of 10,000 steps) that is coarse: it uses the `coarse_*` settings and no shading, and
    the weight of Eq. 10 rises."""
    coarse_resolution: int = 64
    fine_resolution: int = 256
    coarse_views: int = 8
    fine_views: int = 4
    anneal_fraction: float = 0.8
    """Fraction of the run (8,000 of 10,000 steps) in which the timestep range moves from `timestep_start` to
    `timestep_end`."""
    timestep_start: float = 0.98
    """Smallest and largest timestep at step 0 (they are equal), as a fraction of the noise schedule."""
    timestep_end: tuple[float, float] = (0.02, 0.50)
    """Smallest and largest timestep after annealing, as fractions of the noise schedule."""
    sds_form: SdsForm = "x0"
    sds_rescale: float = 0.5
    sds_weight: float = 1.0
    orientation_weight: float = 1000.0
    """Final weight of Eq. 10. As in the paper, the weight is 0.2 * step before it is constant; the released code rises
    from 10 instead."""
    reference_weight: float = 0.0
    """Weight of the L2 loss at the reference view (`reference_loss`), an ablation; 0, as in the paper, omits it."""
    grid_learning_rate: float = 1e-2
    mlp_learning_rate: float = 1e-3
    """The paper gives one learning rate, 0.01; the released code uses it for the hash grid only."""
    betas: tuple[float, float] = (0.9, 0.99)
    adam_epsilon: float = 1e-15
    weight_decay: float = 0.01
    cameras: CameraSettings = field(default_factory=CameraSettings)
    shading: ShadingSettings = field(default_factory=ShadingSettings)
    nerf: FieldSettings = field(default_factory=FieldSettings)
    march: MarchSettings = field(default_factory=partial(MarchSettings, samples_per_ray=256))
    """The released configuration has 512 samples per ray. At 256 pixels, half as many give the same quality."""
    texture: TextureSettings | None = None
    """Settings of the texture phase; None, as in the paper, omits it."""
    checkpoint_every: int = 1000
    preview_every: int = 500

    def __post_init__(self) -> None:
        """Check the settings. Raises UserError if a value is invalid."""
        if self.steps < 1:
            raise UserError(f"the setting steps is {self.steps}; give at least 1 step")
        check_seed("seed", self.seed)
        if not 0 <= self.reference_weight < math.inf:
            raise UserError(
                f"the setting reference_weight is {self.reference_weight}; give 0 (off) or a positive number"
            )
        for name in ("coarse_views", "fine_views"):
            if getattr(self, name) % VIEWS_PER_GROUP:
                raise UserError(f"the setting {name} is {getattr(self, name)}; give a multiple of {VIEWS_PER_GROUP}")


# In training renders the longest side of an object is 1, and the camera has distance 1.5, a 35 mm lens and a 32 mm
# sensor: half the frame at the origin is 1.5 * 16 / 35 world units, and the field of view is 49.13 degrees. Small
# models are trained on this framing only, so `tiny` uses exactly that (the range of MVDream assumes varied training
# cameras) and stays unlit. The radius of its scene just contains a cube of side 1. Its SDS loss is a few hundred, and
# the weight of Eq. 8 is chosen accordingly. Its timesteps stay high: at low timesteps a small model copies the
# brightness of the rendering, and its errors accumulate to pale objects. It evaluates hidden samples too: on a CPU,
# finding them takes longer than evaluating them.
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
            low_elevation_probability=0.0,
            half_frame=(_TRAINING_HALF_FRAME, _TRAINING_HALF_FRAME),
        ),
        shading=ShadingSettings(lit_probability=0.0),
        nerf=FieldSettings(
            grid=HashGridSettings(levels=4, log2_table_size=15, base_resolution=8, growth=1.6),
            radius=0.87,
            hidden_width=16,
        ),
        march=MarchSettings(
            samples_per_ray=64,
            min_transmittance=0.0,
            alpha_threshold=0.0,
            occupancy_every=8,
            occupancy_decay=0.6,
            occupancy_warmup=100_000,
        ),
        checkpoint_every=50,
        preview_every=50,
    ),
}


def newer_settings(settings: DistillSettings) -> dict[str, Any]:
    """Return the settings that older versions of this program did not have and that change the behavior.

    `BEFORE` contains the values that give the behavior of the older versions; settings with these values are left out.
    The names contain the group, as in `cameras.low_elevation_probability`. The group `texture` is one entry, which is
    left out if the run has no texture phase.
    """
    newer = {
        f"{group}.{name}": value
        for group, names in BEFORE.items()
        for name, before in names.items()
        if (value := getattr(getattr(settings, group), name)) != before
    }
    return newer if settings.texture is None else {**newer, "texture": asdict(settings.texture)}


@dataclass(frozen=True)
class CameraViews:
    """The f cameras of a step, which look at the origin.

    Each group of `VIEWS_PER_GROUP` consecutive cameras has orthogonal views, at azimuths 90 degrees apart.
    """

    elevation_deg: NDArray[np.float64]
    azimuth_deg: NDArray[np.float64]
    distance: NDArray[np.float64]
    fov_deg: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.azimuth_deg)

    @property
    def c2w(self) -> NDArray[np.float64]:
        """Camera-to-world matrices [f, 4, 4] in Blender axes."""
        return spherical_to_c2w(self.elevation_deg, self.azimuth_deg, self.distance)


@dataclass(frozen=True)
class StepPlan:
    """The resolution, cameras, timestep range, shading, lights and orientation loss weight of one step."""

    resolution: int
    views: CameraViews
    timesteps: tuple[int, int]
    """Smallest and largest possible timestep."""
    shading: ShadingKind
    light_position: NDArray[np.float64]  # [f, 3] world
    ambient: float
    orientation_weight: float


def plan_step(settings: DistillSettings, step: int, num_timesteps: int = 1000) -> StepPlan:
    """Return the plan of a step.

    Args:
        settings: Settings of the distillation.
        step: Index of the step, counted from 0.
        num_timesteps: Number of timesteps of the diffusion model's noise schedule.
    """
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
    """Return the total number of views that the first `step` steps of a run render."""
    coarse = min(step, math.ceil(settings.coarse_fraction * settings.steps))
    return coarse * settings.coarse_views + (step - coarse) * settings.fine_views


def timestep_range(settings: DistillSettings, step: int, num_timesteps: int = 1000) -> tuple[int, int]:
    """Return the smallest and the largest diffusion timestep that may be drawn in a step.

    Both start at the fraction `settings.timestep_start` of `num_timesteps`. They change linearly to the two fractions
    in `settings.timestep_end`, then stay constant.

    Args:
        settings: Settings of the distillation.
        step: Index of the step, counted from 0.
        num_timesteps: Number of timesteps of the diffusion model's noise schedule.
    """
    progress = min(1.0, step / (settings.anneal_fraction * settings.steps))
    low, high = (settings.timestep_start + progress * (end - settings.timestep_start) for end in settings.timestep_end)
    return int(num_timesteps * low), int(num_timesteps * high)


def orientation_weight(settings: DistillSettings, step: int) -> float:
    """Return the weight of the orientation loss (Eq. 10) in the step with index `step`, counted from 0.

    The weight grows linearly from 0 to `settings.orientation_weight` over the coarse part of the run, then stays
    constant. In the paper it grows to 1,000 over the first 5,000 of 10,000 steps. Without a coarse part it is constant.
    """
    coarse_steps = settings.coarse_fraction * settings.steps
    return settings.orientation_weight * (min(1.0, step / coarse_steps) if coarse_steps else 1.0)


def draw_views(settings: DistillSettings, step: int, count: int) -> CameraViews:
    """Draw the random cameras of a step, in groups of orthogonal views.

    The cameras of a group differ only in their azimuths.

    Args:
        settings: Settings of the distillation.
        step: Index of the step, counted from 0.
        count: Number of cameras, a multiple of `VIEWS_PER_GROUP`.
    """
    cameras = settings.cameras
    rng = random_stream(settings.seed, step, RandomPurpose.CAMERAS)
    groups = count // VIEWS_PER_GROUP
    elevation, fov, half_frame = (
        rng.uniform(*bounds, size=groups) for bounds in (cameras.elevation_deg, cameras.fov_deg, cameras.half_frame)
    )
    azimuth = rng.uniform(0, 360, size=(groups, 1)) + np.arange(VIEWS_PER_GROUP) * 360 / VIEWS_PER_GROUP
    if rng.uniform() < cameras.low_elevation_probability:
        elevation = np.rad2deg(np.arcsin(elevation / 90))
    distance = half_frame / np.tan(np.deg2rad(fov) / 2)
    elevation, distance, fov = (np.repeat(values, VIEWS_PER_GROUP) for values in (elevation, distance, fov))
    return CameraViews(elevation, np.mod(azimuth, 360).ravel(), distance, fov)


def _draw_shading(settings: DistillSettings, step: int, coarse: bool) -> tuple[ShadingKind, float]:
    """Draw the kind of shading and the ambient share of a step, which are the same for all its views."""
    lit, textureless, ambient = random_stream(settings.seed, step, RandomPurpose.SHADING).uniform(size=3)
    if coarse or lit >= settings.shading.lit_probability:
        return "albedo", 1.0
    return "textureless" if textureless < settings.shading.textureless_probability else "diffuse", float(ambient)


def _draw_lights(settings: DistillSettings, step: int, views: CameraViews) -> NDArray[np.float64]:
    """Draw point lights [f, 3] around the direction of the camera (DreamFusion, App. A.2), at `light_distance`.

    As in the released code, the views of a group share the noise and the distance.
    """
    shading = settings.shading
    rng = random_stream(settings.seed, step, RandomPurpose.LIGHT)
    groups = len(views) // VIEWS_PER_GROUP
    noise = rng.normal(scale=shading.light_perturbation, size=(groups, 3))
    distance = rng.uniform(*shading.light_distance, size=(groups, 1))
    noise, distance = (np.repeat(values, VIEWS_PER_GROUP, axis=0) for values in (noise, distance))
    direction = views.c2w[:, :3, 3] + noise
    lights: NDArray[np.float64] = distance * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return lights


def random_stream(seed: int, step: int, purpose: RandomPurpose) -> np.random.Generator:
    """Return a numpy generator of random numbers.

    Its numbers are determined by the seed, the index of the step (counted from 0) and the purpose.
    """
    return np.random.default_rng((seed, step, purpose))


def torch_stream(seed: int, step: int, purpose: RandomPurpose) -> torch.Generator:
    """Return a torch generator of random numbers on the CPU.

    Its numbers are determined by the seed, the index of the step (counted from 0) and the purpose.
    """
    return torch.Generator().manual_seed(int(random_stream(seed, step, purpose).integers(2**62)))
