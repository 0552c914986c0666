"""Settings of the texture phase (`distill.texture`)."""

import math
from dataclasses import dataclass, field, replace
from functools import partial

from dataset.errors import UserError
from distill.nerf.settings import HashGridSettings


@dataclass(frozen=True)
class TextureSettings:
    """Settings of the texture phase (`distill.texture`), which follows the last step and changes the albedo only.

    The phase samples views of the model and fits a texture, a hash grid that is added to the albedo, to them and to the
    input image.
    """

    rounds: int = 10
    """Number of times that the texture is fitted."""
    groups: int = 1
    """Groups of `VIEWS_PER_GROUP` orthogonal views per round. The model denoises the views of a group jointly."""
    resolution: int = 64
    timesteps: tuple[float, float] = (0.8, 0.02)
    """Timestep of the first and of the last round, as a fraction of the noise schedule."""
    synchronized: bool = True
    """Whether all rounds are the steps of one DDIM sampling of the same views: in each step, the clean latents that the
    model predicts are replaced with those of the fitted renders. Otherwise each round noises the renders of new views
    to its timestep and denoises them in `steps` steps."""
    steps: int = 8
    """Number of DDIM steps per round if the rounds are not synchronized."""
    rescale: float = 0.5
    """As `DistillSettings.sds_rescale`."""
    keep_mean: bool = True
    """Whether the images of a group keep the mean color of the renders."""
    ignore_white: bool = False
    """Whether white pixels of the denoised images, which may be background, are ignored."""
    input_weight: float = 1.0
    """Weight of the loss between the render and the input image; 0 does not use the input image."""
    iterations: int = 20
    """Steps of Adam with which the texture is fitted in each round."""
    learning_rate: float = 0.03
    jitter: float = 0.01
    """Standard deviation, in world units, by which the points of the texture are moved in each iteration. It keeps the
    texture smooth between the points that the fitted rays see."""
    grid: HashGridSettings = field(
        default_factory=partial(
            HashGridSettings, levels=4, features_per_level=3, log2_table_size=18, base_resolution=12, growth=1.7
        )
    )
    """Hash grid of the texture. With the defaults no entry is shared by several vertices."""

    def __post_init__(self) -> None:
        """Check the settings. Raises UserError if a value is invalid."""
        for name in ("rounds", "groups", "steps", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"the setting texture.{name} is {getattr(self, name)}; give at least 1")
        if not all(0 < value <= 1 for value in self.timesteps):
            raise UserError(f"the setting texture.timesteps is {self.timesteps}; give two fractions between 0 and 1")
        if self.grid.features_per_level != 3:
            raise UserError(
                f"the setting texture.grid.features_per_level is {self.grid.features_per_level}; it must be 3"
            )


def texture_settings(image_size: int) -> TextureSettings:
    """Return the settings of the texture phase for a model whose images have an edge of `image_size` pixels.

    The finest level of the texture has cells of about one and a half pixels, for any size.
    """
    default = TextureSettings()
    finer = round(math.log(image_size / default.resolution, default.grid.growth))
    grid = replace(
        default.grid,
        levels=max(1, default.grid.levels + finer),
        log2_table_size=default.grid.log2_table_size + (finer > 0),
    )
    jitter = default.jitter * default.resolution / image_size
    return replace(default, resolution=image_size, jitter=jitter, grid=grid)
