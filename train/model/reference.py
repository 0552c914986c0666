"""Condition the UNet on the latent of the reference image, as a frame or as input channels (Fig. 8).

Concatenation along channels is the ablation, as in Zero123. The UNet then reads twice the number of latent channels:
each frame is [noisy | clean reference], and there is no reference frame. `widen_conv_in` initializes the new weights to
zero, so that the outputs of the base model do not change. Unlike the paper's model, this model needs the reference
image at inference; `with_reference_image` supplies it to every call.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.io.option_checks import check_number
from train.model.multiview import MultiViewModel, read_spec
from train.model.unet import widen_conv_in

_AS_CHANNELS: Final = "the model always reads the reference image as input channels, not as a frame"
ReferenceMode = Literal["attention", "none", "channels"]
"""How the UNet reads the reference latent. attention: as a clean frame in self-attention (the paper's Explicit
Multi-view Attention). none: not at all (stage 1, and the ablation of Fig. 7). channels: as additional input channels of
each frame."""


def prepare_for_reference(unet: nn.Module, use: ReferenceMode) -> nn.Module:
    """Prepare a base UNet, in place, for a reference mode. Raises UserError when it already reads references."""
    if use == "channels":
        return start_channel_concat(unet)
    if reads_reference(unet):
        raise UserError(
            "the base model reads the reference image as input channels (--reference-mode channels); give a base "
            "model that was trained without them"
        )
    return unet


def start_channel_concat(unet: nn.Module) -> nn.Module:
    """Widen a base UNet, in place, so that its input channels are those of the noisy and the reference latents.

    Raises UserError when the UNet is widened already.
    """
    settings: Any = unet.config
    if settings.in_channels != settings.out_channels:
        raise UserError(
            f"the base model already reads {settings.in_channels} channels, which include the reference image; give a "
            "base model that was trained without --reference-mode channels"
        )
    return widen_conv_in(unet, 2 * int(settings.out_channels))


def reads_reference(unet: nn.Module) -> bool:
    """Return whether this UNet reads the reference as input channels."""
    settings: Any = unet.config
    return _widened(settings.in_channels, settings.out_channels)


def folder_reads_reference(folder: Path) -> bool:
    """Return whether the UNet of a model folder reads the reference as input channels."""
    settings: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text())
    return _widened(settings["in_channels"], settings["out_channels"])


def _widened(in_channels: int, out_channels: int) -> bool:
    return in_channels == 2 * out_channels


def check_reference_options(
    folder: Path, *, with_reference: bool, azimuth_deg: float, with_reference_loss: bool | None = None
) -> None:
    """Check --with-reference and --azimuth-deg.

    Args:
        folder: Model folder.
        with_reference: Whether to condition the model on the image itself.
        azimuth_deg: Azimuth of the image's camera in degrees.
        with_reference_loss: Whether the image supervises the reference view (--reference-loss-weight). None: the
            command has no such option.

    Raises:
        UserError: the options do not fit the model folder or each other.
    """
    if with_reference and folder_reads_reference(folder):
        raise UserError(f"{folder}: {_AS_CHANNELS}; drop --with-reference")
    check_number("--azimuth-deg", azimuth_deg)
    if azimuth_deg and not (with_reference or with_reference_loss):
        if with_reference_loss is None:
            raise UserError("--azimuth-deg needs --with-reference; add --with-reference, or drop --azimuth-deg")
        raise UserError(
            "--azimuth-deg needs --with-reference or --reference-loss-weight; add one of them, or drop --azimuth-deg"
        )
    if azimuth_deg and read_spec(folder).cameras != "absolute":
        raise UserError(f"{folder}: its camera labels are relative to the reference image; drop --azimuth-deg")


def concat_reference(latents: Tensor, reference: Tensor, num_frames: int) -> Tensor:
    """Concatenate noisy latents [(b f), c, h, w] and references [b, c, h, w] to [(b f), 2c, h, w].

    `latents` may contain all objects several times in a row, as classifier-free guidance needs; the references are then
    repeated as often.

    Raises:
        UserError: the number of latents is not a multiple of objects times frames.
    """
    objects = len(latents) // num_frames
    if objects % len(reference) or len(latents) % num_frames:
        raise UserError(
            f"got {len(latents)} latents, not a multiple of {len(reference)} objects with {num_frames} frames each"
        )
    rounds = reference.repeat(objects // len(reference), 1, 1, 1)
    return torch.cat([latents, rounds.repeat_interleave(num_frames, dim=0).to(latents.dtype)], dim=1)


class ReferenceChannelsUNet(nn.Module):
    """A widened UNet that concatenates the reference latents [b, c, h, w] of its objects to its input.

    It has the call signature of the base UNet.
    """

    reference: Tensor

    def __init__(self, unet: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("reference", reference, persistent=False)

    @property
    def config(self) -> Any:
        """The UNet's config, with `in_channels` set to the number of channels that callers pass."""
        settings: Any = self.unet.config
        return type(settings)({**settings, "in_channels": settings.out_channels})

    def forward(self, sample: Tensor, timestep: Tensor, *, cross_attention_kwargs: dict[str, int], **rest: Any) -> Any:
        """Predict as `UNet2DConditionModel.forward` does, from `sample` [(b f), c, h, w] and `timestep` [(b f)]."""
        joined = concat_reference(sample, self.reference, cross_attention_kwargs["num_frames"])
        return self.unet(joined, timestep, cross_attention_kwargs=cross_attention_kwargs, **rest)


class ReferenceFrameUNet(nn.Module):
    """A UNet that attends to the reference latents [b, c, h, w] of its objects, as in stage 2.

    The reference is a clean first frame at timestep 0 (Eq. 4) with its camera label [b, 16]. The wrapper has the call
    signature of the UNet and discards the prediction for the reference frame.
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
        """The UNet's config."""
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
        """Predict as `UNet2DConditionModel.forward` does with `return_dict=False`.

        Args:
            sample: Noisy latents [(b f), c, h, w].
            timestep: Timesteps [(b f)].
            encoder_hidden_states: Conditioning tokens [(b f), l, c], the same for all frames of an object.
            class_labels: Camera labels [(b f), 16].
            cross_attention_kwargs: `num_frames`, f.
            **rest: Further arguments of the UNet.
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
    """Prepend one frame per object: [b, ...] and [(b f), ...] -> [(b (1 + f)), ...]."""
    frames = rest.reshape(len(first), -1, *rest.shape[1:])
    return torch.cat([first[:, None].to(rest.dtype), frames], dim=1).flatten(0, 1)


def with_reference_image(
    model: MultiViewModel, rgb: Tensor, *, as_frame: bool = False, elevation_deg: float = 0.0, azimuth_deg: float = 0.0
) -> MultiViewModel:
    """Condition the model on reference images [b, 3, h, w] in [0, 1] if it needs them; otherwise return it unchanged.

    With `as_frame`, models that do not need them are conditioned on them as well: on a clean reference frame, as in
    stage 2. The angles of the reference image affect only models with absolute camera labels.

    Raises:
        UserError: `as_frame` is set for a model that reads the reference as input channels.
    """
    channels = reads_reference(model.unet)
    if channels and as_frame:
        raise UserError(f"{_AS_CHANNELS}; drop --with-reference")
    if not channels and not as_frame:
        return model
    with torch.no_grad():
        latents = model.encode(rgb.to(model.device))
    camera = model.labels(elevation_deg, azimuth_deg, elevation_deg, azimuth_deg)
    return with_reference_latents(model, latents, camera.expand(len(latents), -1))


def with_reference_latents(model: MultiViewModel, reference: Tensor, camera: Tensor) -> MultiViewModel:
    """Condition the model on reference latents [b, c, h, w] with camera labels [b, 16].

    They become input channels if the UNet was widened for them, otherwise a clean first frame.
    """
    if reads_reference(model.unet):
        return replace(model, unet=ReferenceChannelsUNet(model.unet, reference))
    return replace(model, unet=ReferenceFrameUNet(model.unet, reference, camera))
