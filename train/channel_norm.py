"""Group normalisation, put so that a compiler finds fast kernels for it in channels-last layout.

torch's own group norm is taken apart by the compiler into a view of groups, whose kernels read channels-last memory a
few bytes at a time, and its result has the other layout. Here the statistics are those of each channel first, then of
each group, and what is left for the pixels is one multiplication and one addition: all of it runs along the channels,
which lie side by side.

Axis letters: `n` pictures, `c` channels, `g` groups.
"""

import torch
from torch import Tensor, nn


class ChannelGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with the same weights; pictures [n, c, h, w] go the way above, anything else torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.GroupNorm`: float32 under autocast, else the type of the input."""
        if input.ndim != 4 or not self.affine:
            return super().forward(input)
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Pictures [n, c, h, w] with each group of channels normalised, times weight [c], plus bias [c].

    A group's variance is the mean of its channels' variances plus the variance of their means.
    """
    wide = x.contiguous(memory_format=torch.channels_last).float()
    variance, mean = (v.view(len(x), groups, -1) for v in torch.var_mean(wide, (2, 3), correction=0))
    group_mean = mean.mean(2, keepdim=True)  # [n, g, 1]
    group_variance = (variance + (mean - group_mean).square()).mean(2, keepdim=True)
    scale = (group_variance + eps).rsqrt() * weight.float().view(groups, -1)  # [n, g, c / g]
    shift = bias.float().view(groups, -1) - group_mean * scale
    found = wide * scale.flatten(1)[..., None, None] + shift.flatten(1)[..., None, None]
    result: Tensor = found if torch.is_autocast_enabled(x.device.type) else found.to(x.dtype)
    return result


def norm_by_channel(module: nn.Module) -> None:
    """Make every group norm of the module a `ChannelGroupNorm`, in place; weights and their names stay."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = ChannelGroupNorm
