"""The attention processor that joins the frames of an object in self-attention.

Axis letters as in `train.model.multiview`.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

from dataset.errors import UserError


class JointAttention:
    """Attention processor: self-attention runs over the tokens of all frames of an object; cross-attention is as usual.

    MVDream's 3D attention and, with the reference among the frames, the paper's Explicit Multi-view Attention (Fig. 4).
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_frames: int = 1,
    ) -> Tensor:
        """`hidden_states` [(b f), l, c]; `encoder_hidden_states` [(b f), l, c] means cross-attention."""
        if attention_mask is not None:
            raise UserError("the multi-view model has no attention mask")
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
    """[(b f), l, c] -> [b, heads, (f l), c / heads]."""
    batch, tokens, channels = states.shape
    return states.reshape(batch // frames, frames * tokens, heads, channels // heads).transpose(1, 2)
