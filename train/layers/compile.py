"""Options for computing the UNet: memory layout, compilation, block implementation and optimizer.

These options affect results only by rounding, so a run may resume with other ones.
"""

import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dataset.errors import UserError

Compile = Literal["none", "blocks", "whole", "graphs"]
CompileChoice = Literal["none", "blocks", "whole", "graphs", "auto"]
Blocks = Literal["diffusers", "lean", "fused"]
BlocksChoice = Literal["diffusers", "lean", "fused", "auto"]
BLOCKS: Final[tuple[BlocksChoice, ...]] = get_args(BlocksChoice)
BACKEND: Final = "inductor"
# Recompilations of one code object. The whole UNet needs two. The blocks of all levels share their code, and each
# combination of width and number of frames needs its own graph.
MAX_GRAPHS: Final = 128


@dataclass(frozen=True)
class Compute:
    """How the UNet is computed.

    `compile` is one of: none; whole, one graph per input shape (1 or 4 targets); blocks, one graph per residual and
    transformer block, which compiles faster and runs slightly slower; graphs, like whole, but replayed as CUDA graphs
    forward and backward, for networks so small that kernel launches dominate.
    """

    compile: Compile = "none"
    channels_last: bool = False
    fused_optimizer: bool = False
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third more time
    blocks: Blocks = "diffusers"


def choose_compute(
    device: torch.device,
    compiling: CompileChoice = "auto",
    *,
    checkpointing: bool = False,
    split: bool = False,
    blocks: BlocksChoice = "auto",
) -> Compute:
    """Choose the fastest options for a device.

    Args:
        device: Device to train on.
        compiling: auto compiles the whole UNet on a GPU (each block if `split`) and nothing on a CPU.
        checkpointing: Recompute activations in the backward pass.
        split: Whether FSDP2 shards the UNet. FSDP2 gathers weights between the levels, so the UNet cannot be one graph.
        blocks: auto uses fused blocks (`train.layers.unet_blocks`) if compiled for a GPU, otherwise diffusers'.

    Returns:
        The options. The optimizer is always fused, because only a fused one can skip updates without synchronizing.

    Raises:
        UserError: the options contradict each other, or Triton is needed and not installed.
    """
    gpu = device.type == "cuda"
    fastest: Compile = ("blocks" if split else "whole") if gpu else "none"
    chosen = fastest if compiling == "auto" else compiling
    if chosen in ("whole", "graphs") and split:
        raise UserError(
            f"--compile {chosen} does not work with --parallel fsdp, which gathers weights between the UNet's levels; "
            "give --compile blocks"
        )
    if chosen == "graphs" and not gpu:
        raise UserError(f"--compile graphs needs a GPU, but the device is {device}")
    if gpu and importlib.util.find_spec("triton") is None:
        if chosen != "none":
            raise UserError("compiling for a GPU needs the package triton, which is not installed; give --compile none")
        if blocks == "fused":
            raise UserError("--blocks fused needs the package triton, which is not installed; give --blocks lean")
    if blocks == "auto":
        blocks = "fused" if gpu and chosen != "none" else "diffusers"
    return Compute(chosen, channels_last=gpu, fused_optimizer=True, checkpointing=checkpointing, blocks=blocks)


def announcement(compute: Compute, device: torch.device) -> str:
    """Describe the options in one line."""
    words = ["bf16 autocast, channels last" if device.type == "cuda" else "float32"]
    if compute.checkpointing:
        words.append("activation checkpointing")
    words.append(
        {
            "none": "not compiled",
            "blocks": "compiled per block (the first step with each number of views takes longer)",
            "whole": "compiled as a whole (the first step with each number of views takes a minute or more)",
            "graphs": "compiled as a whole, replayed as CUDA graphs (the first step with each number of views takes a "
            "minute or more)",
        }[compute.compile]
    )
    words += {"diffusers": [], "lean": ["lean blocks"], "fused": ["fused group norm"]}[compute.blocks]
    return f"UNet on {device}: {', '.join(words)}"


def prepare(unet: nn.Module, compute: Compute) -> nn.Module:
    """Apply the options to a UNet in place. The names and values of its state dict do not change."""
    if compute.channels_last:
        unet.to(memory_format=torch.channels_last)
    if compute.blocks != "diffusers":
        from train.layers.unet_blocks import make_lean

        make_lean(unet, fused=compute.blocks == "fused")
    if compute.checkpointing:
        # diffusers' default processor does the same but checks torch's version, which causes compiler warnings
        recompute = partial(checkpoint, use_reentrant=False)
        unet.enable_gradient_checkpointing(gradient_checkpointing_func=recompute)  # type: ignore[operator]
    if compute.compile != "none":
        _compile(_blocks(unet) if compute.compile == "blocks" else [unet], graphs=compute.compile == "graphs")
    return unet


def _compile(parts: Iterable[nn.Module], *, graphs: bool) -> None:
    """Set modules, in place, to compile at the first call with each shape. A graph break raises an error."""
    _set_compiler()
    mode = {"mode": "reduce-overhead"} if graphs else {}
    for part in parts:
        part.compile(dynamic=False, fullgraph=True, backend=BACKEND, **mode)


def _set_compiler() -> None:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    # torch recommends TensorFloat32 for float32 matrix products; under autocast there are none
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    # diffusers checks torch's version in its layers, through an lru_cache that Dynamo ignores
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")


def _blocks(unet: nn.Module) -> Iterator[nn.Module]:
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return (module for module in unet.modules() if isinstance(module, (BasicTransformerBlock, ResnetBlock2D)))


def uncompiled(compute: Compute) -> AbstractContextManager[Any]:
    """Inside the block, run a compiled UNet eagerly, so that new shapes and passes without gradient compile nothing."""
    if compute.compile == "none":
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    compute: Compute,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """Build AdamW for float32 parameters, fused into one kernel if the options request it."""
    fused: Any = True if compute.fused_optimizer else None
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def update(optimizer: torch.optim.AdamW, loss: Tensor, gradient_norm: Tensor) -> None:
    """Step the optimizer, or skip the step if loss or gradient norm (both 0-d) is not finite, without synchronizing.

    The skip uses `found_inf`, by which torch's gradient scaler makes a fused optimizer leave weights, moments and the
    step count unchanged.
    """
    bad = ~(torch.isfinite(loss) & torch.isfinite(gradient_norm))
    optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
    optimizer.step()
