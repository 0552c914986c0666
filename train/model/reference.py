"""Condition the UNet on the latent of the reference image, as an additional frame or as input channels (Fig. 8).

The additional frame is the paper's method. Input channels are the paper's ablation, as in Zero123: the clean reference
latent is concatenated to the noisy latent of each frame, so that the UNet has twice as many input channels. There is
then no reference frame. `widen_conv_in` initializes the new weights to zero, so that the outputs of the base model do
not change at first. A model with these input channels needs the reference image at inference too;
`with_reference_image` supplies the image.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.io.option_checks import check_number
from train.model.multiview import MultiViewModel, read_spec
from train.model.unet import widen_conv_in

ReferenceMode = Literal["attention", "none", "channels"]
"""How the UNet reads the reference latent. attention: as a clean frame in self-attention (the paper's Explicit
Multi-view Attention). none: not at all (stage 1, and the ablation of Fig. 7). channels: as additional input channels of
each frame."""


def prepare_for_reference(unet: nn.Module, use: ReferenceMode) -> nn.Module:
    """Prepare the UNet of a base model, in place, for training with a reference mode, and return the UNet.

    Args:
        unet: UNet of the base model.
        use: How the UNet will use the reference image.

    Raises:
        UserError: The UNet already reads the reference image as input channels.
    """
    if use == "channels":
        return start_channel_concat(unet)
    if reads_reference(unet):
        raise UserError(
            "the base model reads the reference image as input channels (--reference-mode channels); give a base "
            "model that was trained without --reference-mode channels"
        )
    return unet


def start_channel_concat(unet: nn.Module) -> nn.Module:
    """Double the number of input channels of a UNet, in place, and return the UNet.

    The first half of the channels is for the noisy latent, the second half for the reference latent. Raises UserError
    when the number of input channels has been doubled before.
    """
    settings: Any = unet.config
    if settings.in_channels != settings.out_channels:
        raise UserError(
            f"the base model already reads {settings.in_channels} channels, which include the reference image; give a "
            "base model that was trained without --reference-mode channels"
        )
    return widen_conv_in(unet, 2 * int(settings.out_channels))


def reads_reference(unet: nn.Module) -> bool:
    """Return whether a UNet reads the reference image as input channels (--reference-mode channels)."""
    settings: Any = unet.config
    return _widened(settings.in_channels, settings.out_channels)


def folder_reads_reference(folder: Path) -> bool:
    """Return whether the UNet of a model folder reads the reference image as input channels.

    Raises:
        UserError: `folder` is not a complete model folder, or the settings of its UNet are damaged.
    """
    read_spec(folder)
    path = folder / "unet" / "config.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
        return _widened(settings["in_channels"], settings["out_channels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: missing or damaged settings of the UNet ({error}); train or convert the model again"
        ) from error


def _widened(in_channels: int, out_channels: int) -> bool:
    return in_channels == 2 * out_channels


def check_reference_options(
    folder: Path, *, with_reference: bool, azimuth_deg: float, with_reference_loss: bool | None = None
) -> None:
    """Check that the options --with-reference and --azimuth-deg fit the model and each other.

    Args:
        folder: Model folder.
        with_reference: Whether to condition the model on the reference image in addition to its embedding.
        azimuth_deg: Azimuth of the camera of the reference image in degrees.
        with_reference_loss: Whether a loss compares the reference image with a rendering from the same camera
            (--reference-loss-weight). None: the command has no option --reference-loss-weight.

    Raises:
        UserError: The options do not fit the model or each other.
    """
    if with_reference and folder_reads_reference(folder):
        raise UserError(
            f"{folder}: the model always reads the reference image as input channels, not as a frame; drop "
            "--with-reference"
        )
    check_number("--azimuth-deg", azimuth_deg)
    if azimuth_deg and not (with_reference or with_reference_loss):
        if with_reference_loss is None:
            raise UserError("--azimuth-deg needs --with-reference; add --with-reference, or drop --azimuth-deg")
        raise UserError(
            "--azimuth-deg needs --with-reference or --reference-loss-weight; add one of them, or drop --azimuth-deg"
        )
    if azimuth_deg and read_spec(folder).cameras != "absolute":
        raise UserError(f"{folder}: the model's camera labels are relative to the reference image; drop --azimuth-deg")


def concat_reference(latents: Tensor, reference: Tensor, num_frames: int) -> Tensor:
    """Concatenate the noisy latent of each frame with the reference latent of the same object, along the channels.

    Args:
        latents: Noisy latents [(r b f), c, h, w] of b objects with f frames each. The sequence of all objects may occur
            r times, as for classifier-free guidance, where r = 2.
        reference: Reference latents [b, c, h, w], one per object. This function repeats them r times.
        num_frames: Frames per object, f.

    Returns:
        The input of the UNet, [(r b f), 2c, h, w].

    Raises:
        UserError: The number of latents is not a multiple of the number of objects times `num_frames`.
    """
    objects = len(latents) // num_frames
    if objects % len(reference) or len(latents) % num_frames:
        raise UserError(
            f"got {len(latents)} noisy latents, not a multiple of {len(reference) * num_frames}, for {len(reference)} "
            f"objects with {num_frames} frames each; pass `num_frames` latents per reference latent"
        )
    rounds = reference.repeat(objects // len(reference), 1, 1, 1)
    return torch.cat([latents, rounds.repeat_interleave(num_frames, dim=0).to(latents.dtype)], dim=1)


class ReferenceChannelsUNet(nn.Module):
    """Wrapper that concatenates the reference latents [b, c, h, w] of b objects to the input of a widened UNet.

    A widened UNet has input channels for the reference latent (`start_channel_concat`). The wrapper is called like a
    UNet without these channels.
    """

    reference: Tensor

    def __init__(self, unet: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("reference", reference, persistent=False)

    @property
    def config(self) -> Any:
        """The configuration of the wrapped UNet, except that `in_channels` does not count the reference channels."""
        settings: Any = self.unet.config
        return type(settings)({**settings, "in_channels": settings.out_channels})

    def forward(self, sample: Tensor, timestep: Tensor, *, cross_attention_kwargs: dict[str, int], **rest: Any) -> Any:
        """Concatenate the reference latents to the input and return the result of `UNet2DConditionModel.forward`.

        Args:
            sample: Noisy latents [(b f), c, h, w] of b objects with f frames each.
            timestep: Timesteps [(b f)].
            cross_attention_kwargs: Dictionary with the entry `num_frames`, f.
            **rest: Further arguments of the UNet.
        """
        joined = concat_reference(sample, self.reference, cross_attention_kwargs["num_frames"])
        return self.unet(joined, timestep, cross_attention_kwargs=cross_attention_kwargs, **rest)


class ReferenceFrameUNet(nn.Module):
    """Wrapper with which a UNet attends to the reference latents [b, c, h, w] of b objects, as in stage 2.

    Each reference latent becomes a clean first frame at timestep 0 (Eq. 4). The camera labels of these frames are
    `camera` [b, 16]. The wrapper is called like the UNet. It discards the prediction for the reference frames.
    """

    reference: Tensor
    camera: Tensor

    def __init__(self, unet: nn.Module, reference: Tensor, camera: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("reference", reference, persistent=False)
        self.register_buffer("camera", camera.to(reference), persistent=False)

    @property
    def config(self) -> Any:
        """The configuration of the wrapped UNet."""
        return self.unet.config

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        *,
        encoder_hidden_states: Tensor,
        class_labels: Tensor,
        cross_attention_kwargs: dict[str, int],
        **rest: Any,
    ) -> tuple[Tensor]:
        """Prepend the reference frame, and return a tuple with the predicted noise of the other frames.

        The noise is [(b f), c, h, w], like `sample`.

        Args:
            sample: Noisy latents [(b f), c, h, w] of b objects with f frames each.
            timestep: Timesteps [(b f)].
            encoder_hidden_states: Conditioning tokens [(b f), l, d]: l tokens of width d, the same for all frames of an
                object.
            class_labels: Camera labels [(b f), 16].
            cross_attention_kwargs: Dictionary with the entry `num_frames`, f.
            **rest: Further arguments of the UNet, including `return_dict=False`.
        """
        frames = cross_attention_kwargs["num_frames"]
        objects = len(sample) // frames
        token = encoder_hidden_states[::frames]
        predicted = self.unet(
            _prepend_frame(self.reference.repeat(objects // len(self.reference), 1, 1, 1), sample),
            _prepend_frame(torch.zeros_like(timestep[:objects]), timestep),
            encoder_hidden_states=_prepend_frame(token, encoder_hidden_states),
            class_labels=_prepend_frame(self.camera.repeat(objects // len(self.camera), 1), class_labels),
            cross_attention_kwargs={"num_frames": frames + 1},
            **rest,
        )[0]
        own = predicted.reshape(objects, frames + 1, *predicted.shape[1:])[:, 1:]
        return (own.flatten(0, 1),)


def _prepend_frame(first: Tensor, rest: Tensor) -> Tensor:
    """Put one frame per object, `first` [b, ...], before the frames `rest` [(b f), ...]; return [(b (1 + f)), ...]."""
    frames = rest.reshape(len(first), -1, *rest.shape[1:])
    return torch.cat([first[:, None].to(rest.dtype), frames], dim=1).flatten(0, 1)


def with_reference_image(
    model: MultiViewModel, rgb: Tensor, *, as_frame: bool = False, elevation_deg: float = 0.0, azimuth_deg: float = 0.0
) -> MultiViewModel:
    """Return the model conditioned on reference images, if the model needs them or `as_frame` is true.

    Args:
        model: Model to condition. A model that reads the reference image as input channels needs the images.
        rgb: Reference images [b, 3, h, w] in [0, 1] on white.
        as_frame: Whether a model without such input channels receives the images as clean reference frames, as in
            stage 2. If False, a model without such input channels is returned unchanged.
        elevation_deg: Elevation of the images' camera in degrees; ignored unless the camera labels are absolute.
        azimuth_deg: Azimuth of the images' camera in degrees; ignored unless the camera labels are absolute.

    Raises:
        UserError: `as_frame` is true, but the model reads the reference image as input channels.
    """
    channels = reads_reference(model.unet)
    if channels and as_frame:
        raise UserError(
            "the model always reads the reference image as input channels, not as a frame; drop --with-reference"
        )
    if not channels and not as_frame:
        return model
    with torch.no_grad():
        latents = model.encode(rgb.to(model.device))
    camera = model.labels(elevation_deg, azimuth_deg, elevation_deg, azimuth_deg)
    return with_reference_latents(model, latents, camera.expand(len(latents), -1))


def with_reference_latents(model: MultiViewModel, reference: Tensor, camera: Tensor) -> MultiViewModel:
    """Return the model conditioned on the reference latents of b objects.

    The latents become input channels if the UNet was widened for reference latents, otherwise a clean first frame.

    Args:
        model: Model to condition.
        reference: Reference latents [b, c, h, w], multiplied by the latent scale.
        camera: Camera labels [b, 16] of the reference images.
    """
    if reads_reference(model.unet):
        return replace(model, unet=ReferenceChannelsUNet(model.unet, reference))
    return replace(model, unet=ReferenceFrameUNet(model.unet, reference, camera))
