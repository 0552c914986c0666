"""The VAE's attention as matrix products gives the results and gradients of diffusers' own processor."""

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from train.layers.unet_blocks import FusedNorm
from train.layers.vae_attention import MatmulAttention, fits, use_matmul_attention

pytestmark = pytest.mark.usefixtures("one_thread")


def make_encoder() -> Any:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae.encoder.eval().requires_grad_(False)


@pytest.mark.parametrize("fused_norm", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_results_and_gradients_are_those_of_diffusers(fused_norm, layout):
    plain = make_encoder()
    changed = copy.deepcopy(plain)
    use_matmul_attention(changed, fused_norm=fused_norm)
    attention = next(module for module in changed.modules() if isinstance(module, Attention))
    assert isinstance(attention.processor, MatmulAttention)
    assert isinstance(attention.group_norm, FusedNorm) == fused_norm
    assert plain.state_dict().keys() == changed.state_dict().keys()
    images = torch.rand(2, 3, 12, 12).to(memory_format=layout).requires_grad_()
    results = [encoder(images) for encoder in (changed, plain)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(result.square().sum(), images)[0] for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[1].abs().max()))


def test_attention_of_another_kind_keeps_its_processor():
    several_heads = Attention(16, heads=2, dim_head=8, norm_num_groups=4, residual_connection=True)
    without_residual = Attention(16, heads=1, dim_head=16, norm_num_groups=4)
    without_norm = Attention(16, heads=1, dim_head=16, residual_connection=True)
    assert not any(fits(attention) for attention in (several_heads, without_residual, without_norm))
    network = torch.nn.Sequential(several_heads)
    use_matmul_attention(network, fused_norm=False)
    assert not isinstance(several_heads.processor, MatmulAttention)
