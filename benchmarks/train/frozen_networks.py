"""Time the frozen networks at the paper's sizes with random weights: `python -m benchmarks.train.frozen_networks`.

The benchmark makes three measurements on one GPU:

- the number of 256-pixel views that the VAE encoder and ViT-H-14 encode per second, by batch size and precision;
- the time of the VAE's mid-block attention (one head of 512 channels) in each implementation;
- the time of encoding with the gradient of the image, as in score distillation, with and without a CUDA graph.

Every measurement is one line of JSON; the last line names the best way to encode. `--toy` runs small networks on a CPU
to check the script.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dataset.errors import run_cli
from train.loop.flops import MATMUL_SIDE, matmul_peak, seconds_of

VIT: Final = "ViT-H-14"
TOY_VIT: Final = "ViT-B-32"
VAE_WIDTHS: Final = (128, 256, 512, 512)
TOY_WIDTHS: Final = (32, 32, 32, 32)
WARM_UP: Final = 3


@dataclass(frozen=True)
class EncodeSpeed:
    """Encoding speed of one network in one configuration."""

    network: str
    precision: str
    compiled: bool
    batch: int
    views_per_s: float
    share_of_peak: float


@dataclass(frozen=True)
class Setup:
    """Device and sizes of the measurements."""

    device: torch.device
    toy: bool
    batches: tuple[int, ...]
    repeats: int
    peak: float  # FLOP per second

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.toy else torch.bfloat16

    def seconds(self, call: Callable[[], Any]) -> float:
        """Return the mean seconds per call, after a warm-up that compiles."""
        for _ in range(WARM_UP):
            call()
        return seconds_of(lambda: [call() for _ in range(self.repeats)], self.device) / self.repeats


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256], help="batch sizes to measure")
    parser.add_argument("--repeats", type=int, default=6, help="number of calls per measurement")
    parser.add_argument("--toy", action="store_true", help="run small networks on a CPU, to check the script")
    parser.add_argument(
        "--only", choices=("encode", "attention", "gradient"), default=None, help="do only this measurement"
    )
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.toy else "cuda")
    # One compiled graph per batch size and precision: beyond the default limit torch would fall back to eager mode.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.accumulated_recompile_limit = 512
    side = 64 if options.toy else MATMUL_SIDE
    setup = Setup(device, options.toy, tuple(options.batches), options.repeats, matmul_peak(device, side))
    measurements = {"attention": attention_ways, "gradient": image_gradients, "encode": encode_speeds}
    best: dict[str, Any] = {"matmul_peak_tflops": round(setup.peak / 1e12, 1), "torch": torch.__version__}
    for name, measurement in measurements.items():
        if options.only not in (None, name):
            continue
        for row in measurement(setup):
            print(json.dumps(row), flush=True)
            if name == "encode" and row["views_per_s"] > best.get(row["network"], {}).get("views_per_s", 0):
                best[row["network"]] = row
    print(json.dumps(best))
    return 0


def build_vae(setup: Setup) -> nn.Module:
    """Return an autoencoder of Stable Diffusion's shape with random weights."""
    from diffusers import AutoencoderKL

    widths = TOY_WIDTHS if setup.toy else VAE_WIDTHS
    vae: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
    )
    return vae.eval().requires_grad_(False).to(setup.device, memory_format=torch.channels_last)  # type: ignore[no-any-return]


def build_vit(setup: Setup) -> nn.Module:
    """Return open_clip's image encoder with random weights."""
    import open_clip

    model: nn.Module = open_clip.create_model(TOY_VIT if setup.toy else VIT, pretrained=None).visual
    return model.eval().requires_grad_(False).to(setup.device)


def encode_speeds(setup: Setup) -> Iterator[dict[str, Any]]:
    """Measure the views per second of both encoders."""
    side = 32 if setup.toy else 256
    networks: dict[str, tuple[Any, int]] = {"vae": (build_vae(setup).encoder, side), "vit": (build_vit(setup), 224)}
    for name, (network, size) in networks.items():
        flops = count_flops(network, torch.zeros(1, 3, size, size, device=setup.device))
        for precision in ("autocast", "weights"):
            if precision == "weights":
                network.to(setup.dtype)
            for compiled in (False, True):
                call = _compiled(network) if compiled and not setup.toy else network
                for batch in setup.batches:
                    seconds = _encode_seconds(setup, call, precision, (batch, 3, size, size))
                    share = batch * flops / seconds / setup.peak
                    yield asdict(EncodeSpeed(name, precision, compiled, batch, batch / seconds, share))


def _encode_seconds(
    setup: Setup, network: Callable[..., Any], precision: str, shape: tuple[int, int, int, int]
) -> float:
    images = torch.rand(shape, device=setup.device, dtype=setup.dtype if precision == "weights" else torch.float32)
    images = images.to(memory_format=torch.channels_last)
    context = torch.autocast(setup.device.type, torch.bfloat16) if precision == "autocast" else nullcontext()
    with torch.no_grad(), context:
        return setup.seconds(lambda: network(images))


def _compiled(network: nn.Module) -> Callable[..., Any]:
    """Compile a network, with one graph per input shape."""
    compiled: Callable[..., Any] = torch.compile(network, dynamic=False)
    return compiled


def count_flops(network: Callable[[Tensor], Any], images: Tensor) -> float:
    """Count the operations of one image's encoding. The counter does not see torch's fused attention for inference.

    Args:
        network: Network without autocast.
        images: One image [1, 3, h, w] on the device of the network.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            network(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return float(counter.get_total_flops())


def attention_ways(setup: Setup) -> Iterator[dict[str, Any]]:
    """Time forward and backward of one-head attention [8, 1, 1024, 512] in each implementation."""
    shape = (2, 1, 16, 32) if setup.toy else (8, 1, 1024, 512)
    for name, backend, attention in (
        ("sdpa math", SDPBackend.MATH, functional.scaled_dot_product_attention),
        ("sdpa efficient", SDPBackend.EFFICIENT_ATTENTION, functional.scaled_dot_product_attention),
        ("products and softmax", None, plain_attention),
    ):
        context: AbstractContextManager[Any] = nullcontext() if backend is None else sdpa_kernel(backend)
        leaves = [torch.randn(shape, device=setup.device, dtype=setup.dtype, requires_grad=True) for _ in range(3)]
        try:
            with context:
                forward_s = setup.seconds(lambda: attention(*leaves))  # noqa: B023  (called before the next turn)
                both_s = setup.seconds(lambda: torch.autograd.grad(attention(*leaves).sum(), leaves))  # noqa: B023
        except RuntimeError as error:
            yield {"attention": name, "error": str(error).splitlines()[0]}
            continue
        yield {"attention": name, "forward_ms": forward_s * 1e3, "forward_and_backward_ms": both_s * 1e3}


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v for tensors [b, heads, l, d], with the softmax in float32."""
    scores = query @ key.transpose(-1, -2)
    weights = torch.softmax(scores.float() * query.shape[-1] ** -0.5, -1)
    return weights.to(value.dtype) @ value


def image_gradients(setup: Setup) -> Iterator[dict[str, Any]]:
    """Return the time in ms of encoding with the gradient of the images, as in a step of score distillation."""
    encoder: Any = build_vae(setup).encoder
    encoder.to(setup.dtype)
    side = 32 if setup.toy else 256
    for batch in (1,) if setup.toy else (4, 8):
        images = torch.rand(batch, 3, side, side, device=setup.device, dtype=setup.dtype)
        images = images.to(memory_format=torch.channels_last).requires_grad_()
        for compiled in (False, True):
            network: Callable[..., Any] = _compiled(encoder) if compiled and not setup.toy else encoder

            def step(network: Callable[..., Any] = network, images: Tensor = images) -> Tensor:
                latents = network(images)
                return torch.autograd.grad(latents, images, torch.ones_like(latents))[0]

            row: dict[str, Any] = {"image_gradient": batch, "compiled": compiled, "ms": setup.seconds(step) * 1e3}
            if setup.device.type == "cuda":
                row["graph_ms"] = setup.seconds(_recorded(step).replay) * 1e3
            yield row


def _recorded(step: Callable[[], Tensor]) -> torch.cuda.CUDAGraph:
    """Record a step as a CUDA graph, after a warm-up on a side stream, which torch requires."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


if __name__ == "__main__":
    run_cli(main)
