"""Run a function of tensors as a CUDA graph, which is recorded once for each shape of the arguments.

A recorded graph is replayed with one launch. On a fast GPU, launching the thousand kernels of a network one by one
takes longer than running them. `GraphedFunction` has no gradients; `GraphedGradient` also records the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    _warm_up(work)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


def _warm_up(work: Callable[[], Tensor]) -> None:
    side_stream: Any = cast(Any, torch.cuda.Stream)()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side_stream)


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


@dataclass(frozen=True)
class GradientGraphs:
    """The recorded forward and backward pass of a function of one tensor. Both passes use the same tensors each time.

    `forward` computes `result` from `argument`. `backward` computes `gradient`, the gradient of the loss with respect
    to `argument`, from `result_gradient`, and must follow a call of `forward`.
    """

    argument: Tensor
    forward: Callable[[], None]
    result: Tensor
    result_gradient: Tensor
    backward: Callable[[], None]
    gradient: Tensor


RecordGradient = Callable[[Work, Tensor], GradientGraphs]
"""Takes a function of one tensor, and an argument of it; returns the recorded passes."""


def record_gradient(work: Work, argument: Tensor) -> GradientGraphs:
    """Record two CUDA graphs of a function on the current GPU: its forward and its backward pass.

    As in `torch.cuda.make_graphed_callables`, both graphs share one memory pool, so that the backward pass finds the
    activations of the forward pass.

    Args:
        work: Differentiable function of one tensor that returns one tensor.
        argument: An argument of the function, of any shape.

    Returns:
        The recorded passes, which use tensors of their own.
    """
    leaf = argument.detach().clone().requires_grad_()

    def differentiate(result: Tensor, result_gradient: Tensor) -> Tensor:
        return torch.autograd.grad(result, leaf, result_gradient)[0]

    def both_passes() -> Tensor:
        result = work(leaf)
        return differentiate(result, torch.ones_like(result))

    with torch.enable_grad():
        _warm_up(both_passes)
        pool = torch.cuda.graph_pool_handle()
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward, pool=pool):
            result = work(leaf)
        result_gradient = torch.ones_like(result)
        with torch.cuda.graph(backward, pool=pool):
            gradient = differentiate(result, result_gradient)
    return GradientGraphs(leaf.detach(), forward.replay, result.detach(), result_gradient, backward.replay, gradient)


class _Recording:
    """Recorded passes, and the number of the last forward pass, whose activations the backward pass reads."""

    def __init__(self, graphs: GradientGraphs) -> None:
        self.graphs = graphs
        self.forward_passes = 0
        self.waits_for_backward = False

    def run_forward(self, argument: Tensor) -> Tensor:
        self.graphs.argument.copy_(argument)
        self.graphs.forward()
        self.forward_passes += 1
        self.waits_for_backward = True
        return self.graphs.result.clone()

    def run_backward(self, result_gradient: Tensor, forward_pass: int) -> Tensor:
        if forward_pass != self.forward_passes or not self.waits_for_backward:
            raise RuntimeError(
                "the activations of this forward pass were overwritten or used; call backward once, before the next "
                "call of the GraphedGradient with an argument of the same shape"
            )
        self.waits_for_backward = False
        self.graphs.result_gradient.copy_(result_gradient)
        self.graphs.backward()
        return self.graphs.gradient.clone()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, argument: Tensor, recording: _Recording) -> Tensor:
        result = recording.run_forward(argument)
        ctx.recording, ctx.forward_pass = recording, recording.forward_passes
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.recording.run_backward(gradients[0], ctx.forward_pass), None


class GraphedGradient:
    """A differentiable function of one tensor that runs as two CUDA graphs, without random numbers.

    The graphs are recorded once for each shape and type of the argument. The backward pass must run before the next
    call with an argument of the same shape, because this call overwrites the activations.
    """

    def __init__(self, work: Work, record: RecordGradient = record_gradient) -> None:
        self._work = work
        self._record = record
        self._recorded: dict[object, _Recording] = {}

    def __call__(self, argument: Tensor) -> Tensor:
        shape = argument.shape, argument.dtype, argument.stride()
        if shape not in self._recorded:
            with cast(Any, torch.cuda.device_of)(argument):  # streams and graphs belong to the current device
                self._recorded[shape] = _Recording(self._record(self._work, argument))
        result: Tensor = cast(Any, _Replay).apply(argument, self._recorded[shape])
        return result
