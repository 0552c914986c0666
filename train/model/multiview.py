"""The multi-view diffusion model: UNet, VAE and image encoder, and the model folder that stores them.

Axis letters: `b` objects, `f` frames (views of one object), `c` channels, `h w` rows and columns, `l` tokens. The
frames of one object are adjacent in the `(b f)` axis.

The UNet is MVDream's, expressed as diffusers' `UNet2DConditionModel`. The 16 camera values are its class labels (a
two-layer MLP adds them to the time embedding), and self-attention runs over all frames of an object. The network
accepts any number of frames. Stage 2 adds the reference image as an additional first frame; inference omits it.
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

BUNDLED_MODEL: Final = Path("weights/tiny")  # the bundled model, relative to the checkout; used when no model is given
SPEC_FILE: Final = "model.json"

CameraConvention = Literal["relative", "absolute", "released_isotropic3d"]


@dataclass(frozen=True)
class ModelSpec:
    """Settings of a model that are not part of the weights, stored in model.json.

    Latents are multiplied by `latent_scale`, which gives them a standard deviation of about 1.
    """

    image_size: int  # height and width of the VAE's input in pixels
    latent_size: int  # height and width of the latents
    latent_scale: float
    cameras: CameraConvention
    guidance_scale: float  # default of classifier-free guidance when sampling


def camera_labels(
    convention: CameraConvention,
    elevation_deg: ArrayLike,
    azimuth_deg: ArrayLike,
    ref_elevation_deg: ArrayLike,
    ref_azimuth_deg: ArrayLike,
) -> Tensor:
    """Return the camera labels [..., 16] of views in one of the three conventions. Angles are in degrees.

    Args:
        convention: relative: camera relative to the reference image (App. A). absolute: MVDream's world camera, for
            objects with a known front. released_isotropic3d: relative, as computed by the released code, which converts
            degrees to radians twice.
        elevation_deg: Elevations [...] of the views.
        azimuth_deg: Azimuths [...] of the views.
        ref_elevation_deg: Elevations [...] of the reference images, or a scalar. Ignored if absolute.
        ref_azimuth_deg: Azimuths [...] of the reference images, or a scalar. Ignored if absolute.
    """
    if convention == "absolute":
        return torch.from_numpy(mvdream_camera(elevation_deg, azimuth_deg))
    if convention == "relative":
        return torch.from_numpy(relative_camera(elevation_deg, azimuth_deg, ref_elevation_deg, ref_azimuth_deg))
    elevation = np.asarray(elevation_deg, np.float64) - np.asarray(ref_elevation_deg, np.float64)
    azimuth = np.asarray(azimuth_deg, np.float64) - np.asarray(ref_azimuth_deg, np.float64)
    return torch.from_numpy(released_isotropic3d_camera(elevation, azimuth))


def posterior(vae: nn.Module, images: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the log variance of the VAE's posterior of each image, float32 [n, c, h, w] each.

    The mean is not multiplied by the model's latent scale. The function is differentiable.

    Args:
        vae: diffusers' AutoencoderKL.
        images: Images [n, 3, H, W] in [0, 1]: n images of H rows and W columns. Latents have h rows and w columns.
        image_size: Height and width in pixels to which the images are resized first.
    """
    pixels = resize(images.float(), image_size) * 2 - 1
    distribution = vae.encode(pixels.to(_dtype(vae))).latent_dist  # type: ignore[operator]
    return distribution.mean.float(), distribution.logvar.float()


@dataclass(frozen=True)
class MultiViewModel:
    """A multi-view diffusion model: UNet, VAE and image encoder on one device, settings and noise schedule."""

    unet: nn.Module
    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    alphas_cumprod: Tensor  # [1000]

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def embed_image(self, rgb: Tensor) -> Tensor:
        """Embed images [b, 3, h, w] in [0, 1] on white, and return the embeddings as conditioning tokens [b, 1, c].

        A token of zeros makes the model unconditional.
        """
        tokens: Tensor = self.image_encoder(rgb)
        return tokens[:, None]

    def encode(self, images: Tensor) -> Tensor:
        """Encode n images [n, 3, H, W] in [0, 1] to latents [n, c, h, w], and multiply these by the latent scale.

        Images have H rows and W columns, latents h and w. The latents are the means of the VAE's posteriors. They
        are not sampled, because the standard deviation of a posterior is small compared with that of the latents. The
        method is differentiable and deterministic.
        """
        mean, _ = self.posterior(images)
        return mean * self.spec.latent_scale

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of the VAE's posterior of each of n images, [n, c, h, w] each.

        `images` are [n, 3, H, W] in [0, 1]. Images have H rows and W columns, latents h and w. The mean is not
        multiplied by the latent scale.
        """
        return posterior(self.vae, images, self.spec.image_size)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode n latents [n, c, h, w] to images [n, 3, H, W] in [0, 1].

        The method first divides the latents by the latent scale. Images have H rows and W columns, latents h and w.
        """
        unscaled = latents.float() / self.spec.latent_scale
        pixels: Tensor = self.vae.decode(unscaled.to(_dtype(self.vae))).sample  # type: ignore[operator]
        return ((pixels.float() + 1) / 2).clamp(0, 1)

    def predict_noise(
        self, latents: Tensor, timesteps: Tensor, cameras: Tensor, tokens: Tensor, num_frames: int
    ) -> Tensor:
        """Predict the noise [(b f), c, h, w] of noisy latents, with one conditioning token per object.

        Args:
            latents: Noisy latents [(b f), c, h, w] of b objects with f frames each. The frames of an object are
                adjacent.
            timesteps: Timesteps [(b f)].
            cameras: Camera labels [(b f), 16].
            tokens: Conditioning tokens [b, 1, d] of width d.
            num_frames: Frames per object, f.

        Raises:
            UserError: The UNet reads the reference image as additional input channels, which `latents` lack.
        """
        expected = int(self.unet.config.in_channels)  # type: ignore[union-attr, arg-type]
        if latents.shape[1] != expected:
            raise UserError(
                f"the UNet expects {expected} input channels, but the latents have {latents.shape[1]}. The model was "
                "trained with --reference-mode channels and needs the reference image; pass the model and the image to "
                "`train.model.reference.with_reference_image`, and use the model that this function returns"
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
        """Return the camera labels [..., 16] of views in this model's convention, on the device of the model.

        The arguments are those of the function `camera_labels`.
        """
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
    """Return a model that consists of the given parts, moved to a device. VAE and image encoder are frozen.

    Args:
        unet: UNet with joint attention.
        vae: diffusers' AutoencoderKL.
        image_encoder: Image encoder.
        spec: Settings of the model.
        device: Device to which all parts are moved.
        dtype: Floating-point type to which all parts are converted.

    Raises:
        UserError: The image encoder's embeddings do not have the width that the UNet expects.
    """
    for part in (vae, image_encoder):
        part.requires_grad_(False).eval()
    token_width = int(unet.config.cross_attention_dim)  # type: ignore[union-attr, arg-type]
    if token_width != image_encoder.embed_dim:
        raise UserError(
            f"the UNet expects embeddings of width {token_width}, but those of the image encoder have width "
            f"{image_encoder.embed_dim}; use a UNet and an image encoder of the same model"
        )
    for part in (unet, vae, image_encoder):
        nn.Module.to(part, device, dtype)  # diffusers' own `to` warns about empty lists
    return MultiViewModel(unet, vae, image_encoder, spec, noise_schedule().to(device))


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32, image_encoder: ImageEncoder | None = None
) -> MultiViewModel:
    """Load a model from its folder and put it in evaluation mode.

    Args:
        folder: Model folder.
        device: Device to load the model to.
        dtype: Floating-point type of all parts.
        image_encoder: Image encoder to use if the folder has none (a converted MVDream has none). None: a folder
            without image encoder is an error.

    Raises:
        UserError: The folder is incomplete or damaged, or there is no image encoder.
    """
    spec = read_spec(folder)
    image_encoder = read_image_encoder(folder) or image_encoder
    if image_encoder is None:
        raise UserError(
            f"the model folder {folder} contains no image encoder (image_tower/ is missing; a converted MVDream has "
            f"none); fine-tune this model with `python -m train stage1 --init-from {folder} --out OUT`, then give OUT "
            "as the model"
        )
    unet = load_unet(folder / "unet").eval()
    return assemble(unet, load_vae(folder / "vae"), image_encoder, spec, device=device, dtype=dtype)


def read_image_encoder(folder: Path) -> ImageEncoder | None:
    """Load the image encoder of a model folder, from the subfolder `image_tower/` or `image_encoder/`.

    Exported diffusers folders contain `image_encoder/`. Returns None if neither subfolder exists.
    """
    if (folder / "image_tower").is_dir():
        return load_image_encoder(folder / "image_tower")
    return load_clip_vision(folder / "image_encoder") if (folder / "image_encoder").is_dir() else None


def save_model(model: MultiViewModel, folder: Path, parts: Sequence[str] = ("unet", "vae", "image_tower")) -> None:
    """Write a model folder. `model.json` is written last and marks the folder as complete.

    `parts` are the names of the subfolders to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "unet" in parts:
        model.unet.save_pretrained(folder / "unet")  # type: ignore[operator]
    if "vae" in parts:
        model.vae.save_pretrained(folder / "vae")  # type: ignore[operator]
    if "image_tower" in parts:
        save_image_encoder(model.image_encoder, folder / "image_tower")
    write_spec(model.spec, folder)


def write_spec(spec: ModelSpec, folder: Path) -> None:
    """Write the settings of a model to `model.json` in the model folder."""
    (folder / SPEC_FILE).write_text(json.dumps(asdict(spec), indent=2) + "\n")


def read_spec(folder: Path) -> ModelSpec:
    """Return the settings of a model from `model.json` in the model folder.

    Raises:
        UserError: The file is damaged, or missing because the folder is not a complete model folder.
    """
    path = folder / SPEC_FILE
    if folder == BUNDLED_MODEL and not folder.exists():
        raise UserError(
            f"{folder}: the bundled model is not in the current folder; run the command from the checkout, or give "
            "another model with MODEL=... or --model"
        )
    if not path.is_file():
        raise UserError(
            f"{folder}: not a model folder ({SPEC_FILE} is missing); give the folder of a finished training run or of "
            "a converted model"
        )
    try:
        spec = ModelSpec(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged model settings ({error}); train or convert the model again") from error
    if spec.cameras not in get_args(CameraConvention):
        raise UserError(
            f"{path}: `cameras` is {spec.cameras!r}, an unknown convention of camera labels; it must be one of "
            f"{', '.join(get_args(CameraConvention))}; train or convert the model again"
        )
    return spec


def load_vae(folder: Path) -> nn.Module:
    """Load a diffusers AutoencoderKL from a folder, in float32. Raises UserError when the folder cannot be read."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return load_pretrained(AutoencoderKL, folder)
