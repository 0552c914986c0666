"""Blocks of diffusers' UNet without unnecessary copies: activations stay channels last.

diffusers makes activations contiguous (not channels last) after every transformer, before every shortcut in training
(to avoid DDP's warning about gradient strides) and before upsampling large batches (to avoid an old torch bug). The
next convolution copies the activations back to channels last, and the backward pass copies again. diffusers' GEGLU
splits the result of one matrix product, so its backward pass concatenates two gradients, and the compiled kernel reads
their inputs twice. The classes of this module compute the same results without these copies. `make_lean` changes the
class of modules in place and keeps the names and values of the weights.
"""

from typing import Any, cast

from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from train.layers.group_norm import group_norm


class TorchNorm(nn.GroupNorm):
    """Group normalization with an optional shift, without SiLU, built from torch functions."""

    silu = False

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Normalize `x` [n, c, h, w] after adding `shift` [n, c]. None: add nothing."""
        x = super().forward(x if shift is None else x + shift[:, :, None, None])
        return functional.silu(x) if self.silu else x


class TorchNormSilu(TorchNorm):
    """Group normalization with an optional shift, followed by SiLU, built from torch functions."""

    silu = True


class FusedNorm(nn.GroupNorm):
    """Group normalization with an optional shift, without SiLU, as one operation (`train.layers.group_norm`)."""

    silu = False

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Normalize `x` after adding `shift`.

        Args:
            x: Images [n, c, h, w], or sequences [n, c, l] if `shift` is None.
            shift: Values [n, c]. None: add nothing.
        """
        if x.dim() != 4:  # the VAE's attention normalizes a sequence
            return super().forward(x)
        operation = cast(Any, group_norm)
        out: Tensor = operation(x, self.weight, self.bias, shift, self.num_groups, self.eps, self.silu)[0]
        return out


class FusedNormSilu(FusedNorm):
    """Group normalization with an optional shift, followed by SiLU, as one operation (`train.layers.group_norm`)."""

    silu = True


class LeanResnet(ResnetBlock2D):
    """A residual block whose normalizations are of class `TorchNormSilu` or `FusedNormSilu`."""

    @staticmethod
    def fits(block: ResnetBlock2D) -> bool:
        """Return whether this class can replace a block.

        The block must use SiLU, only add the time embedding (no scaling by it), and neither upsample nor downsample.
        """
        plain = block.upsample is None and block.downsample is None and isinstance(block.nonlinearity, nn.SiLU)
        return plain and block.time_embedding_norm == "default" and not block.skip_time_act

    def forward(self, input_tensor: Tensor, temb: Tensor | None) -> Tensor:
        """Return the output [n, c', h, w] of the block: n images with c' channels.

        Args:
            input_tensor: Input [n, c, h, w]: n images with c channels.
            temb: Time embedding [n, t] with t channels; None in a VAE.
        """
        shift = None if temb is None or self.time_emb_proj is None else self.time_emb_proj(self.nonlinearity(temb))
        hidden = self.conv1(self.norm1(input_tensor))
        hidden = self.conv2(self.dropout(self.norm2(hidden, shift)))
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        total: Tensor = shortcut + hidden
        return total if self.output_scale_factor == 1 else total / self.output_scale_factor


class LeanTransformer(Transformer2DModel):
    """diffusers' Transformer2DModel, with an output that stays channels last."""

    def _get_output_for_continuous_inputs(  # noqa: PLR0917 (the base's)
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        def to_image(states: Tensor) -> Tensor:
            return states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)

        if self.use_linear_projection:
            return to_image(self.proj_out(hidden_states)) + residual
        projected: Tensor = self.proj_out(to_image(hidden_states))
        return projected + residual


class LeanUpsample(Upsample2D):
    """Nearest-neighbor upsampling by a factor of 2: repeats the pixels with `Tensor.expand` and copies the view.

    torch's own upsampling kernel is not used, because it returns wrong pixels for channels-last tensors of more than
    2^31 elements.
    """

    @staticmethod
    def fits(block: Upsample2D) -> bool:
        """Return whether this class can replace a block.

        The block must upsample by interpolation, without a norm and without a transposed convolution.
        """
        settings: Any = block
        plain = settings.norm is None and not settings.use_conv_transpose
        return plain and settings.interpolate and settings.name == "conv"

    def forward(self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """Upsample `hidden_states` [n, c, h, w] to [n, c, 2h, 2w], or to `output_size` with diffusers' own code."""
        if output_size is not None:
            return super().forward(hidden_states, output_size, *args, **kwargs)
        n, c, h, w = hidden_states.shape
        pixels = hidden_states.permute(0, 2, 3, 1)[:, :, None, :, None].expand(n, h, 2, w, 2, c)
        larger = pixels.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
        return cast(Tensor, cast(nn.Module, self.conv)(larger)) if self.use_conv else larger


class LeanGeglu(GEGLU):
    """A gated linear unit with GELU whose values and gates are two matrix products."""

    @staticmethod
    def fits(block: GEGLU) -> bool:
        """Return whether this class can replace a block. The projection of the block must be a plain linear layer."""
        return type(block.proj) is nn.Linear

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return values times the GELU of the gates, [..., d], for inputs [..., c]."""
        weights, biases = self.proj.weight.chunk(2), (None, None) if self.proj.bias is None else self.proj.bias.chunk(2)
        values, gates = (
            functional.linear(hidden_states, weight, bias) for weight, bias in zip(weights, biases, strict=True)
        )
        return values * functional.gelu(gates)


def make_lean(network: nn.Module, *, fused: bool) -> None:
    """Replace the blocks of a diffusers UNet or VAE encoder, in place, by those of this module.

    Args:
        network: The UNet or the VAE encoder.
        fused: Whether normalizations are one operation (`train.layers.group_norm`) or are built from torch functions.
    """
    norm, norm_silu = (FusedNorm, FusedNormSilu) if fused else (TorchNorm, TorchNormSilu)
    for module in list(network.modules()):
        if isinstance(module, ResnetBlock2D) and LeanResnet.fits(module):
            module.__class__ = LeanResnet
            module.norm1.__class__ = module.norm2.__class__ = norm_silu
        elif isinstance(module, Transformer2DModel) and module.is_input_continuous:
            module.__class__ = LeanTransformer
            module.norm.__class__ = norm
        elif isinstance(module, Upsample2D) and LeanUpsample.fits(module):
            module.__class__ = LeanUpsample
        elif isinstance(module, GEGLU) and LeanGeglu.fits(module):
            module.__class__ = LeanGeglu
    last, activation = getattr(network, "conv_norm_out", None), getattr(network, "conv_act", None)
    if type(last) is nn.GroupNorm and isinstance(activation, nn.SiLU):  # not the norm of `float32_output`
        last.__class__ = norm_silu
        network.conv_act = nn.Identity()
