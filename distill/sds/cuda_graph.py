"""Run a function of tensors as a CUDA graph, which is recorded once for each shape of the arguments.

A recorded graph is replayed with one launch. On a fast GPU, launching the thousand kernels of a network one by one
takes longer than running them.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor

Work = Callable[..., Tensor]
RecordGraph = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes a function without arguments; returns a function that replays it and the tensor that receives its result."""

_WARM_UP: Final = 3  # runs before recording, which compile and choose algorithms


def record_graph(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a CUDA graph of a function on the current GPU.

    The function is first called three times on a side stream to warm up, as the CUDA graph notes of torch recommend.

    Args:
        work: Function without arguments that returns a tensor of any shape.

    Returns:
        A function that replays the graph, and the tensor that receives the result at each replay.
    """
    side_stream: Any = cast(Any, torch.cuda.Stream)()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class GraphedFunction:
    """A function of tensors of any shape that runs as a CUDA graph, without gradients or random numbers.

    All calls with arguments of the same shapes and types return the same tensor, and each call overwrites its values.
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
            with cast(Any, torch.cuda.device_of)(inputs[0]):  # streams and graphs belong to the current device
                self._recorded[shapes] = (inputs, *self._record(lambda: self._work(*inputs)))
        inputs, replay, result = self._recorded[shapes]
        for graph_input, argument in zip(inputs, arguments, strict=True):
            graph_input.copy_(argument)
        replay()
        return result
