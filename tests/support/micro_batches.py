"""A micro UNet, a batch for it, and the gradients of one training step."""

import copy

import torch

from train.data.sampling import DiffusionNoise
from train.layers.compile import (
    prepare,
)
from train.loop.loss import Encoded, predict, training_loss
from train.model.noise_schedule import noise_schedule
from train.model.unet import UNetShape

SHAPE = UNetShape(4, 8, (32, 64), (True, True), 1, 16, 24, norm_groups=8)
CPU = torch.device("cpu")


def batch(use, device=CPU):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random).to(device)

    targets = normal(2, 4, 4, 8, 8)
    draw = DiffusionNoise(
        torch.tensor([3, 900], device=device), normal(*targets.shape), torch.tensor([False, True], device=device)
    )
    reference = None if use == "none" else normal(2, 4, 8, 8)
    return Encoded(targets, reference, normal(2, 4, 16), normal(2, 1, 16), normal(2, 1, 24), use), draw


def gradients(unet, compute, use, device=CPU):
    unet = copy.deepcopy(unet).train()
    encoded, draw = batch(use, device)
    alphas = noise_schedule().to(device)
    loss = training_loss(predict(prepare(unet, compute), encoded, draw, alphas), draw, alphas)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in unet.named_parameters()}
