"""Gather tensors and models that FSDP2 has sharded over the ranks.

All ranks must call the gathering functions in the same order. Without FSDP2 they do nothing.
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
    """Return a tensor of any shape in full, gathered from all ranks if it is sharded (FSDP2's DTensor)."""
    gather: Any = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if gather is None else gather()
    return whole


def placed_like(whole: Tensor, model: Tensor) -> Tensor:
    """Shard a full tensor over the ranks as `model` is sharded. If `model` is not sharded, return the tensor unchanged.

    Args:
        whole: Tensor of any shape, equal on all ranks.
        model: Tensor of the same shape.
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
    """Yield the unsharded model, with the averaged weights if there are any.

    A sharded UNet is gathered into a second UNet. Otherwise the model itself is used, with its weights replaced inside
    the context.

    Args:
        model: The trained model.
        average: Averaged weights.
        here: Whether this rank needs the model. Otherwise the rank only takes part in gathering, and None is yielded.
    """
    if not any(hasattr(parameter, "full_tensor") for parameter in model.unet.parameters()):
        with averaged(model.unet, average if here else None):
            yield model if here else None
        return
    with averaged(model.unet, average):
        weights = {name: whole_tensor(tensor.detach()) for name, tensor in model.unet.state_dict().items()}
    yield replace(model, unet=_unet_with(weights, model.unet)) if here else None


def _unet_with(weights: dict[str, Tensor], like: nn.Module) -> nn.Module:
    """Return a UNet with the configuration of `like` that uses these tensors without copying them."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings: Any = like.config
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel.from_config(settings)
    unet.load_state_dict(weights, assign=True)
    return join_frames(unet).train(like.training)
