"""The multi-view diffusion model: stock diffusers parts and one attention processor.

Axis letters: `b` objects, `f` frames (views of one object), `c` channels, `h w` rows and columns, `l` tokens. Frames of
one object are neighbours in the `(b f)` axis.

The UNet is MVDream's, expressed as diffusers' `UNet2DConditionModel`: the camera's 16 numbers are its class labels
(a two-layer MLP added to the time embedding), and self-attention joins the frames of an object. The same network runs
with any number of frames: the reference frame of stage 2 is one more in front, and at inference it is absent.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dataset.camera import mvdream_camera, relative_camera, released_isotropic3d_camera
from dataset.errors import UserError
from train.device import to_device
from train.model.clip_vision import load_clip_vision
from train.model.image_encoder import ImageEncoder, load_image_encoder, resize, save_image_encoder
from train.model.noise_schedule import noise_schedule
from train.model.unet import load_pretrained, load_unet, run_unet

EMBEDDED_MODEL: Final = Path("weights/tiny")  # of the checkout: what is used when no model is given
SPEC_FILE: Final = "model.json"

CameraConvention = Literal["relative", "absolute", "released_isotropic3d"]


@dataclass(frozen=True)
class ModelSpec:
    """What the weights do not say. `latent_scale` multiplies the VAE's latents so that their deviation is about 1."""

    image_size: int  # pixels a side, what the VAE sees
    latent_size: int  # rows of a latent
    latent_scale: float
    cameras: CameraConvention
    guidance_scale: float  # default of sampling: how far to go beyond the unconditional prediction


def camera_labels(
    convention: CameraConvention,
    elevation_deg: ArrayLike,
    azimuth_deg: ArrayLike,
    ref_elevation_deg: ArrayLike,
    ref_azimuth_deg: ArrayLike,
) -> Tensor:
    """Labels [..., 16] of views, in the convention that the weights are trained with.

    relative: to the reference (App. A). absolute: as MVDream's, for objects that have a front; the reference's is its
    own camera then (with the others elevation = azimuth = 0).
    """
    if convention == "absolute":
        return torch.from_numpy(mvdream_camera(elevation_deg, azimuth_deg))
    if convention == "relative":
        return torch.from_numpy(relative_camera(elevation_deg, azimuth_deg, ref_elevation_deg, ref_azimuth_deg))
    elevation = np.asarray(elevation_deg, np.float64) - np.asarray(ref_elevation_deg, np.float64)
    azimuth = np.asarray(azimuth_deg, np.float64) - np.asarray(ref_azimuth_deg, np.float64)
    return torch.from_numpy(released_isotropic3d_camera(elevation, azimuth))


def posterior(vae: nn.Module, images: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, h, w] in [0, 1] -> mean and log variance of the VAE's posterior, float32 [n, c, h, w] each.

    As the VAE gives them: not yet multiplied by the model's latent scale. Differentiable.
    """
    pixels = resize(images.float(), image_size) * 2 - 1
    distribution = vae.encode(pixels.to(_dtype(vae))).latent_dist  # type: ignore[operator]
    return distribution.mean.float(), distribution.logvar.float()


@dataclass(frozen=True)
class MultiViewModel:
    """UNet, VAE and image encoder on one device."""

    unet: nn.Module
    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    alphas_cumprod: Tensor  # [1000]

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def embed_image(self, rgb: Tensor) -> Tensor:
        """Pictures [b, 3, h, w] in [0, 1] on white -> conditioning tokens [b, 1, c]; zeros mean unconditional."""
        tokens: Tensor = self.image_encoder(rgb)
        return tokens[:, None]

    def encode(self, images: Tensor) -> Tensor:
        """Pictures [n, 3, h, w] in [0, 1] -> scaled latents [n, c, h, w]; the mean of the posterior, differentiable.

        The posterior's own deviation is small beside the latents'; its mean makes encoding a function.
        """
        mean, _ = self.posterior(images)
        return mean * self.spec.latent_scale

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`posterior` of pictures [n, 3, h, w] at this model's size."""
        return posterior(self.vae, images, self.spec.image_size)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [n, c, h, w] -> pictures [n, 3, h, w] in [0, 1]."""
        unscaled = latents.float() / self.spec.latent_scale
        pixels: Tensor = self.vae.decode(unscaled.to(_dtype(self.vae))).sample  # type: ignore[operator]
        return ((pixels.float() + 1) / 2).clamp(0, 1)

    def predict_noise(
        self, latents: Tensor, timesteps: Tensor, cameras: Tensor, tokens: Tensor, num_frames: int
    ) -> Tensor:
        """As `run_unet`, with one token row an object: `tokens` [b, 1, c].

        Raises UserError where the UNet reads the reference picture too and was not given it.
        """
        expected = int(self.unet.config.in_channels)  # type: ignore[union-attr, arg-type]
        if latents.shape[1] != expected:
            raise UserError(
                f"the model reads {expected} channels, the latents have {latents.shape[1]}: it was trained with "
                "--reference channels and needs the picture itself (`train.model.reference.with_reference_image`)"
            )
        context = tokens.repeat_interleave(num_frames, dim=0)
        return run_unet(self.unet, latents, timesteps, cameras, context, num_frames=num_frames)

    def labels(
        self,
        elevation_deg: ArrayLike,
        azimuth_deg: ArrayLike,
        ref_elevation_deg: ArrayLike,
        ref_azimuth_deg: ArrayLike,
    ) -> Tensor:
        """`camera_labels` in this model's convention, on its device."""
        labels = camera_labels(self.spec.cameras, elevation_deg, azimuth_deg, ref_elevation_deg, ref_azimuth_deg)
        return to_device(labels, self.device)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def assemble(
    unet: nn.Module,
    vae: nn.Module,
    image_encoder: ImageEncoder,
    spec: ModelSpec,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> MultiViewModel:
    """The model on a device; VAE and image encoder are frozen (the paper trains the UNet alone)."""
    for part in (vae, image_encoder):
        part.requires_grad_(False).eval()
    token_width = int(unet.config.cross_attention_dim)  # type: ignore[union-attr, arg-type]
    if token_width != image_encoder.embed_dim:
        raise UserError(
            f"the UNet attends to tokens of width {token_width}, the image encoder gives {image_encoder.embed_dim}; "
            "they belong to different models"
        )
    for part in (unet, vae, image_encoder):
        nn.Module.to(part, device, dtype)  # diffusers' own `to` warns about lists that are empty
    return MultiViewModel(unet, vae, image_encoder, spec, noise_schedule().to(device))


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32, image_encoder: ImageEncoder | None = None
) -> MultiViewModel:
    """Read a model folder, in evaluation mode. `image_tower` stands in where the folder has none (MVDream's)."""
    spec = read_spec(folder)
    image_encoder = read_image_encoder(folder) or image_encoder
    if image_encoder is None:
        raise UserError(f"{folder}: holds no image_tower/; it is a base for `python -m train stage1`, not yet a model")
    unet = load_unet(folder / "unet").eval()
    return assemble(unet, load_vae(folder / "vae"), image_encoder, spec, device=device, dtype=dtype)


def read_image_encoder(folder: Path) -> ImageEncoder | None:
    """A model folder's tower: `image_tower/`, or the `image_encoder/` of a diffusers folder; None without one."""
    if (folder / "image_tower").is_dir():
        return load_image_encoder(folder / "image_tower")
    return load_clip_vision(folder / "image_encoder") if (folder / "image_encoder").is_dir() else None


def save_model(model: MultiViewModel, folder: Path, parts: Sequence[str] = ("unet", "vae", "image_tower")) -> None:
    """Write a model folder in float32; `model.json` comes last and marks it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    if "unet" in parts:
        model.unet.save_pretrained(folder / "unet")  # type: ignore[operator]
    if "vae" in parts:
        model.vae.save_pretrained(folder / "vae")  # type: ignore[operator]
    if "image_tower" in parts:
        save_image_encoder(model.image_encoder, folder / "image_tower")
    write_spec(model.spec, folder)


def write_spec(spec: ModelSpec, folder: Path) -> None:
    """Write `model.json`."""
    (folder / SPEC_FILE).write_text(json.dumps(asdict(spec), indent=2) + "\n")


def read_spec(folder: Path) -> ModelSpec:
    """Read `model.json`; its absence means that the folder is no (finished) model."""
    path = folder / SPEC_FILE
    if folder == EMBEDDED_MODEL and not folder.exists():
        raise UserError(
            f"{folder} is not in this folder: run from the checkout, whose embedded model it is, or give another one "
            "(MODEL=... or --model)"
        )
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder ({SPEC_FILE} is missing); train or convert one first")
    try:
        spec = ModelSpec(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a model's settings ({error}); train or convert the model again") from error
    if spec.cameras not in get_args(CameraConvention):
        raise UserError(f"{path}: unknown camera convention {spec.cameras!r}; known: {get_args(CameraConvention)}")
    return spec


def load_vae(folder: Path) -> nn.Module:
    """Read a diffusers AutoencoderKL folder, float32."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return load_pretrained(AutoencoderKL, folder)
