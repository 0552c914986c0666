"""How much of the GPU training uses: `python -m benchmarks.train_bench`, minutes on one GPU.

The UNet has Stable Diffusion 2.1's size and random weights; latents and embeddings are random too, as a latent set
would give them. One run measures the matrix peak of the machine, a plain eager loop as people write it (bf16 autocast,
default AdamW, the loss read in every step), and `train.compute`. FLOPs are counted by torch on the eager network. The
last line is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from train.batch import Draw
from train.compute import Compute, LatentBatch, default_compute, latent_loss, make_optimiser, mixed_precision, prepare
from train.model import CAMERA_NUMBERS, NUM_TIMESTEPS, UNetShape, build_unet, noise_schedule

SHAPES: Final = {
    "sd21": UNetShape(4, 32, (320, 640, 1280, 1280), (True, True, True, False), 2, 64, 1024),
    "micro": UNetShape(4, 8, (32, 64), (True, True), 1, 16, 24, norm_groups=8),
}
VIEWS: Final = 4
MATMUL_SIDE: Final = 8192
PROFILED_STEPS: Final = 3


@dataclass(frozen=True)
class Result:
    """One way to train, measured."""

    views_per_s: float  # target views
    seconds_a_step: float
    flops_per_s: float
    gpu_idle_share: float | None
    peak_gib: float
    compile_s: float  # first step: compilation included
    loss: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    device = torch.device(options.device)
    torch.manual_seed(0)
    peak = matmul_peak(device, options.matmul)
    flops = count_flops(options, device)
    print(f"matmul peak {peak / 1e12:.1f} TFLOP/s; {flops / 1e12:.3f} TFLOP a micro-batch", flush=True)
    results: dict[str, Result] = {}
    ways = {"eager": Compute()} if not options.skip_eager else {}
    chosen = default_compute(device)
    if options.compile:
        chosen = Compute(options.compile, chosen.channels_last, chosen.fused_optimiser, options.checkpointing)
    for name, compute in {**ways, "ours": chosen}.items():
        results[name] = measure(options, compute, device, flops, plain=name == "eager")
        print(f"{name} {asdict(compute)}: {asdict(results[name])}", flush=True)
    ours = results["ours"]
    line = {
        "stage": options.stage,
        "objects": options.objects,
        "accumulation": options.accumulation,
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
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2)
    parser.add_argument("--objects", type=int, default=16, help="objects a micro-batch, four target views each")
    parser.add_argument("--accumulation", type=int, default=2, help="micro-batches a step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="sd21")
    parser.add_argument("--compile", choices=("none", "blocks", "whole"), default=None)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--skip-eager", action="store_true")
    parser.add_argument("--matmul", type=int, default=MATMUL_SIDE, help="side of the matrices of the peak")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def matmul_peak(device: torch.device, side: int) -> float:
    """FLOP/s of square bf16 matrix products, the median of 20."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds = sorted(_seconds(lambda: a @ b, device) for _ in range(20))[10]
    return 2 * side**3 / seconds


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def random_batch(options: argparse.Namespace, device: torch.device) -> LatentBatch:
    shape = SHAPES[options.shape]
    b, latent = options.objects, (shape.latent_channels, shape.latent_size, shape.latent_size)
    targets = torch.randn(b, VIEWS, *latent, device=device)
    return LatentBatch(
        targets,
        torch.randn(b, *latent, device=device) if options.stage == 2 else None,
        torch.randn(b, VIEWS, CAMERA_NUMBERS, device=device),
        torch.randn(b, 1, shape.token_width, device=device),
        Draw(
            torch.randint(NUM_TIMESTEPS, (b,), device=device),
            torch.randn_like(targets),
            torch.rand(b, device=device) < 0.1,
        ),
    )


def count_flops(options: argparse.Namespace, device: torch.device) -> float:
    """FLOPs of one micro-batch, forward and backward, from those of one object."""
    one = argparse.Namespace(**{**vars(options), "objects": 1})
    unet, alphas = build_unet(SHAPES[options.shape]).to(device), noise_schedule().to(device)
    with FlopCounterMode(display=False) as counter:
        with mixed_precision(device):
            loss = latent_loss(unet, random_batch(one, device), alphas)
        loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) * int(options.objects)


def measure(
    options: argparse.Namespace, compute: Compute, device: torch.device, flops: float, *, plain: bool
) -> Result:
    torch.manual_seed(1)
    unet = build_unet(SHAPES[options.shape]).to(device).train()
    optimiser = make_optimiser(unet.parameters(), compute, lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2)
    trainee = Trainee(unet, prepare(unet, compute), optimiser, noise_schedule().to(device), plain)
    batch = random_batch(options, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step() -> Tensor:
        return trainee.step(batch, options.accumulation)

    compile_s = _seconds(step, device)
    for _ in range(2):
        step()
    seconds = _seconds(lambda: [step() for _ in range(options.steps)], device) / options.steps
    idle = gpu_idle_share(step, device)
    loss = float(step())
    views = options.objects * VIEWS * options.accumulation
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Result(views / seconds, seconds, flops * options.accumulation / seconds, idle, peak, compile_s, loss)


@dataclass(frozen=True)
class Trainee:
    """A network in training. `plain`: the loop as people write it, that reads the loss of every micro-batch."""

    unet: nn.Module
    called: nn.Module  # the same, as `train.compute.prepare` gives it
    optimiser: torch.optim.Optimizer
    alphas: Tensor
    plain: bool

    def step(self, batch: LatentBatch, accumulation: int) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        device = self.alphas.device
        total = torch.zeros((), device=device)
        for _ in range(accumulation):
            with _plain_precision(device) if self.plain else mixed_precision(device):
                loss = latent_loss(self.called, batch, self.alphas) / accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            if self.plain:
                loss.item()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        return total


def _plain_precision(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def gpu_idle_share(step: Callable[[], Any], device: torch.device) -> float | None:
    """Share of a step in which no kernel runs, from torch's profiler; None without a GPU."""
    if device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        seconds = _seconds(lambda: [step() for _ in range(PROFILED_STEPS)], device)
    busy: float = sum(event.self_device_time_total for event in trace.key_averages()) / 1e6
    return round(max(0.0, 1 - busy / seconds), 4)


if __name__ == "__main__":
    sys.exit(main())
