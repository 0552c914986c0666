"""Measure how training scales with GPUs: `python -m benchmarks.train.ranks_bench --world 2 4 8`, minutes on one host.

The UNet of `benchmarks.train.train_bench` (the size of Stable Diffusion 2.1, random weights and latents) trains with
`train.distributed.process_group` on one GPU and then on each number of GPUs of `--world`, in new processes without Ray.
The global batch is always the same: with fewer GPUs, each accumulates the gradients of more micro-batches. The losses
of the first steps must therefore agree within LOSS_TOLERANCE, and the output says whether they do. With fewer GPUs
there are fewer optimizer steps and fewer reductions of gradients per micro-batch.

Each way to train, such as `fsdp-4`, has one line of JSON. The last line compares them: `speedups` divides the target
views per second by those of one GPU, `efficiency` also by the number of GPUs, and `mfu` is the fraction of the GPUs'
bf16 matmul peak.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.train.train_bench import SHAPES, VIEWS, random_batch, reference_use, starting_unet
from dataset.errors import run_cli
from dataset.io.old_flags import rename_old_flags
from train.data.sampling import DiffusionNoise
from train.distributed.gradients import average_gradients, broadcast_weights
from train.distributed.process_group import (
    Parallel,
    Ranks,
    accumulating,
    clip_norm,
    init_process_group,
    wrap_ddp_or_fsdp,
)
from train.layers.compile import (
    BLOCKS,
    CompileChoice,
    Compute,
    choose_compute,
    make_optimizer,
    prepare,
    separate_gradients,
    update,
)
from train.loop.flops import matmul_peak, object_flops
from train.loop.loss import Encoded, predict, training_loss
from train.model.noise_schedule import noise_schedule

LOSS_TOLERANCE: Final = 1e-3  # absolute; in bf16, sums in another order differ


class Way(NamedTuple):
    """A way to train: how `world` processes share the model.

    `flat` is `train.distributed.gradients`, which `python -m train --compile graphs` uses instead of DDP.
    """

    name: str
    parallel: Literal["ddp", "fsdp", "flat"]
    world: int


@dataclass(frozen=True)
class RanksSpeed:
    """Measurements of one way to train, by rank 0."""

    name: str
    world: int
    grad_accum_steps: int  # micro-batches per step and GPU
    views_per_s: float  # target views of all ranks; median of the rounds
    rounds: list[float]  # views_per_s of each round
    first_step_s: float  # includes the compilation
    seconds_per_step: float
    local_seconds_per_step: float | None  # without gradient reduction; None on one GPU and with FSDP2
    peak_gib: float
    losses: list[float]  # of the first steps
    weights_agree: bool  # bit for bit on all ranks, after all steps
    peak_flops: float | None  # bf16 matmul FLOP/s of one GPU
    reduction_s: float | None  # of an all-reduce as large as the gradients, by itself; None on one GPU


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    ways = [] if options.skip_one else [Way("one", "ddp", 1)]
    ways += [Way(f"{each}-{world}", each, world) for world in options.world for each in options.parallel]
    measured = {}
    for way in ways:
        measured[way.name] = run(options, way)
        print(json.dumps(asdict(measured[way.name])), flush=True)
    print(json.dumps(summary(options, measured)))
    return 0


def summary(options: argparse.Namespace, measured: Mapping[str, RanksSpeed]) -> dict[str, Any]:
    """Return the numbers of the last line. The first way in `measured` is the one to which the others are compared."""
    base = next(iter(measured.values()))
    speedups = {name: result.views_per_s / base.views_per_s for name, result in measured.items()}
    differences = {
        name: max(abs(a - b) for a, b in zip(base.losses, result.losses, strict=True))
        for name, result in measured.items()
    }
    with torch.device("meta"):
        view_flops = object_flops(starting_unet(options), reference_use(options), VIEWS) / VIEWS
    return {
        "world": options.world,
        "stage": options.stage,
        "objects_a_micro_batch": options.objects,
        "global_batch_objects": options.objects * options.grad_accum_steps * max(options.world),
        "views_per_s": {name: round(result.views_per_s, 2) for name, result in measured.items()},
        "speedups": {name: round(speedup, 3) for name, speedup in speedups.items()},
        "efficiency": {
            name: round(speedup * base.world / measured[name].world, 4) for name, speedup in speedups.items()
        },
        "peak_gib": {name: round(result.peak_gib, 2) for name, result in measured.items()},
        "communication_share": {
            name: round(1 - result.local_seconds_per_step / result.seconds_per_step, 4)
            for name, result in measured.items()
            if result.local_seconds_per_step is not None
        },
        "reduction_s": {
            name: round(result.reduction_s, 5) for name, result in measured.items() if result.reduction_s is not None
        },
        "mfu": None
        if base.peak_flops is None
        else {
            name: round(result.views_per_s * view_flops / base.peak_flops / result.world, 4)
            for name, result in measured.items()
        },
        "matmul_peak_tflops": None if base.peak_flops is None else round(base.peak_flops / 1e12, 1),
        "first_losses": {name: result.losses for name, result in measured.items()},
        "largest_loss_difference": differences,
        "losses_agree": max(differences.values()) <= LOSS_TOLERANCE,
        "weights_agree": all(result.weights_agree for result in measured.values()),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--world", nargs="+", type=int, default=[2], help="numbers of processes to measure, each with its own GPU"
    )
    parser.add_argument(
        "--parallel",
        nargs="+",
        choices=("ddp", "fsdp", "flat"),
        default=["ddp"],
        help="ways to train in parallel; flat averages all gradients in one operation after the backward pass",
    )
    parser.add_argument(
        "--skip-one", action="store_true", help="leave out one GPU; the first way that is measured takes its place"
    )
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2, help="training stage whose step is measured")
    parser.add_argument(
        "--objects", type=int, default=16, help="objects per micro-batch and GPU, with four target views each"
    )
    parser.add_argument(
        "--grad-accum-steps",
        type=int,
        default=2,
        help="number of micro-batches per step and GPU with the largest --world; with fewer GPUs, each has more",
    )
    parser.add_argument("--steps", type=int, default=10, help="steps per round")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; the median is reported")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="sd21", help="size of the UNet")
    parser.add_argument(
        "--compile",
        choices=[choice for choice in get_args(CompileChoice) if choice != "graphs"],
        default="auto",
        help="how to compile the UNet, as in `python -m train`",
    )
    parser.add_argument(
        "--blocks",
        choices=BLOCKS,
        default="auto",
        help="implementation of the UNet's blocks, as in `python -m train`",
    )
    parser.add_argument(
        "--optimize-ddp",
        choices=("on", "off"),
        default="off",
        help="split compiled graphs at the gradient buckets of DDP",
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device, cpu or cuda (default: cuda if there is a GPU)",
    )
    argv = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(rename_old_flags(argv, {"--accumulation": "--grad-accum-steps"}))
    if options.compile == "whole" and "fsdp" in options.parallel:
        parser.error("--compile whole does not work with --parallel fsdp; give --compile levels, or leave it out")
    most, total = max(options.world), options.grad_accum_steps * max(options.world)
    if options.device == "cuda" and torch.cuda.device_count() < most:
        parser.error(f"--world is {most}, but this host has only {torch.cuda.device_count()} GPUs; give a smaller one")
    for world in options.world:
        if world < 2 or total % world:
            parser.error(
                f"--world {world} cannot share a step of {total} micro-batches (--grad-accum-steps "
                f"{options.grad_accum_steps} times {most}); give numbers from 2 on that divide {total}"
            )
    return options


def run(options: argparse.Namespace, way: Way) -> RanksSpeed:
    """Measure one way to train in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_process, (options, way, folder), nprocs=way.world)  # type: ignore[no-untyped-call]
        return RanksSpeed(**json.loads((Path(folder) / "way.json").read_text()))


def _process(rank: int, options: argparse.Namespace, way: Way, folder: str) -> None:
    device = torch.device("cuda", rank) if options.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    parallel: Parallel = "fsdp" if way.parallel == "fsdp" else "ddp"
    with init_process_group(rank, way.world, device, parallel, init_method=meeting) as ranks:
        result = measure(options, ranks, way, device)
    if rank == 0:
        (Path(folder) / "way.json").write_text(json.dumps(asdict(result)))


def measure(options: argparse.Namespace, ranks: Ranks, way: Way, device: torch.device) -> RanksSpeed:
    compute = choose_compute(device, options.compile, split=ranks.sharded, blocks=options.blocks)
    trainer = make_trainer(options, ranks, compute, device, flat=way.parallel == "flat")
    losses: list[Tensor] = []
    first_step_s = _seconds(lambda: losses.append(trainer.step()), device, ranks)
    if ranks.first:
        print(f"{way.name}: the first step took {first_step_s:.0f} s", flush=True)
    for _ in range(2):
        losses.append(trainer.step())
    views = options.objects * VIEWS * len(trainer.batches) * ranks.world
    seconds = [
        _seconds(lambda: [trainer.step() for _ in range(options.steps)], device, ranks) / options.steps
        for _ in range(options.rounds)
    ]
    agree = ranks.world == 1 or _agree(trainer.unet, ranks)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    local_s = None
    if ranks.world > 1 and not ranks.sharded:
        trainer.step(local=True)
        local_s = _seconds(lambda: [trainer.step(local=True) for _ in range(options.steps)], device, ranks)
    middle = statistics.median(seconds)
    return RanksSpeed(
        way.name,
        ranks.world,
        len(trainer.batches),
        views / middle,
        [views / second for second in seconds],
        first_step_s,
        middle,
        None if local_s is None else local_s / options.steps,
        peak,
        [float(loss) for loss in losses],
        agree,
        matmul_peak(device) if device.type == "cuda" and ranks.first else None,
        _reduction_s(trainer.unet, device, ranks) if ranks.world > 1 else None,
    )


def _reduction_s(unet: nn.Module, device: torch.device, ranks: Ranks) -> float:
    """Return the seconds of an all-reduce of as many float32 numbers as the UNet has weights; median of five."""
    gradients = torch.zeros(sum(parameter.numel() for parameter in unet.parameters()), device=device)
    dist.all_reduce(gradients)
    return statistics.median(_seconds(lambda: dist.all_reduce(gradients), device, ranks) for _ in range(5))


@dataclass(frozen=True)
class RankTrainer:
    """A network in training on this rank."""

    ranks: Ranks
    unet: nn.Module
    called: nn.Module
    optimizer: torch.optim.AdamW
    alphas: Tensor
    batches: list[tuple[Encoded, DiffusionNoise]]  # micro-batches of this rank per step
    flat: bool  # average the gradients in one operation after the backward pass
    compiled: bool

    def step(self, *, local: bool = False) -> Tensor:
        """Run a step of `train.loop.loop`. Return the mean loss over ranks. `local` skips the gradient reduction."""
        self.optimizer.zero_grad(set_to_none=True)
        device = self.alphas.device
        total = torch.zeros((), device=device)
        for micro, (encoded, draw) in enumerate(self.batches):
            last = micro == len(self.batches) - 1 and not local
            with accumulating(self.called, self.ranks, last=last or self.flat):
                predicted = predict(self.called, encoded, draw, self.alphas)
                loss = training_loss(predicted, draw, self.alphas) / len(self.batches)
                loss.backward()  # type: ignore[no-untyped-call]
                if self.compiled and not self.ranks.sharded:
                    separate_gradients(self.unet.parameters())
            total += loss.detach()
        if self.flat and not local:
            average_gradients(self.unet.parameters(), self.ranks)
        self.ranks.mean(total)
        update(self.optimizer, total, clip_norm(self.unet.parameters(), 1.0))
        return total


def make_trainer(
    options: argparse.Namespace, ranks: Ranks, compute: Compute, device: torch.device, *, flat: bool
) -> RankTrainer:
    torch.manual_seed(1)
    unet = starting_unet(options)
    nn.Module.to(unet, device)
    prepare(unet, compute)
    if flat:
        broadcast_weights(unet, ranks)
    called = unet if flat else wrap_ddp_or_fsdp(unet, ranks)
    torch._dynamo.config.optimize_ddp = options.optimize_ddp == "on"  # read at the first step
    optimizer = make_optimizer(unet.parameters(), compute, lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2)
    batches = []
    for micro_batch in range(ranks.rank, options.grad_accum_steps * max(options.world), ranks.world):
        torch.manual_seed(1000 + micro_batch)
        batches.append(random_batch(options, device))
    return RankTrainer(
        ranks, unet, called, optimizer, noise_schedule().to(device), batches, flat, compute.compile != "none"
    )


def _seconds(work: Callable[[], Any], device: torch.device, ranks: Ranks) -> float:
    """Return the seconds that `work` takes, from when all ranks are ready until this rank's device has finished."""
    _finish(device)
    ranks.wait()
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _agree(unet: nn.Module, ranks: Ranks) -> bool:
    """Return whether all ranks have bit-identical weights. With FSDP2 weights are sharded and cannot be compared."""
    if ranks.parallel == "fsdp":
        return True
    different = False
    for parameter in unet.parameters():
        first = parameter.detach().clone()
        dist.broadcast(first, 0)
        different |= not torch.equal(first, parameter)
    return not ranks.any(different)


if __name__ == "__main__":
    run_cli(main)
