"""Whole tensors and the whole model, where FSDP2 has split them among the ranks; elsewhere they are whole already.

All ranks must call what gathers, in the same order.
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
    """The tensor itself, or what its parts on all ranks make up (FSDP2's DTensor); then all ranks must call it."""
    gather: Any = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if gather is None else gather()
    return whole


def placed_like(whole: Tensor, model: Tensor) -> Tensor:
    """`whole`, the same on all ranks, split over the ranks as `model` is; as it is where `model` is whole."""
    if not hasattr(model, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    parts: Any = model
    placed: Tensor = distribute_tensor(whole.to(model.device), parts.device_mesh, parts.placements, src_data_rank=None)
    return placed


@contextmanager
def whole_model(model: MultiViewModel, average: Average | None, *, here: bool) -> Iterator[MultiViewModel | None]:
    """The model as it would be on one device, with the averaged weights where there are any; None unless `here`.

    A UNet that is split is gathered into another one beside it; otherwise it is the model itself, for the while.
    """
    if not any(hasattr(parameter, "full_tensor") for parameter in model.unet.parameters()):
        with averaged(model.unet, average if here else None):
            yield model if here else None
        return
    with averaged(model.unet, average):
        weights = {name: whole_tensor(tensor.detach()) for name, tensor in model.unet.state_dict().items()}
    yield replace(model, unet=_unet_with(weights, model.unet)) if here else None


def _unet_with(weights: dict[str, Tensor], like: nn.Module) -> nn.Module:
    """A UNet of the same settings that holds these very tensors."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings: Any = like.config
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel.from_config(settings)
    unet.load_state_dict(weights, assign=True)
    return join_frames(unet).train(like.training)
