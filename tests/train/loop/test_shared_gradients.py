"""Gradients of several parameters that share memory, as compiled graphs return them, are counted once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.make_shards import make_shard_set
from tests.support.train_micro import micro_model, micro_run
from train.layers.compile import Compute, choose_compute, prepare, separate_gradients
from train.loop import loop
from train.model.multiview import save_model
from train.model.unet import UNetShape, build_unet, run_unet

NAMES = ("time_embedding.linear_2.bias", "class_embedding.linear_2.bias")


class SharedGradient(torch.autograd.Function):
    """The sum of two vectors, whose gradients share their memory."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.length = first.numel()
        return first.sum() + second.sum()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ones = grad[0].expand(ctx.length).clone()
        return ones, ones.detach()  # two tensors of one memory


def test_each_parameter_gets_a_gradient_of_its_own() -> None:
    first, second, third = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    SharedGradient.apply(first, second).backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.data_ptr() == second.grad.data_ptr()
    separate_gradients([first, second, third])
    first.grad.mul_(5)
    assert second.grad.tolist() == [1, 1, 1]
    assert first.grad.tolist() == [5, 5, 5]
    assert third.grad is None


@pytest.mark.usefixtures("one_thread", "quick_samples")
@pytest.mark.integration
def test_micro_batches_and_clipping_count_a_shared_gradient_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two micro-batches with a gradient of 1/2 each, clipped to a total norm of 1."""
    shards = make_shard_set(tmp_path / "set", 6, 32)
    save_model(micro_model(), tmp_path / "base")
    run = micro_run(shards, tmp_path / "out", 1, base=tmp_path / "base")
    assert run.schedule.accumulation == 2
    seen: list[Tensor] = []

    def loss(run: Any, model: Any, *_: Any) -> Tensor:
        parameters = dict(model.unet.named_parameters())
        result: Tensor = SharedGradient.apply(*(parameters[name] for name in NAMES))  # type: ignore[no-untyped-call]
        return result

    def update(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.extend(p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    monkeypatch.setattr(loop, "_loss", loss)
    monkeypatch.setattr(loop, "update", update)
    monkeypatch.setattr(loop, "choose_compute", lambda *_, **__: Compute("whole", fused_optimizer=True))
    loop.train(run)
    assert len(seen) == 2
    for gradient in seen:
        torch.testing.assert_close(gradient, torch.full_like(gradient, (2 * gradient.numel()) ** -0.5))


@pytest.mark.gpu
def test_gradients_of_a_compiled_network_add_up_as_those_of_a_plain_one() -> None:
    device, grads = torch.device("cuda"), []
    shape = UNetShape(4, 8, (32, 64), (True, True), 1, head_width=16, token_width=24, norm_groups=8)
    random = torch.Generator(device).manual_seed(0)
    draw = lambda *size: torch.randn(*size, generator=random, device=device)  # noqa: E731
    inputs = [(draw(4, 4, 8, 8), draw(4, 16), draw(4, 1, 24)) for _ in range(2)]
    for compiling in ("none", "whole"):
        torch.manual_seed(0)
        unet = nn.Module.to(build_unet(shape), device).train()
        prepare(unet, choose_compute(device, compiling))
        for latents, cameras, context in inputs:
            timesteps = torch.full((4,), 500, device=device)
            run_unet(unet, latents, timesteps, cameras, context, num_frames=4).square().sum().backward()
            separate_gradients(unet.parameters())
        grads.append({name: p.grad for name, p in unet.named_parameters()})
    for name in NAMES:
        torch.testing.assert_close(grads[1][name], grads[0][name], rtol=0.05, atol=1e-3)
