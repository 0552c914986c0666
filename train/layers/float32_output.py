"""Compute the last layer of a UNet in float32 while the rest of the UNet has another type, such as float16."""

import torch
from torch import Tensor, nn


class Float32Conv(nn.Conv2d):
    """A convolution in float32, whatever the type of its input, also under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the output [n, c', h, w], in float32, for the input [n, c, h, w]."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class Float32Norm(nn.GroupNorm):
    """A group norm in float32, whatever the type of its input, also under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the output [n, c, h, w], in float32, for the input [n, c, h, w]."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def keep_output_float32(unet: nn.Module) -> None:
    """Make the last group norm and the last convolution of a diffusers UNet compute in float32, in place.

    `train.layers.unet_blocks.make_lean` leaves these two layers as they are. Weights keep their names and values.
    """
    norm, conv = unet.conv_norm_out, unet.conv_out
    if isinstance(norm, nn.GroupNorm):
        norm.__class__ = Float32Norm
    if isinstance(conv, nn.Conv2d):
        conv.__class__ = Float32Conv


def cast_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network to a device and convert it to a type, in place. Layers of `keep_output_float32` stay float32."""
    kept = [module for module in network.modules() if isinstance(module, (Float32Conv, Float32Norm))]
    weights = [[parameter.detach().float() for parameter in module.parameters()] for module in kept]
    nn.Module.to(network, device, dtype)  # diffusers' own `to` warns about empty lists
    for module, values in zip(kept, weights, strict=True):
        nn.Module.to(module, dtype=torch.float32)
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.data.copy_(value)
