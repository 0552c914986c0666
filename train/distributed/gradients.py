"""Average gradients over ranks without DDP, for a UNet that is replayed as CUDA graphs.

DDP copies gradients into its buckets while the backward pass runs, which a CUDA graph does not do. Here, all gradients
are averaged in one operation after the backward pass.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

from train.distributed.process_group import Ranks


@torch.no_grad()
def broadcast_weights(module: nn.Module, ranks: Ranks) -> None:
    """Copy the parameters and buffers of rank 0 to all ranks, in place, as DDP does when it is created."""
    if ranks.world == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        whole = tensor.contiguous()
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replace each gradient by its mean over the ranks, in place. The host does not wait for the device.

    Args:
        parameters: Parameters, the same on all ranks. Those without a gradient must be the same on all ranks too.
        ranks: The ranks of the run.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if ranks.world == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks.world
    parts = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
    torch._foreach_copy_(gradients, [part.view(grad.shape) for part, grad in zip(parts, gradients, strict=True)])
