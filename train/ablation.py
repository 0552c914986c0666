"""The paper's Fig. 8 as an ablation of ours: the reference joins the noisy latents along channels, not along frames.

Zero123 and its kin do so. The UNet has twice the latent's channels to read (`widen_conv_in`: zeros at the start, so
that the base's outputs stay); each frame is [noisy | clean reference], and there is no reference frame. Unlike the
paper's model this one needs the picture itself at inference, which `see_reference` puts into every call.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.model import MultiViewModel, widen_conv_in


def start_channel_concat(unet: nn.Module) -> nn.Module:
    """The base of the ablation, in place: input channels for the noisy latents and for the reference's."""
    settings: Any = unet.config
    if settings.in_channels != settings.out_channels:
        raise UserError(f"the base reads {settings.in_channels} channels already; start from a model without reference")
    return widen_conv_in(unet, 2 * int(settings.out_channels))


def reads_reference(unet: nn.Module) -> bool:
    """Whether this UNet was widened for the reference."""
    settings: Any = unet.config
    return bool(settings.in_channels == 2 * settings.out_channels)


def concat_reference(latents: Tensor, reference: Tensor, num_frames: int) -> Tensor:
    """Noisy latents [(b f), c, h, w] and references [b, c, h, w] -> [(b f), 2c, h, w].

    With guidance `latents` holds the objects several times over, one round after the other: so are the references used.
    """
    objects = len(latents) // num_frames
    if objects % len(reference) or len(latents) % num_frames:
        raise UserError(
            f"{len(latents)} latents are no whole rounds of {len(reference)} objects, {num_frames} frames each"
        )
    rounds = reference.repeat(objects // len(reference), 1, 1, 1)
    return torch.cat([latents, rounds.repeat_interleave(num_frames, dim=0).to(latents.dtype)], dim=1)


class WithReference(nn.Module):
    """A widened UNet with the references [b, c, h, w] of its objects in hand: called as the base is."""

    reference: Tensor

    def __init__(self, unet: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("reference", reference, persistent=False)

    @property
    def config(self) -> Any:
        """The UNet's own."""
        return self.unet.config

    def forward(self, sample: Tensor, timestep: Tensor, *, cross_attention_kwargs: dict[str, int], **rest: Any) -> Any:
        """As UNet2DConditionModel's; `sample` has the latent's channels."""
        joined = concat_reference(sample, self.reference, cross_attention_kwargs["num_frames"])
        return self.unet(joined, timestep, cross_attention_kwargs=cross_attention_kwargs, **rest)


def see_reference(model: MultiViewModel, rgb: Tensor) -> MultiViewModel:
    """The model with the pictures [b, 3, h, w] in [0, 1] before its eyes if it needs them, else as it is."""
    if not reads_reference(model.unet):
        return model
    with torch.no_grad():
        return replace(model, unet=WithReference(model.unet, model.encode(rgb.to(model.device))))
