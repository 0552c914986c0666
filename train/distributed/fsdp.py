"""Gather tensors and models that FSDP2 has sharded over the ranks.

All ranks must call the functions of this module in the same order. Without FSDP2 nothing is sharded or gathered.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from train.model.multiview import MultiViewModel
from train.model.unet import join_frames
from train.model.weight_averaging import Average, averaged


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor, of any shape. A tensor that FSDP2 has sharded (a DTensor) is gathered from all ranks."""
    gather: Any = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if gather is None else gather()
    return whole


def placed_like(whole: Tensor, model: Tensor) -> Tensor:
    """Return the full tensor `whole` sharded over the ranks in the same way as the tensor `model`.

    Args:
        whole: Full tensor of any shape, equal on all ranks.
        model: Tensor of the same shape. If this tensor is not sharded, `whole` is returned unchanged.
    """
    if not hasattr(model, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = model
    mesh, placements = sharded.device_mesh, sharded.placements
    placed: Tensor = distribute_tensor(whole.to(model.device), mesh, placements, src_data_rank=None)
    return placed


@contextmanager
def whole_model(model: MultiViewModel, average: Average | None, *, here: bool) -> Iterator[MultiViewModel | None]:
    """Yield the model with an unsharded UNet. If `average` is given, the UNet has the averaged weights.

    If FSDP2 has sharded the UNet, its weights are gathered into a second UNet. Otherwise the UNet of `model` is used,
    and its own weights are restored at the end of the block.

    Args:
        model: The model that is being trained.
        average: Averaged weights of the UNet by name. None: use the UNet's own weights.
        here: Whether this rank needs the model. If False, the rank only takes part in gathering, and None is yielded.
    """
    if not any(hasattr(parameter, "full_tensor") for parameter in model.unet.parameters()):
        with averaged(model.unet, average if here else None):
            yield model if here else None
        return
    with averaged(model.unet, average):
        weights = {name: whole_tensor(tensor.detach()) for name, tensor in model.unet.state_dict().items()}
    yield replace(model, unet=_unet_with(weights, model.unet)) if here else None


def _unet_with(weights: dict[str, Tensor], like: nn.Module) -> nn.Module:
    """Return a UNet with the configuration of the UNet `like` and the given weights, which are not copied."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings: Any = like.config
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel.from_config(settings)
    unet.load_state_dict(weights, assign=True)
    return join_frames(unet).train(like.training)
