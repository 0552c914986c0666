"""The attention of a VAE's mid block as two matrix products, which is faster on a GPU than fused attention kernels.

This attention has one head as wide as the block (512 channels in Stable Diffusion). The fused kernels of torch are made
for heads of at most 256 channels; for wider heads torch uses a slow kernel, above all in the backward pass.
"""

from typing import Any

from torch import Tensor, nn

from train.layers.unet_blocks import FusedNorm


class MatmulAttention:
    """Attention processor for diffusers' `Attention` with one head: products in the type of the input, float32 softmax.

    The tokens of an image [n, c, h, w] that is channels last are a view of it, so no copy changes the memory layout.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """Compute the attention of one layer. diffusers calls this method.

        Args:
            attn: diffusers' attention module, for which `fits` is true.
            hidden_states: Images [n, c, h, w].
            encoder_hidden_states: Not used; a VAE has self-attention only.
            attention_mask: Not used.
            temb: Not used.

        Returns:
            Images [n, c, h, w].
        """
        n, c, h, w = hidden_states.shape
        tokens = attn.group_norm(hidden_states).permute(0, 2, 3, 1).reshape(n, h * w, c)
        query, key, value = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
        weights = ((query @ key.transpose(1, 2)).float() * attn.scale).softmax(-1)
        mixed = attn.to_out[1](attn.to_out[0](weights.to(value.dtype) @ value))
        output: Tensor = mixed.reshape(n, h, w, c).permute(0, 3, 1, 2) + hidden_states
        return output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor


def fits(attn: Any) -> bool:
    """Return whether `MatmulAttention` computes the same as the processor of a diffusers `Attention`."""
    plain = (
        attn.spatial_norm is None and attn.norm_q is None and attn.norm_k is None and attn.only_cross_attention is False
    )
    return plain and attn.heads == 1 and isinstance(attn.group_norm, nn.GroupNorm) and bool(attn.residual_connection)


def use_matmul_attention(encoder: nn.Module, *, fused_norm: bool) -> None:
    """Set the processors of a VAE encoder's attention to `MatmulAttention`, in place, where it fits.

    Args:
        encoder: diffusers' VAE encoder.
        fused_norm: Whether the group norm before the attention becomes one operation (`train.layers.group_norm`).
    """
    from diffusers.models.attention_processor import Attention

    for module in encoder.modules():
        if isinstance(module, Attention) and fits(module):
            attention: Any = module
            attention.set_processor(MatmulAttention())
            if fused_norm:
                attention.group_norm.__class__ = FusedNorm
