"""Options for computing the UNet: memory layout, compilation, block implementation and optimizer.

These options change results only by rounding, so a run may resume with other options.
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

Compile = Literal["none", "blocks", "levels", "whole", "graphs"]
CompileChoice = Literal["none", "blocks", "levels", "whole", "graphs", "auto"]
Blocks = Literal["diffusers", "lean", "fused"]
BlocksChoice = Literal["diffusers", "lean", "fused", "auto"]
BLOCKS: Final[tuple[BlocksChoice, ...]] = get_args(BlocksChoice)
BACKEND: Final = "inductor"
# Recompilations of one code object. The whole UNet needs two, or four if steps of stage 2 leave out the reference. The
# blocks of all levels share their code, and each combination of width and number of frames needs its own graph.
MAX_GRAPHS: Final = 128


@dataclass(frozen=True)
class Compute:
    """How the UNet is computed.

    Values of `compile`:
        none: The UNet is not compiled.
        whole: The UNet is compiled as one graph per input shape (1 or 4 target views).
        blocks: Each residual and transformer block is compiled separately. Compiling is faster than with whole; running
            is slower.
        levels: Each level of the UNet, that is, the blocks of one resolution, is compiled separately. For FSDP2, which
            gathers the weights of a level before it runs and frees them afterwards.
        graphs: The UNet is compiled as with whole, and replayed as CUDA graphs. For networks so small that kernel
            launches take most of the time.
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
        compiling: How to compile, as in `Compute`. auto: whole on a GPU (levels if `split`), none on a CPU.
        checkpointing: Whether to recompute activations in the backward pass, which needs less memory and more time.
        split: Whether FSDP2 shards the UNet. FSDP2 gathers weights between the levels, so the UNet cannot be one graph.
        blocks: Implementation of the UNet's blocks. auto: fused blocks (`train.layers.unet_blocks`) if the UNet is
            compiled for a GPU, otherwise the blocks of diffusers.

    Returns:
        The options. The optimizer is always fused, because only a fused optimizer can skip updates without waiting for
        the device.

    Raises:
        UserError: The options contradict each other, or Triton is needed and not installed.
    """
    gpu = device.type == "cuda"
    fastest: Compile = ("levels" if split else "whole") if gpu else "none"
    chosen = fastest if compiling == "auto" else compiling
    if chosen in ("whole", "graphs") and split:
        raise UserError(
            f"--compile {chosen} does not work with --parallel fsdp, which gathers weights between the UNet's levels; "
            "give --compile levels"
        )
    if chosen == "graphs" and not gpu:
        raise UserError(f"--compile graphs needs a GPU, but the device is {device}; give --compile none")
    if gpu and not can_compile():
        if chosen != "none":
            raise UserError(
                f"--compile {chosen} on a GPU needs the package triton, which is not installed; give --compile none"
            )
        if blocks == "fused":
            raise UserError("--blocks fused needs the package triton, which is not installed; give --blocks lean")
    if blocks == "auto":
        blocks = "fused" if gpu and chosen != "none" else "diffusers"
    return Compute(chosen, channels_last=gpu, fused_optimizer=True, checkpointing=checkpointing, blocks=blocks)


def announcement(compute: Compute, device: torch.device) -> str:
    """Return one line for the log that describes the options and the precision of the UNet on this device."""
    words = ["bf16 autocast, channels last" if device.type == "cuda" else "float32"]
    if compute.checkpointing:
        words.append("activation checkpointing")
    words.append(
        {
            "none": "not compiled",
            "blocks": "compiled per block (the first step with each number of views takes longer)",
            "levels": "compiled per level (the first step with each number of views takes a minute or more)",
            "whole": "compiled as a whole (the first step with each number of views takes a minute or more)",
            "graphs": "compiled as a whole, replayed as CUDA graphs (the first step with each number of views takes a "
            "minute or more)",
        }[compute.compile]
    )
    words += {"diffusers": [], "lean": ["lean blocks"], "fused": ["fused group norm"]}[compute.blocks]
    return f"UNet on {device}: {', '.join(words)}"


def prepare(unet: nn.Module, compute: Compute) -> nn.Module:
    """Apply the options to a UNet, in place, and return the UNet. Its parameters keep their names and values."""
    if compute.channels_last:
        unet.to(memory_format=torch.channels_last)
    if compute.blocks != "diffusers":
        from train.layers.unet_blocks import make_lean

        make_lean(unet, fused=compute.blocks == "fused")
    if compute.checkpointing:
        # diffusers' default processor does the same but checks torch's version, which causes compiler warnings
        recompute = partial(checkpoint, use_reentrant=False)
        unet.enable_gradient_checkpointing(gradient_checkpointing_func=recompute)  # type: ignore[operator]
    if compute.compile == "levels":
        _compile_forward(levels(unet))
    elif compute.compile != "none":
        compile_modules(_blocks(unet) if compute.compile == "blocks" else [unet], graphs=compute.compile == "graphs")
    return unet


def levels(unet: nn.Module) -> list[nn.Module]:
    """Return the levels of a UNet in the order in which they run."""
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc, list-item]


def can_compile() -> bool:
    """Return whether modules can be compiled for a GPU, that is, whether the package triton is installed."""
    return importlib.util.find_spec("triton") is not None


def compile_modules(modules: Iterable[nn.Module], *, graphs: bool = False) -> None:
    """Set modules, in place, to be compiled at the first call with each input shape. A graph break raises an error.

    Args:
        modules: Modules to compile. Their parameters keep their names.
        graphs: Whether to replay the modules as CUDA graphs.
    """
    _set_compiler()
    mode = {"mode": "reduce-overhead"} if graphs else {}
    for module in modules:
        module.compile(dynamic=False, fullgraph=True, backend=BACKEND, **mode)


def _compile_forward(modules: Iterable[nn.Module]) -> None:
    """Set the method `forward` of modules, in place, to be compiled without hooks such as those of FSDP2."""
    _set_compiler()
    for module in modules:
        compiled = torch.compile(module.forward, dynamic=False, fullgraph=True, backend=BACKEND)
        module.forward = compiled


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
    """Inside the block, run a compiled UNet eagerly.

    New input shapes and forward passes without gradients then compile nothing.
    """
    if compute.compile == "none":
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def separate_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give each parameter a gradient tensor of its own, in place. To be called after each backward pass.

    The backward pass of a compiled graph returns the same memory as the gradients of several parameters if they are
    equal, and torch stores them as `grad` without a copy. In-place operations, such as adding the gradients of the next
    micro-batch or clipping, would then change them several times.
    """
    seen: set[int] = set()
    for parameter in parameters:
        if parameter.grad is None:
            continue
        address = parameter.grad.data_ptr()
        if address in seen:
            parameter.grad = parameter.grad.clone()
        seen.add(address)


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    compute: Compute,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """Build an AdamW optimizer for float32 parameters, fused into one kernel if `compute.fused_optimizer` is true.

    Args:
        parameters: Parameters to train.
        compute: Options for computing the UNet.
        lr: Learning rate.
        betas: Decay rates of the first and second moment.
        weight_decay: Weight decay.
    """
    fused: Any = True if compute.fused_optimizer else None
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def update(optimizer: torch.optim.AdamW, loss: Tensor, gradient_norm: Tensor) -> None:
    """Step the optimizer, or skip the step if loss or gradient norm is not finite.

    The host does not wait for the device. The step is skipped by setting `found_inf`, as torch's gradient scaler does:
    a fused optimizer then leaves weights, moments and the step count unchanged.

    Args:
        optimizer: Fused AdamW optimizer.
        loss: Loss of the step, a scalar tensor.
        gradient_norm: Norm of the gradients, a scalar tensor.
    """
    bad = ~(torch.isfinite(loss) & torch.isfinite(gradient_norm))
    optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
    optimizer.step()
