"""Attention processor for diffusers' UNet that runs self-attention over all frames (views) of an object.

Axis letters as in `train.model.multiview`.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

from dataset.errors import UserError


class JointAttention:
    """Runs self-attention over the tokens of all frames of an object, and cross-attention for each frame separately.

    This is MVDream's 3D attention. If the reference image is one of the frames, it is the paper's Explicit Multi-view
    Attention (Fig. 4).
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_frames: int = 1,
    ) -> Tensor:
        """Compute the attention of one layer of the UNet. diffusers calls this method.

        Args:
            attn: diffusers' attention module, which contains the projections of the layer.
            hidden_states: Tokens [(b f), l, c].
            encoder_hidden_states: Conditioning tokens [(b f), m, d] for cross-attention; None means self-attention.
            attention_mask: Must be None.
            num_frames: Frames per object, f.

        Returns:
            Tokens [(b f), l, c].

        Raises:
            UserError: `attention_mask` is not None.
        """
        if attention_mask is not None:
            raise UserError("JointAttention does not support an attention mask; pass attention_mask=None")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        joined = num_frames if encoder_hidden_states is None else 1
        query, key, value = (
            _split_heads(project(states), attn.heads, joined)
            for project, states in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(hidden_states.shape)
        projected: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return projected


def _split_heads(states: Tensor, heads: int, frames: int) -> Tensor:
    """Reshape tokens [(b f), l, c] to [b, heads, (f l), c / heads]."""
    batch, tokens, channels = states.shape
    return states.reshape(batch // frames, frames * tokens, heads, channels // heads).transpose(1, 2)
