"""Measure training speed and MFU: `python -m benchmarks.train.train_bench`, minutes on one GPU.

The UNet has the size of Stable Diffusion 2.1 and random weights; latents and embeddings are random too. The benchmark
measures the matmul peak of the machine, a plain eager loop (bf16 autocast, default AdamW, reading the loss in every
step) and the steps of `train.loop.loop`, with `train.layers.compile` and `train.loop.loss`. FLOPs are counted by
`train.loop.flops`. The last line is JSON.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.options import add_device, add_matmul
from dataset.errors import run_cli
from dataset.io.old_flags import rename_old_flags
from train.config.unet_shapes import SD21_UNET, TINY_UNET
from train.data.sampling import DiffusionNoise
from train.device import mixed_precision
from train.layers.compile import (
    BLOCKS,
    CompileChoice,
    Compute,
    choose_compute,
    make_optimizer,
    prepare,
    separate_gradients,
)
from train.loop.flops import matmul_peak, object_flops, seconds_of
from train.loop.loss import Encoded, predict, training_loss
from train.model.noise_schedule import NUM_TIMESTEPS, noise_schedule
from train.model.reference import ReferenceMode, prepare_for_reference
from train.model.unet import CAMERA_NUMBERS, UNetShape, build_unet

SHAPES: Final = {
    "sd21": SD21_UNET,
    "tiny": TINY_UNET,
    "micro": UNetShape(4, 8, (32, 64), (True, True), 1, 16, 24, norm_groups=8),
}
VIEWS: Final = 4
PROFILED_STEPS: Final = 3
# Words in the names of kernels; the first match counts. Inductor comes first: its names list the fused operations.
KERNELS: Final = {
    "normalization, activations, sums (Inductor)": ("triton_",),
    "attention": ("sdpa", "flash", "fmha", "attention"),
    "convolutions": ("fprop", "dgrad", "wgrad", "convolve", "conv2d"),
    "layout changes": ("nchwtonhwc", "nhwctonchw", "transpose"),
    "optimizer and gradient norm": ("multi_tensor", "adam"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "splitk"),
    "copies and fills": ("memcpy", "memset", "copy", "fill"),
    "torch's own elementwise kernels and reductions": ("at::native",),
}


@dataclass(frozen=True)
class TrainSpeed:
    """Measurements of one training loop."""

    views_per_s: float  # target views
    seconds_per_step: float
    flops_per_s: float
    gpu_idle_share: float | None
    peak_gib: float
    compile_s: float  # first step, includes the compilation
    loss: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    device = torch.device(options.device)
    torch.manual_seed(0)
    peak = matmul_peak(device, options.matmul)
    with torch.device("meta"):
        counted = starting_unet(options)
    flops = object_flops(counted, reference_use(options), VIEWS) * options.objects
    print(f"matmul peak {peak / 1e12:.1f} TFLOP/s; {flops / 1e12:.3f} TFLOP per micro-batch", flush=True)
    results: dict[str, TrainSpeed] = {}
    ways = {"eager": Compute()} if not options.skip_eager else {}
    chosen = choose_compute(device, options.compile, checkpointing=options.checkpointing, blocks=options.blocks)
    for name, compute in {**ways, "ours": chosen}.items():
        results[name] = measure(options, compute, device, flops, plain=name == "eager")
        print(f"{name} {asdict(compute)}: {asdict(results[name])}", flush=True)
    ours = results["ours"]
    line = {
        "stage": options.stage,
        "objects": options.objects,
        "accumulation": options.grad_accum_steps,
        "blocks": chosen.blocks,
        "views_per_s": round(ours.views_per_s, 2),
        "share_of_peak": round(ours.flops_per_s / peak, 4),
        "speedup_vs_eager": round(ours.views_per_s / results["eager"].views_per_s, 3) if "eager" in results else None,
        "matmul_peak_tflops": round(peak / 1e12, 1),
        "gpu_idle_share": ours.gpu_idle_share,
        "peak_gib": round(ours.peak_gib, 2),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2, help="training stage whose step is measured")
    parser.add_argument("--objects", type=int, default=16, help="objects per micro-batch, with four target views each")
    parser.add_argument("--grad-accum-steps", type=int, default=2, help="micro-batches per step")
    parser.add_argument("--steps", type=int, default=10, help="number of steps to measure")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="sd21", help="size of the UNet")
    parser.add_argument(
        "--compile",
        choices=get_args(CompileChoice),
        default="auto",
        help="how to compile the UNet, as in `python -m train`",
    )
    parser.add_argument(
        "--blocks",
        choices=BLOCKS,
        default="auto",
        help="implementation of the UNet's blocks, as in `python -m train`",
    )
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--kernels", type=int, default=0, help="number of kernels to print, slowest first")
    parser.add_argument("--skip-eager", action="store_true", help="skip the plain eager loop")
    add_matmul(parser)
    add_device(parser)
    argv = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(rename_old_flags(argv, {"--accumulation": "--grad-accum-steps"}))
    if options.compile == "graphs" and options.grad_accum_steps > 1:
        parser.error("--compile graphs cannot accumulate gradients; give --grad-accum-steps 1")
    return options


def reference_use(options: argparse.Namespace) -> ReferenceMode:
    use: ReferenceMode = "attention" if options.stage == 2 else "none"
    return use


def starting_unet(options: argparse.Namespace) -> nn.Module:
    return prepare_for_reference(build_unet(SHAPES[options.shape]), reference_use(options)).train()


def random_batch(options: argparse.Namespace, device: torch.device) -> tuple[Encoded, DiffusionNoise]:
    shape = SHAPES[options.shape]
    b, latent = options.objects, (shape.latent_channels, shape.latent_size, shape.latent_size)
    targets = torch.randn(b, VIEWS, *latent, device=device)
    encoded = Encoded(
        targets,
        torch.randn(b, *latent, device=device) if options.stage == 2 else None,
        torch.randn(b, VIEWS, CAMERA_NUMBERS, device=device),
        torch.randn(b, 1, CAMERA_NUMBERS, device=device),
        torch.randn(b, 1, shape.token_width, device=device),
        reference_use(options),
    )
    draw = DiffusionNoise(
        torch.randint(NUM_TIMESTEPS, (b,), device=device),
        torch.randn_like(targets),
        torch.rand(b, device=device) < 0.1,
    )
    return encoded, draw


def measure(
    options: argparse.Namespace, compute: Compute, device: torch.device, flops: float, *, plain: bool
) -> TrainSpeed:
    torch.manual_seed(1)
    unet = starting_unet(options)
    nn.Module.to(unet, device)
    optimizer = make_optimizer(unet.parameters(), compute, lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2)
    trainer = BenchTrainer(prepare(unet, compute), optimizer, noise_schedule().to(device), plain)
    encoded, draw = random_batch(options, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step() -> Tensor:
        return trainer.step(encoded, draw, options.grad_accum_steps)

    compile_s = seconds_of(step, device)
    for _ in range(2):
        step()
    seconds = seconds_of(lambda: [step() for _ in range(options.steps)], device) / options.steps
    idle = None
    if device.type == "cuda":
        trace, traced_s = traced(step, device)
        idle = round(max(0.0, 1 - _busy_s(trace) / traced_s), 4)
        print_kernels(trace, options.kernels)
    loss = float(step())
    views = options.objects * VIEWS * options.grad_accum_steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return TrainSpeed(views / seconds, seconds, flops * options.grad_accum_steps / seconds, idle, peak, compile_s, loss)


@dataclass(frozen=True)
class BenchTrainer:
    """A network in training. `plain`: the plain loop, which reads the loss of every micro-batch."""

    unet: nn.Module
    optimizer: torch.optim.Optimizer
    alphas: Tensor
    plain: bool

    def step(self, encoded: Encoded, draw: DiffusionNoise, grad_accum_steps: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.alphas.device)
        for _ in range(grad_accum_steps):
            precision = _plain_precision if self.plain else mixed_precision
            predicted = predict(self.unet, encoded, draw, self.alphas, precision)
            loss = training_loss(predicted, draw, self.alphas) / grad_accum_steps
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            if self.plain:
                loss.item()
            else:
                separate_gradients(self.unet.parameters())
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        return total


def _plain_precision(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def traced(step: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Profile some steps on a GPU. Return the profile and the seconds."""
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        seconds = seconds_of(lambda: [step() for _ in range(PROFILED_STEPS)], device)
    return trace, seconds


def _busy_s(trace: Any) -> float:
    busy: float = sum(event.self_device_time_total for event in trace.key_averages()) / 1e6
    return busy


def print_kernels(trace: Any, most: int) -> None:
    """Print the GPU time per step by kind of kernel, then the `most` slowest kernels."""
    events = [(event.self_device_time_total, event.count, event.key) for event in trace.key_averages()]
    total = sum(event[0] for event in events)
    kinds: Counter[str] = Counter()
    for microseconds, _, name in events:
        kinds[kind_of_kernel(name)] += microseconds
    for name, microseconds in kinds.most_common():
        print(f"{microseconds / total:6.1%} {microseconds / PROFILED_STEPS / 1e3:9.2f} ms per step: {name}")
    for microseconds, count, name in sorted(events, reverse=True)[:most]:
        share = f"{microseconds / total:6.1%} {microseconds / PROFILED_STEPS / 1e3:9.2f} ms"
        print(f"{share} {count // PROFILED_STEPS:5d} x {name[:110]}")


def kind_of_kernel(name: str) -> str:
    """Return what a GPU kernel computes, from its name in cuDNN, cuBLAS, Inductor or torch."""
    lower = name.lower()
    return next((kind for kind, words in KERNELS.items() if any(word in lower for word in words)), "other")


if __name__ == "__main__":
    run_cli(main)
