"""The texture phase: fit the albedo of a finished field, whose geometry stays fixed, to denoised views.

SDS averages the predictions of thousands of noisy steps, which blurs patterns. The texture phase samples sharp images
instead: it noises renders, denoises them in several DDIM steps with the image embedding, and fits a fine hash grid that
is added to the albedo. All random numbers are drawn from (seed, round), so a repeated phase gives the same result on a
CPU, and the same up to rounding errors on a GPU.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.io.progress import ProgressBar
from distill.nerf.field import Field
from distill.nerf.hash_grid import HashGrid
from distill.nerf.settings import HashGridSettings
from distill.sds.checkpoint import Distillation
from distill.sds.guidance import Guidance
from distill.sds.schedule import (
    VIEWS_PER_GROUP,
    CameraViews,
    DistillSettings,
    RandomPurpose,
    torch_stream,
)
from distill.sds.texture_settings import TextureSettings
from distill.texture.denoise import ddim_step, denoise_from, predict_clean, timesteps_from
from distill.texture.fit import FitOptions, InputView, SurfaceViews, fit_texture, surface_views
from train.device import to_device
from train.model.noise_schedule import add_noise

logger = logging.getLogger(__name__)

_GOLDEN = 0.6180339887498949  # fractional parts of its multiples spread evenly over [0, 1]


@dataclass(frozen=True)
class TextureReport:
    """What a texture phase did."""

    rounds: int
    losses: tuple[float, ...]  # after each round
    seconds: float


def refine_texture(
    state: Distillation,
    settings: DistillSettings,
    guidance: Guidance,
    *,
    input_view: InputView | None = None,
    title: str = "texture",
    quiet: bool = False,
) -> TextureReport:
    """Add a texture to the field of a finished distillation, in place. An earlier texture is replaced.

    Args:
        state: The final state of the distillation.
        settings: Settings of the distillation; `settings.texture` must not be None.
        guidance: Image encoder, decoder, denoiser and noise schedule.
        input_view: The input image, to which the texture is fitted too; None: it is not.
        title: Description of the progress bar.
        quiet: Whether there is no progress bar.

    Raises:
        ValueError: The settings have no texture phase, or `guidance` cannot decode latents.
    """
    if settings.texture is None or guidance.decode is None:
        raise ValueError("the texture phase needs DistillSettings.texture and Guidance.decode")
    started = time.perf_counter()
    state.field.texture = None
    phase = _Phase(state, settings, settings.texture, guidance, input_view)
    losses: list[float] = []
    with ProgressBar(total=settings.texture.rounds, desc=title, unit="round", disable=quiet) as bar:
        for loss in phase.synchronized() if settings.texture.synchronized else phase.rounds():
            losses.append(loss)
            bar.update()
    state.field.texture = phase.texture
    return TextureReport(len(losses), tuple(losses), time.perf_counter() - started)


class _Phase:
    """The texture of a field, its optimizer, and the inputs of the rounds that fit it."""

    def __init__(
        self,
        state: Distillation,
        settings: DistillSettings,
        options: TextureSettings,
        guidance: Guidance,
        input_view: InputView | None,
    ) -> None:
        self.state, self.settings, self.options, self.guidance = state, settings, options, guidance
        self.input_view = input_view
        self.texture = new_texture(options.grid, state.field)
        self.optimizer = torch.optim.Adam([self.texture.table], lr=options.learning_rate, betas=(0.9, 0.99), eps=1e-15)
        generator = torch_stream(settings.seed, options.rounds, RandomPurpose.TEXTURE)
        self.fit_options = FitOptions(options.iterations, options.jitter, options.ignore_white, generator)

    def rounds(self) -> Iterator[float]:
        """Do all rounds, each with new cameras and new noise. Yield the loss after each round."""
        options, alphas = self.options, self.guidance.alphas_cumprod
        for number in range(options.rounds):
            views, surface = self._surface(number)
            renders = self._render(surface)
            latents = self._encode(renders)
            start = timestep_of_round(options, number)
            timesteps = timesteps_from(start, start / options.steps, options.steps, len(alphas))
            denoised = denoise_from(
                self.guidance.denoise,
                latents,
                self._noise(latents, number),
                timesteps,
                views,
                alphas_cumprod=alphas,
                rescale=options.rescale,
            )
            yield self._fit(surface, renders, denoised)

    def synchronized(self) -> Iterator[float]:
        """Do one DDIM sampling of all views, whose clean latents are those of the fitted renders in each step."""
        options, alphas = self.options, self.guidance.alphas_cumprod
        views, surface = self._surface(0)
        latents = self._encode(self._render(surface))
        timesteps = timesteps_from(*options.timesteps, options.rounds, len(alphas))
        noisy = add_noise(latents, self._noise(latents, 0), alphas[timesteps[0]])
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            clean = predict_clean(
                self.guidance.denoise, noisy, timestep, views, alphas_cumprod=alphas, rescale=options.rescale
            )
            yield self._fit(surface, self._render(surface), clean)
            noisy = ddim_step(noisy, self._encode(self._render(surface)), alphas, timestep, following)

    def _surface(self, number: int) -> tuple[CameraViews, SurfaceViews]:
        views = views_of_round(self.settings, self.options, number)
        march, occupancy = self.settings.march, self.state.occupancy
        return views, surface_views(
            self.state.field,
            views.c2w,
            views.fov_deg,
            self.options.resolution,
            march=march,
            occupancy=occupancy,
        )

    @torch.no_grad()
    def _render(self, surface: SurfaceViews) -> Tensor:
        return surface.render(self.texture)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        return torch.cat([self.guidance.encode(group) for group in torch.split(images, VIEWS_PER_GROUP)])

    def _decode(self, latents: Tensor) -> Tensor:
        """Decode latents [f, c, h, w] to images [f, 3, H, W] of the resolution of the renders."""
        decode = self.guidance.decode
        if decode is None:
            raise ValueError("the texture phase needs Guidance.decode")
        images = torch.cat([decode(group) for group in torch.split(latents, VIEWS_PER_GROUP)])
        size = (self.options.resolution, self.options.resolution)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def _noise(self, latents: Tensor, number: int) -> Tensor:
        generator = torch_stream(self.settings.seed, number, RandomPurpose.TEXTURE)
        return to_device(torch.randn(latents.shape, generator=generator).to(latents.dtype), latents.device)

    def _fit(self, surface: SurfaceViews, renders: Tensor, latents: Tensor) -> float:
        """Fit the texture to the decoded latents [f, c, h, w], and return the loss."""
        images = self._decode(latents)
        if self.options.keep_mean:
            images = surface.with_mean_of(images, renders, VIEWS_PER_GROUP)
        return fit_texture(self.texture, self.optimizer, surface, images, self.fit_options, input_view=self.input_view)


def timestep_of_round(options: TextureSettings, number: int) -> float:
    """Return the timestep, as a fraction of the noise schedule, to which the renders of a round are noised."""
    first, last = options.timesteps
    return first + (last - first) * number / max(1, options.rounds - 1)


def views_of_round(settings: DistillSettings, options: TextureSettings, number: int) -> CameraViews:
    """Return the cameras of a round.

    The fields of view and distances are the middle of their ranges. Azimuths and elevations are spread evenly over
    rounds and groups.

    Args:
        settings: Settings of the distillation, with the ranges of the cameras.
        options: Settings of the texture phase.
        number: Index of the round, counted from 0.
    """
    cameras = settings.cameras
    group = np.repeat(np.arange(options.groups), VIEWS_PER_GROUP)
    quarter = np.mod(group / options.groups + number * _GOLDEN, 1) * 360 / VIEWS_PER_GROUP
    azimuth = quarter + np.tile(np.arange(VIEWS_PER_GROUP), options.groups) * 360 / VIEWS_PER_GROUP
    low, high = cameras.elevation_deg
    elevation = low + (high - low) * np.mod(0.5 + (group + number * options.groups) * _GOLDEN, 1)
    fov_deg = np.full(len(group), sum(cameras.fov_deg) / 2)
    distance = sum(cameras.half_frame) / 2 / np.tan(np.deg2rad(fov_deg) / 2)
    return CameraViews(elevation, np.mod(azimuth, 360), distance, fov_deg)


def new_texture(settings: HashGridSettings, field: Field) -> HashGrid:
    """Return a texture of zeros for a field. It has three features per level, one for each color."""
    texture = HashGrid(settings, field.radius).to(field.grid.table.device)
    torch.nn.init.zeros_(texture.table)
    return texture
