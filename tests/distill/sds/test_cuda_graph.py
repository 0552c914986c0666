"""A graph is recorded once per shape and replayed with new arguments; on a GPU it gives the results of the function."""

import pytest
import torch
from torch import Tensor

from distill.sds.cuda_graph import GraphedFunction


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
