"""Group norm by channel is torch's group norm: values, gradients, types, and weights under the same names."""

import pytest
import torch
from torch import nn

from train.channel_norm import ChannelGroupNorm, norm_by_channel


def both(channels: int, groups: int, dtype: torch.dtype = torch.float64) -> tuple[nn.GroupNorm, nn.GroupNorm]:
    """torch's and ours, with the same weights."""
    generator = torch.Generator().manual_seed(channels)
    plain = nn.GroupNorm(groups, channels, eps=1e-5).to(dtype)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(channels, generator=generator))
        plain.bias.copy_(torch.randn(channels, generator=generator))
    quick = nn.GroupNorm(groups, channels, eps=1e-5).to(dtype)
    quick.load_state_dict(plain.state_dict())
    norm_by_channel(quick)
    assert isinstance(quick, ChannelGroupNorm)
    return plain, quick


@pytest.mark.parametrize(("channels", "groups"), [(12, 4), (8, 8), (6, 1), (20, 2)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_values_and_gradients_are_torchs(channels, groups, offset):
    plain, quick = both(channels, groups, torch.float32)
    x = torch.randn(3, channels, 5, 7, generator=torch.Generator().manual_seed(1)) + offset
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    found = []
    for norm in (plain, quick):
        given = x.clone().requires_grad_()
        seen = norm(given)
        found.append([seen, *torch.autograd.grad(seen, [given, norm.weight, norm.bias], upstream)])
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-4)


def test_a_large_mean_costs_no_precision():
    """A variance as the difference of two large numbers would be lost here."""
    plain, quick = both(8, 2, torch.float32)
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(3)) + 3000
    exact = nn.functional.group_norm(x.double(), 2, plain.weight.double(), plain.bias.double())
    torch.testing.assert_close(quick(x).double(), exact, rtol=0, atol=2e-3)


def test_types_are_torchs():
    plain, quick = both(8, 2, torch.bfloat16)
    x = torch.randn(2, 8, 4, 4, dtype=torch.bfloat16)
    assert quick(x).dtype == plain(x).dtype == torch.bfloat16
    torch.testing.assert_close(quick(x), plain(x), rtol=2e-2, atol=2e-2)
    plain, quick = both(8, 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(x).dtype == torch.float32
        torch.testing.assert_close(quick(x), plain(x.float()))


def test_the_result_is_channels_last_and_rows_go_torchs_way():
    plain, quick = both(8, 2)
    assert quick(torch.rand(2, 8, 4, 4, dtype=torch.float64)).is_contiguous(memory_format=torch.channels_last)
    rows = torch.rand(2, 8, 5, dtype=torch.float64)
    assert torch.equal(quick(rows), plain(rows))
