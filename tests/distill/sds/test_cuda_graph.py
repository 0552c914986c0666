"""Graphs are recorded once per shape and replayed; on a GPU, results and gradients are those of the function."""

import pytest
import torch
from torch import Tensor

from distill.sds.cuda_graph import GradientGraphs, GraphedFunction, GraphedGradient


class Recorder:
    """Stand-in for a GPU: repeats the work into the same tensor, and counts."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work):
        self.recorded += 1
        result = torch.empty_like(work())

        def replay() -> None:
            self.replayed += 1
            result.copy_(work())

        return replay, result


def work(x: Tensor, y: Tensor) -> Tensor:
    assert not torch.is_grad_enabled()
    return 2 * x + y


def test_one_recording_for_each_shape():
    recorder = Recorder()
    replayed = GraphedFunction(work, recorder)
    for step in range(3):
        for size in (4, 8):
            x, y = torch.full((size, 2), float(step)), torch.arange(2.0 * size).view(2, size).T
            assert torch.equal(replayed(x, y), 2 * x + y)
    assert (recorder.recorded, recorder.replayed) == (2, 6)


def test_arguments_are_left_alone_and_results_reused():
    replayed = GraphedFunction(work, Recorder())
    x = torch.ones(3, requires_grad=True)
    first = replayed(x, torch.zeros(3))
    second = replayed(2 * x, torch.zeros(3))
    assert first is second
    assert second.tolist() == [4, 4, 4]
    assert x.tolist() == [1, 1, 1]
    assert not second.requires_grad


@pytest.mark.gpu
def test_a_graph_gives_what_the_work_gives():
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU(), torch.nn.Linear(8, 8)).cuda()
    replayed = GraphedFunction(lambda x, scale: network(x) * scale)
    for step in range(3):
        for rows in (2, 5):
            x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(step)).cuda()
            scale = torch.tensor(float(step), device="cuda")
            with torch.no_grad():
                torch.testing.assert_close(replayed(x, scale), network(x) * scale)


class GradientRecorder:
    """Stand-in for a GPU: repeats both passes into the same tensors, and counts the recordings."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, work, argument):
        self.recorded += 1
        leaf, latest = argument.detach().clone().requires_grad_(), []
        with torch.enable_grad():
            result = work(leaf)
        result_gradient, gradient = torch.empty_like(result), torch.empty_like(leaf)

        def forward() -> None:
            with torch.enable_grad():
                latest.append(work(leaf))
            result.detach().copy_(latest[-1].detach())

        def backward() -> None:
            gradient.copy_(torch.autograd.grad(latest.pop(), leaf, result_gradient)[0])

        return GradientGraphs(leaf.detach(), forward, result.detach(), result_gradient, backward, gradient)


def square_sums(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def gradient_of(function, x: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted loss of a function, and the gradient of an image before the argument of the function."""
    image = x.clone().requires_grad_()
    loss = (function(3 * image) * torch.arange(1.0, 1 + len(x))).sum()
    return loss.detach(), torch.autograd.grad(loss, image)[0]


def test_replayed_gradients_are_those_of_the_function():
    recorder = GradientRecorder()
    replayed = GraphedGradient(square_sums, recorder)
    for step in range(3):
        for rows in (2, 5):
            x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(step))
            for found, expected in zip(gradient_of(replayed, x), gradient_of(square_sums, x), strict=True):
                torch.testing.assert_close(found, expected)
    assert recorder.recorded == 2


def test_without_gradients_only_the_forward_pass_runs():
    replayed = GraphedGradient(square_sums, GradientRecorder())
    with torch.no_grad():
        first, second = replayed(torch.ones(2, 4)), replayed(torch.full((2, 4), 2.0))
    assert not first.requires_grad
    assert (first.tolist(), second.tolist()) == ([4, 4], [16, 16])


def test_a_backward_pass_after_the_next_call_is_refused():
    """Its activations are those of the next call, so the gradient would be wrong."""
    replayed = GraphedGradient(square_sums, GradientRecorder())
    x = torch.ones(2, 4, requires_grad=True)
    first, second = replayed(x).sum(), replayed(2 * x).sum()
    with pytest.raises(RuntimeError, match="before the next call"):
        first.backward()
    second.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call backward once"):
        second.backward()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_of_both_passes_give_what_the_network_gives(compiled):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3)).cuda()
    replayed = GraphedGradient(torch.compile(network) if compiled else network)
    for step in range(3):
        for frames in (2, 5):
            images = torch.randn(frames, 3, 9, 9, generator=torch.Generator().manual_seed(step)).cuda()
            given = images.clone().requires_grad_(), images.clone().requires_grad_()
            weights = torch.randn(frames, 4, 5, 5, device="cuda")
            results = replayed(given[0]), network(given[1])
            torch.testing.assert_close(*results, rtol=1e-2, atol=1e-3)
            gradients = [torch.autograd.grad(y, x, weights)[0] for y, x in zip(results, given, strict=True)]
            torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-2)
