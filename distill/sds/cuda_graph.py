"""Run a function of tensors as CUDA graphs, recorded once per argument shape and then replayed in one launch.

Launching a network of a thousand kernels one by one takes longer than computing them on a fast GPU.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor

Work = Callable[..., Tensor]
RecordGraph = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Work without arguments -> a function that does it again, and the tensor that holds its result from then on."""

_WARM_UP: Final = 3  # runs before recording: they compile, and choose algorithms


def record_graph(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record `work`, which returns a tensor of any shape, on the current GPU as torch's notes on CUDA graphs advise."""
    aside: Any = cast(Any, torch.cuda.Stream)()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class GraphedFunction:
    """A CUDA-graphed function of tensors of any shape, without gradients or random numbers.

    The returned tensor is overwritten by the next call.
    """

    def __init__(self, work: Work, record: RecordGraph = record_graph) -> None:
        self._work = work
        self._record = record
        self._recorded: dict[object, tuple[tuple[Tensor, ...], Callable[[], None], Tensor]] = {}

    @torch.no_grad()
    def __call__(self, *arguments: Tensor) -> Tensor:
        shapes = tuple((argument.shape, argument.dtype) for argument in arguments)
        if shapes not in self._recorded:
            inputs = tuple(argument.clone(memory_format=torch.contiguous_format) for argument in arguments)
            with cast(Any, torch.cuda.device_of)(inputs[0]):  # streams and graphs are the current device's
                self._recorded[shapes] = (inputs, *self._record(lambda: self._work(*inputs)))
        inputs, replay, result = self._recorded[shapes]
        for given, taken in zip(inputs, arguments, strict=True):
            given.copy_(taken)
        replay()
        return result
