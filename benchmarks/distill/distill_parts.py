"""Networks of Stable Diffusion 2.1's size for `distill_bench`, and an oracle that drives the field.

The networks have random weights, so their gradients would not form an object. Therefore their latents and those of the
oracle are channels of one tensor: the networks run forward and backward, but their gradients are multiplied by zero.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train.train_bench import SHAPES
from distill.sds.guidance import Denoise, Guidance, Prediction
from distill.sds.oracle import AnalyticSolid, Ball, Cuboid, render_truth
from distill.sds.schedule import PRESETS, CameraViews, DistillSettings, draw_views, plan_step
from train.model.multiview import ModelSpec, MultiViewModel
from train.model.noise_schedule import add_noise, clean_latents, noise_schedule
from train.model.unet import CAMERA_NUMBERS, UNetShape, build_unet, run_unet

# A figure whose front and back differ, with a hand to one side.
FIGURE: Final[tuple[AnalyticSolid, ...]] = (
    Cuboid((-0.22, -0.22, -0.45), (0.22, 0.22, 0.1), (0.85, 0.15, 0.1), (0.1, 0.2, 0.8)),
    Ball((0.0, 0.0, 0.25), 0.2, (0.95, 0.8, 0.2), (0.3, 0.2, 0.1)),
    Ball((0.32, 0.0, -0.2), 0.12, (0.1, 0.7, 0.2), (0.1, 0.7, 0.2)),
)
_ORACLE_SIDE: Final = 64  # pixels per side of the oracle's images
_ORACLE_SCALE: Final = 2.0  # range of its latents, about that of a VAE
_PRECISION_TIMESTEP: Final = 980
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks."""

    unet: UNetShape
    vae_widths: tuple[int, ...]
    vae_blocks: int
    vae_norm_groups: int
    image_size: int


SIZES: Final[Mapping[str, Sizes]] = {
    "paper": Sizes(SHAPES["sd21"], (128, 256, 512, 512), 2, 32, 256),
    "tiny": Sizes(SHAPES["micro"], (8, 16, 16, 16), 1, 4, 64),
}


class DeviceTimer:
    """Seconds between marks, summed by name and measured by CUDA events or, without a GPU, by the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._marks: list[tuple[str, float, Any]] = []

    def mark(self, name: str) -> None:
        """Attribute the time since the previous mark to `name`."""
        event: Any = None
        if self._gpu:
            event = torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._marks.append((name, time.perf_counter(), event))

    def host_seconds(self) -> dict[str, float]:
        """Return the seconds by name since the last call of `seconds`, on the host's clock.

        On a GPU, they are the time in which the host launches work or waits for the device.
        """
        return self._sums(lambda before, after: after[1] - before[1])

    def seconds(self) -> dict[str, float]:
        """Return the seconds by name since the last call, after synchronizing the device."""
        if self._gpu:
            torch.cuda.synchronize()
            sums = self._sums(lambda before, after: before[2].elapsed_time(after[2]) / 1000)
        else:
            sums = self.host_seconds()
        self._marks.clear()
        return sums

    def _sums(self, passed: Callable[[Any, Any], float]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for before, after in zip(self._marks, self._marks[1:], strict=False):
            sums[after[0]] = sums.get(after[0], 0.0) + passed(before, after)
        return sums


class _Mark(torch.autograd.Function):
    """Autograd function of the identity. It marks the time in the forward and the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, watch: DeviceTimer, names: tuple[str, str]) -> Tensor:
        ctx.watch, ctx.name = watch, names[1]
        watch.mark(names[0])
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.watch.mark(ctx.name)
        return grads[0], None, None


class _Weightless(torch.autograd.Function):
    """Autograd function of the identity. It multiplies the gradient by zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 0


def random_model(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> MultiViewModel:
    """Return a model with random weights. It has no image encoder, since steps do not need one."""
    with torch.device(device):
        unet, vae = build_networks(sizes)
    for part in (unet, vae):
        nn.Module.to(part.requires_grad_(False).eval(), device, dtype)
    spec = ModelSpec(sizes.image_size, sizes.unet.latent_size, 0.18215, "relative", 10.0)
    nothing: Any = nn.Identity()
    return MultiViewModel(unet, vae, nothing, spec, noise_schedule().to(device))


def build_networks(sizes: Sizes) -> Networks:
    """Return UNet and VAE on torch's default device."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(sizes.vae_widths)
    vae: nn.Module = AutoencoderKL(
        sample_size=sizes.image_size,
        latent_channels=sizes.unet.latent_channels,
        block_out_channels=sizes.vae_widths,
        layers_per_block=sizes.vae_blocks,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=sizes.vae_norm_groups,
    )
    return build_unet(sizes.unet), vae


def step_flops(sizes: Sizes, views: int) -> dict[str, float]:
    """Return the floating-point operations per step by network, counted on the meta device.

    The UNet processes every view twice (classifier-free guidance); the VAE encoder runs forward and backward for the
    gradient of its input.
    """
    shape, size, frames = sizes.unet, sizes.image_size, 2 * views
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        unet, vae = build_networks(sizes)
        latents = torch.empty(frames, shape.latent_channels, shape.latent_size, shape.latent_size)
        inputs = torch.zeros(frames), torch.empty(frames, CAMERA_NUMBERS), torch.empty(frames, 1, shape.token_width)
        with FlopCounterMode(display=False) as unet_counter, torch.no_grad():
            run_unet(unet, latents, *inputs, num_frames=4)
        vae.requires_grad_(False)
        images = torch.empty(views, 3, size, size, requires_grad=True)
        encoder: Any = vae
        with FlopCounterMode(display=False) as vae_counter:
            encoder.encode(images).latent_dist.mean.sum().backward()
    return {"unet": float(unet_counter.get_total_flops()), "vae": float(vae_counter.get_total_flops())}


@torch.no_grad()
def predicted_clean(denoise: Denoise, sizes: Sizes, views: int, alphas_cumprod: Tensor) -> Tensor:
    """Return x0_hat [views, c, latent, latent] with guidance for random latents at timestep 980.

    The latents are always the same, so that two ways of computing the UNet can be compared. Errors are large at this
    timestep.
    """
    random = torch.Generator().manual_seed(0)
    shape = views, sizes.unet.latent_channels, sizes.unet.latent_size, sizes.unet.latent_size
    latents, noise = (torch.randn(shape, generator=random).to(alphas_cumprod.device) for _ in range(2))
    noisy = add_noise(latents, noise, alphas_cumprod[_PRECISION_TIMESTEP])
    timesteps = torch.full((views,), _PRECISION_TIMESTEP, device=latents.device)
    guided = denoise(noisy, timesteps, draw_views(PRESETS["paper"], 0, views)).guided
    return clean_latents(noisy, guided, alphas_cumprod[_PRECISION_TIMESTEP])


class OracleLatents:
    """Ground-truth latents of the oracle, computed in advance so that they do not count in the time of a step."""

    def __init__(self, settings: DistillSettings, latent_size: int, device: torch.device) -> None:
        self.settings, self.latent_size, self.device = settings, latent_size, device
        self._latents: dict[int, Tensor] = {}

    def prepare(self, steps: range) -> None:
        """Compute the latents of these steps, and drop the latents of other steps."""
        self._latents = {step: self._of(step) for step in steps}

    def latents(self, step: int) -> Tensor:
        """Return the latents of the true images at the cameras of a step."""
        return self._latents[step]

    def encode(self, images: Tensor) -> Tensor:
        """Rearrange the pixels of [f, 3, h, w] in [0, 1] into latents [f, c, latent, latent]."""
        small = F.adaptive_avg_pool2d(images, _ORACLE_SIDE)
        return F.pixel_unshuffle(small * 2 - 1, _ORACLE_SIDE // self.latent_size) * _ORACLE_SCALE

    @torch.no_grad()
    def _of(self, step: int) -> Tensor:
        plan = plan_step(self.settings, step)
        images = render_truth(FIGURE, plan.views.c2w, plan.views.fov_deg, plan.resolution, device=self.device)
        return self.encode(images)


class OracleDriver:
    """Guidance by the oracle for step `step`. The networks run too, and `watch` times all parts."""

    def __init__(self, networks: Guidance, channels: int, truths: OracleLatents, watch: DeviceTimer) -> None:
        self.networks, self.channels, self.truths, self.watch = networks, channels, truths, watch
        self.step = 0

    @property
    def guidance(self) -> Guidance:
        """The guidance for `distill.sds.loop.train_step`."""
        return Guidance(self.encode, self.denoise, self.networks.alphas_cumprod)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of the networks, then those of the oracle, as channels of one tensor."""
        known = self.truths.encode(images)
        given = _Mark.apply(_Weightless.apply(images), self.watch, ("render forward", "vae"))
        latents = _Mark.apply(self.networks.encode(given), self.watch, ("vae", "rest"))
        return torch.cat([latents, known], 1)

    @torch.no_grad()
    def denoise(self, noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        """Return the noise predicted by the networks, then the exact noise by the oracle."""
        self.watch.mark("rest")
        predicted = self.networks.denoise(noisy[:, : self.channels], timesteps, views)
        self.watch.mark("unet")
        alpha_bar = self.networks.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        truth = self.truths.latents(self.step)
        known = (noisy[:, self.channels :] - alpha_bar.sqrt() * truth) / (1 - alpha_bar).sqrt()
        return Prediction(*(torch.cat([noise, known], 1) for noise in predicted))
