"""How the UNet is computed: memory layout, compilation, attention kernels, optimiser. Nothing of it changes what is
computed beyond rounding; the same weights train with any of it.
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
# Kept graphs of one piece of code. Of the whole UNet there are two; but the blocks of all levels share their code, and
# each width and each number of frames is a graph of its own.
MAX_GRAPHS: Final = 128


@dataclass(frozen=True)
class Compute:
    """`compile` whole: the UNet is one graph for each of the two shapes (1 or 4 targets); blocks: each residual and
    each transformer block by itself, quicker to compile and little slower to run; graphs: whole, and the GPU is handed
    its kernels as CUDA graphs, forward and backward, for networks so small that launching them takes longer than they.
    """

    compile: Compile = "none"
    channels_last: bool = False
    fused_optimiser: bool = False
    checkpointing: bool = False  # activations are computed again in the backward pass: less memory, a third more time
    blocks: Blocks = "diffusers"


def choose_compute(
    device: torch.device,
    compiling: CompileChoice = "auto",
    *,
    checkpointing: bool = False,
    split: bool = False,
    blocks: BlocksChoice = "auto",
) -> Compute:
    """What makes a device fast. auto: the whole UNet is compiled on a GPU, its blocks where it is `split`, nothing on
    a CPU. Split (`Ranks.splits`) it cannot be compiled as a whole: FSDP2 gathers weights between its levels.

    The blocks (`train.layers.unet_blocks`) are fused where they are compiled for a GPU, diffusers' own elsewhere.

    The optimiser is fused everywhere: it alone leaves an update out without asking the host (`update`).
    """
    gpu = device.type == "cuda"
    fastest: Compile = ("blocks" if split else "whole") if gpu else "none"
    chosen = fastest if compiling == "auto" else compiling
    if chosen in ("whole", "graphs") and split:
        raise UserError(
            f"--compile {chosen}: FSDP2 gathers weights between the UNet's levels, out of any graph; "
            "give --compile blocks"
        )
    if chosen == "graphs" and not gpu:
        raise UserError(f"--compile graphs: CUDA graphs need a GPU, this is {device}")
    if gpu and importlib.util.find_spec("triton") is None:
        if chosen != "none":
            raise UserError("compiling for a GPU needs the package triton, which is not installed; give --compile none")
        if blocks == "fused":
            raise UserError("--blocks fused needs the package triton, which is not installed; give --blocks lean")
    if blocks == "auto":
        blocks = "fused" if gpu and chosen != "none" else "diffusers"
    return Compute(chosen, channels_last=gpu, fused_optimiser=True, checkpointing=checkpointing, blocks=blocks)


def announcement(compute: Compute, device: torch.device) -> str:
    """The choice in a line, for the person at the keyboard."""
    said = ["bf16 over float32 weights, channels last" if device.type == "cuda" else "float32"]
    if compute.checkpointing:
        said.append("activations computed twice")
    said.append(
        {
            "none": "not compiled",
            "blocks": "compiled block by block (the first step of each number of views takes longer)",
            "whole": "compiled as a whole (the first step of each number of views takes a minute or more)",
            "graphs": "compiled as a whole, replayed as CUDA graphs (the first step of each number of views takes a "
            "minute or more)",
        }[compute.compile]
    )
    said += {"diffusers": [], "lean": ["without copies"], "fused": ["norms as one kernel"]}[compute.blocks]
    return f"the UNet on {device}: {', '.join(said)}"


def prepare(unet: nn.Module, compute: Compute) -> nn.Module:
    """The UNet as it is to be trained, changed in place: its state has the same names and values as before."""
    if compute.channels_last:
        unet.to(memory_format=torch.channels_last)
    if compute.blocks != "diffusers":
        from train.layers.unet_blocks import make_lean

        make_lean(unet, fused=compute.blocks == "fused")
    if compute.checkpointing:
        # diffusers' own function is the same with a look at torch's version, which compiling warns about
        again = partial(checkpoint, use_reentrant=False)
        unet.enable_gradient_checkpointing(gradient_checkpointing_func=again)  # type: ignore[operator]
    if compute.compile != "none":
        _compile(_blocks(unet) if compute.compile == "blocks" else [unet], graphs=compute.compile == "graphs")
    return unet


def _compile(parts: Iterable[nn.Module], *, graphs: bool) -> None:
    """Compile in place, at the first call of each shape. What cannot be one graph is an error, not a slow run."""
    _set_compiler()
    mode = {"mode": "reduce-overhead"} if graphs else {}
    for part in parts:
        part.compile(dynamic=False, fullgraph=True, backend=BACKEND, **mode)


def _set_compiler() -> None:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    # torch asks for TensorFloat32 in float32 matrix products; under autocast there are none
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    # diffusers asks for torch's version inside of its layers, through a cache that tracing passes by
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")


def _blocks(unet: nn.Module) -> Iterator[nn.Module]:
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return (module for module in unet.modules() if isinstance(module, (BasicTransformerBlock, ResnetBlock2D)))


def uncompiled(compute: Compute) -> AbstractContextManager[Any]:
    """Inside, a compiled UNet runs as it is written: other shapes, and passes without gradient, compile nothing."""
    if compute.compile == "none":
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    compute: Compute,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW over float32 weights; fused: one kernel for all of them."""
    fused: Any = True if compute.fused_optimiser else None
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def update(optimiser: torch.optim.AdamW, loss: Tensor, gradient_norm: Tensor) -> None:
    """One optimiser step, left out as a whole when loss or gradient is not finite; decided on the device.

    `found_inf` is how torch's gradient scaler tells a fused optimiser: neither weights nor moments nor the optimiser's
    own count of steps change.
    """
    bad = ~(torch.isfinite(loss) & torch.isfinite(gradient_norm))
    optimiser.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
    optimiser.step()
