"""`train.compute`: layouts, kernels and checkpointing change time and memory, not what is computed."""

import copy
import json

import pytest
import torch

from benchmarks import train_bench
from train.batch import Draw
from train.compute import Compute, LatentBatch, default_compute, latent_loss, make_optimiser, mixed_precision, prepare
from train.model import UNetShape, build_unet, noise_schedule

SHAPE = UNetShape(4, 8, (32, 64), (True, True), 1, 16, 24, norm_groups=8)
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(stage):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    targets = normal(2, 4, 4, 8, 8)
    draw = Draw(torch.tensor([3, 900]), normal(*targets.shape), torch.tensor([False, True]))
    reference = normal(2, 4, 8, 8) if stage == 2 else None
    return LatentBatch(targets, reference, normal(2, 4, 16), normal(2, 1, 24), draw)


def gradients(unet, compute, stage):
    unet = copy.deepcopy(unet).train()
    loss = latent_loss(prepare(unet, compute), batch(stage), noise_schedule())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in unet.named_parameters()}


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("compute", [Compute(channels_last=True), Compute(checkpointing=True)], ids=["layout", "again"])
def test_loss_and_gradients_are_those_of_the_plain_network(compute, stage):
    torch.manual_seed(0)
    unet = build_unet(SHAPE)
    plain, changed = gradients(unet, Compute(), stage), gradients(unet, compute, stage)
    assert changed[0] == pytest.approx(plain[0], rel=1e-5)
    for name, expected in plain[1].items():
        torch.testing.assert_close(changed[1][name], expected, rtol=1e-3, atol=1e-6, msg=name)


def test_the_reference_frame_changes_the_targets_prediction():
    """Stage 2's frame takes part in attention, although the loss leaves it out."""
    torch.manual_seed(0)
    unet = build_unet(SHAPE)
    assert gradients(unet, Compute(), 1)[0] != gradients(unet, Compute(), 2)[0]


def test_the_fused_optimiser_takes_the_same_steps():
    weights = []
    for fused in (False, True):
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.constant_(layer.bias, 0.1)
        optimiser = make_optimiser(
            layer.parameters(), Compute(fused_optimiser=fused), lr=0.1, betas=(0.9, 0.999), weight_decay=0.01
        )
        for _ in range(3):
            optimiser.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_a_cpu_neither_compiles_nor_rounds():
    assert default_compute(CPU) == Compute()
    with mixed_precision(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_the_benchmark_runs_at_micro_size(capsys):
    arguments = [
        "--shape",
        "micro",
        "--device",
        "cpu",
        "--objects",
        "2",
        "--accumulation",
        "2",
        "--steps",
        "1",
        "--matmul",
        "64",
    ]
    assert train_bench.main(arguments) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["views_per_s"] > 0
    assert line["share_of_peak"] > 0
    assert line["speedup_vs_eager"] > 0


@pytest.mark.gpu
def test_compiled_gradients_are_close_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    torch.manual_seed(0)
    device = torch.device("cuda")
    unet = build_unet(SHAPE).to(device).train()
    losses = []
    for compute in (Compute(), default_compute(device)):
        copied = copy.deepcopy(unet)
        moved = batch(2)
        moved = LatentBatch(
            moved.targets.to(device),
            moved.reference.to(device),
            moved.cameras.to(device),
            moved.tokens.to(device),
            Draw(*(tensor.to(device) for tensor in vars(moved.draw).values())),
        )
        with mixed_precision(device):
            losses.append(latent_loss(prepare(copied, compute), moved, noise_schedule().to(device)).item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
