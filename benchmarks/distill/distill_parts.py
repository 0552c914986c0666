"""What `distill_bench` measures: networks of Stable Diffusion 2.1's size that guide nothing, and an oracle that does.

The networks have random weights, so following them would leave no object to look at. Their latents and the oracle's are
channels of one tensor; all that the networks do is done, forward and backward, and then multiplied by zero.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train.train_bench import SHAPES
from distill.sds.guidance import Guidance, Prediction
from distill.sds.oracle import AnalyticSolid, Ball, Cuboid, render_truth
from distill.sds.schedule import CameraViews, DistillSettings, plan_step
from train.model.multiview import ModelSpec, MultiViewModel
from train.model.noise_schedule import noise_schedule
from train.model.unet import CAMERA_NUMBERS, UNetShape, build_unet, run_unet

# A figure whose front and back differ, with a hand to one side.
FIGURE: Final[tuple[AnalyticSolid, ...]] = (
    Cuboid((-0.22, -0.22, -0.45), (0.22, 0.22, 0.1), (0.85, 0.15, 0.1), (0.1, 0.2, 0.8)),
    Ball((0.0, 0.0, 0.25), 0.2, (0.95, 0.8, 0.2), (0.3, 0.2, 0.1)),
    Ball((0.32, 0.0, -0.2), 0.12, (0.1, 0.7, 0.2), (0.1, 0.7, 0.2)),
)
_ORACLE_SIDE: Final = 64  # pixels that the oracle compares
_ORACLE_SCALE: Final = 2.0  # its latents' range, about that of a VAE's
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Sizes:
    """Which networks guide."""

    unet: UNetShape
    vae_widths: tuple[int, ...]
    vae_blocks: int
    vae_norm_groups: int
    image_size: int


SIZES: Final[Mapping[str, Sizes]] = {
    "paper": Sizes(SHAPES["sd21"], (128, 256, 512, 512), 2, 32, 256),
    "tiny": Sizes(SHAPES["micro"], (8, 16, 16, 16), 1, 4, 64),
}


class Stopwatch:
    """Seconds between marks, added up by name: of the GPU's own clock, or the host's where there is no GPU."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """What has been done since the mark before was `name`."""
        moment: Any = time.perf_counter()
        if self._gpu:
            moment = torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._marks.append((name, moment))

    def seconds(self) -> dict[str, float]:
        """By name, since the last call; waits for the device."""
        if self._gpu:
            torch.cuda.synchronize()
        found: dict[str, float] = {}
        for (_, before), (name, moment) in zip(self._marks, self._marks[1:], strict=False):
            passed = before.elapsed_time(moment) / 1000 if self._gpu else moment - before
            found[name] = found.get(name, 0.0) + passed
        self._marks.clear()
        return found


class _Mark(torch.autograd.Function):
    """The identity; marks when it is passed, in either direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, watch: Stopwatch, names: tuple[str, str]) -> Tensor:
        ctx.watch, ctx.name = watch, names[1]
        watch.mark(names[0])
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.watch.mark(ctx.name)
        return grads[0], None, None


class _Weightless(torch.autograd.Function):
    """The identity, whose gradient is computed all the way here and then zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 0


def random_model(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> MultiViewModel:
    """A model of random weights; it has no image encoder, which no step needs."""
    with torch.device(device):
        unet, vae = build_networks(sizes)
    for part in (unet, vae):
        nn.Module.to(part.requires_grad_(False).eval(), device, dtype)
    spec = ModelSpec(sizes.image_size, sizes.unet.latent_size, 0.18215, "relative", 10.0)
    nothing: Any = nn.Identity()
    return MultiViewModel(unet, vae, nothing, spec, noise_schedule().to(device))


def build_networks(sizes: Sizes) -> Networks:
    """(UNet, VAE) on torch's default device."""
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
    """Floating-point operations of a step's networks, by name: counted on the meta device, nothing is computed.

    The UNet sees every view twice (classifier-free guidance); the VAE's encoder is gone through forward and, for its
    input's gradient alone, backward.
    """
    shape, size, frames = sizes.unet, sizes.image_size, 2 * views
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        unet, vae = build_networks(sizes)
        latents = torch.empty(frames, shape.latent_channels, shape.latent_size, shape.latent_size)
        inputs = torch.zeros(frames), torch.empty(frames, CAMERA_NUMBERS), torch.empty(frames, 1, shape.token_width)
        with FlopCounterMode(display=False) as unet_counter, torch.no_grad():
            run_unet(unet, latents, *inputs, num_frames=4)
        vae.requires_grad_(False)
        pictures = torch.empty(views, 3, size, size, requires_grad=True)
        encoder: Any = vae
        with FlopCounterMode(display=False) as vae_counter:
            encoder.encode(pictures).latent_dist.mean.sum().backward()
    return {"unet": float(unet_counter.get_total_flops()), "vae": float(vae_counter.get_total_flops())}


class Truths:
    """What the oracle knows, worked out before it is asked, so that a step's time has none of it."""

    def __init__(self, settings: DistillSettings, latent_size: int, device: torch.device) -> None:
        self.settings, self.latent_size, self.device = settings, latent_size, device
        self._latents: dict[int, Tensor] = {}

    def prepare(self, steps: range) -> None:
        """For these steps and no others."""
        self._latents = {step: self._of(step) for step in steps}

    def latents(self, step: int) -> Tensor:
        """The true pictures' latents at the cameras of a step."""
        return self._latents[step]

    def encode(self, pictures: Tensor) -> Tensor:
        """[f, 3, h, w] in [0, 1] -> [f, c, latent, latent]: pixels, rearranged."""
        small = F.adaptive_avg_pool2d(pictures, _ORACLE_SIDE)
        return F.pixel_unshuffle(small * 2 - 1, _ORACLE_SIDE // self.latent_size) * _ORACLE_SCALE

    @torch.no_grad()
    def _of(self, step: int) -> Tensor:
        plan = plan_step(self.settings, step)
        pictures = render_truth(FIGURE, plan.views.c2w, plan.views.fov_deg, plan.resolution, device=self.device)
        return self.encode(pictures)


class Driven:
    """Guidance by the oracle of step `step`, with networks in the loop; `watch` learns when what is done."""

    def __init__(self, networks: Guidance, channels: int, truths: Truths, watch: Stopwatch) -> None:
        self.networks, self.channels, self.truths, self.watch = networks, channels, truths, watch
        self.step = 0

    @property
    def guidance(self) -> Guidance:
        """For `distill.sds.loop.train_step`."""
        return Guidance(self.encode, self.denoise, self.networks.alphas_cumprod)

    def encode(self, pictures: Tensor) -> Tensor:
        """The networks' latents, then the oracle's."""
        known = self.truths.encode(pictures)
        given = _Mark.apply(_Weightless.apply(pictures), self.watch, ("render forward", "vae"))
        latents = _Mark.apply(self.networks.encode(given), self.watch, ("vae", "rest"))
        return torch.cat([latents, known], 1)

    @torch.no_grad()
    def denoise(self, noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        """The networks' noise, then the noise that is left over the truth."""
        self.watch.mark("rest")
        predicted = self.networks.denoise(noisy[:, : self.channels], timesteps, views)
        self.watch.mark("unet")
        alpha_bar = self.networks.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        truth = self.truths.latents(self.step)
        known = (noisy[:, self.channels :] - alpha_bar.sqrt() * truth) / (1 - alpha_bar).sqrt()
        return Prediction(*(torch.cat([noise, known], 1) for noise in predicted))
