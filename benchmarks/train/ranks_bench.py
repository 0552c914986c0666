"""How training speed grows with GPUs: `python -m benchmarks.train.ranks_bench --world 2`, minutes on one host; no Ray
needed.

The UNet of `benchmarks.train.train_bench` (Stable Diffusion 2.1's size, random weights and latents) trains as
`train.distributed.process_group` spreads it, on one GPU and on `--world` of them, one way after the other in processes
of their own. Every way takes the same global batch: what N GPUs share, one GPU accumulates N times as often. So their
losses agree too, which is reported, and one GPU has the advantage of fewer optimizer steps a micro-batch. The last line
is JSON; its `speedup` is target views per second of the first of `--parallel` against one GPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.train.train_bench import SHAPES, VIEWS, random_batch, starting_unet
from train.data.sampling import DiffusionNoise
from train.distributed.process_group import Ranks, accumulating, clip_norm, init_process_group, wrap_ddp_or_fsdp
from train.layers.compile import BLOCKS, Compute, choose_compute, make_optimiser, prepare, update
from train.loop.loss import Encoded, predict, training_loss
from train.model.noise_schedule import noise_schedule


@dataclass(frozen=True)
class Way:
    """One way to train, measured by rank 0."""

    name: str
    world: int
    views_per_s: float  # target views, of all ranks; the median round
    rounds: list[float]  # the same of each round
    first_step_s: float  # compilation included
    seconds_a_step: float
    quiet_seconds_a_step: float | None  # where gradients never meet; None on one GPU and with FSDP2
    peak_gib: float
    losses: list[float]  # of the first steps
    weights_agree: bool  # to the bit, on all ranks, after all steps


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    ways = {"one": 1, **dict.fromkeys(options.parallel, options.world)}
    found = {}
    for name, world in ways.items():
        found[name] = run(options, name, world)
        print(json.dumps(asdict(found[name])), flush=True)
    one, first = found["one"], found[options.parallel[0]]
    line = {
        "world": options.world,
        "stage": options.stage,
        "objects_a_micro_batch": options.objects,
        "global_batch_objects": options.objects * options.accumulation * options.world,
        "views_per_s": {name: round(way.views_per_s, 2) for name, way in found.items()},
        "speedups": {name: round(way.views_per_s / one.views_per_s, 3) for name, way in found.items()},
        "peak_gib": {name: round(way.peak_gib, 2) for name, way in found.items()},
        "communication_share": None
        if first.quiet_seconds_a_step is None
        else round(1 - first.quiet_seconds_a_step / first.seconds_a_step, 4),
        "largest_loss_difference": {
            name: max(abs(a - b) for a, b in zip(one.losses, way.losses, strict=True)) for name, way in found.items()
        },
        "weights_agree": all(way.weights_agree for way in found.values()),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "speedup": round(first.views_per_s / one.views_per_s, 3),
    }
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=int, default=2, help="processes, each with a GPU of its own")
    parser.add_argument(
        "--parallel", nargs="+", choices=("ddp", "fsdp"), default=["ddp"], help="ways, the first counts"
    )
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2)
    parser.add_argument(
        "--objects", type=int, default=16, help="objects a micro-batch of a GPU, four target views each"
    )
    parser.add_argument("--accumulation", type=int, default=2, help="micro-batches a step of each of the `world` GPUs")
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="sd21")
    parser.add_argument("--compile", choices=("none", "blocks", "whole", "auto"), default="auto")
    parser.add_argument("--blocks", choices=BLOCKS, default="auto", help="of the networks; see train.layers.compile")
    parser.add_argument("--optimize-ddp", choices=("on", "off"), default="off", help="torch splits graphs at buckets")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and torch.cuda.device_count() < options.world:
        parser.error(f"--world {options.world}: this host has {torch.cuda.device_count()} GPUs")
    return options


def run(options: argparse.Namespace, name: str, world: int) -> Way:
    """Measure one way in `world` new processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_process, (options, name, world, folder), nprocs=world)  # type: ignore[no-untyped-call]
        return Way(**json.loads((Path(folder) / "way.json").read_text()))


def _process(rank: int, options: argparse.Namespace, name: str, world: int, folder: str) -> None:
    device = torch.device("cuda", rank) if options.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    with init_process_group(
        rank, world, device, "fsdp" if name == "fsdp" else "ddp", init_method=f"file://{folder}/meeting"
    ) as ranks:
        way = measure(options, ranks, name, device)
    if rank == 0:
        (Path(folder) / "way.json").write_text(json.dumps(asdict(way)))


def measure(options: argparse.Namespace, ranks: Ranks, name: str, device: torch.device) -> Way:
    compute = choose_compute(device, options.compile, split=ranks.splits, blocks=options.blocks)
    trainee = make_trainee(options, ranks, compute, device)
    losses: list[Tensor] = []
    first_step_s = _seconds(lambda: losses.append(trainee.step()), device, ranks)
    if ranks.first:
        print(f"{name}: the first step took {first_step_s:.0f} s", flush=True)
    for _ in range(2):
        losses.append(trainee.step())
    views = options.objects * VIEWS * options.accumulation * options.world
    seconds = [
        _seconds(lambda: [trainee.step() for _ in range(options.steps)], device, ranks) / options.steps
        for _ in range(options.rounds)
    ]
    agree = ranks.world == 1 or _agree(trainee.unet, ranks)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    quiet = None
    if ranks.world > 1 and ranks.parallel == "ddp":
        trainee.step(quiet=True)
        quiet = _seconds(lambda: [trainee.step(quiet=True) for _ in range(options.steps)], device, ranks)
    middle = statistics.median(seconds)
    return Way(
        name,
        ranks.world,
        views / middle,
        [views / second for second in seconds],
        first_step_s,
        middle,
        None if quiet is None else quiet / options.steps,
        peak,
        [float(loss) for loss in losses],
        agree,
    )


@dataclass(frozen=True)
class Trainee:
    """A network in training on this rank."""

    ranks: Ranks
    unet: nn.Module
    called: nn.Module
    optimizer: torch.optim.AdamW
    alphas: Tensor
    batches: list[tuple[Encoded, DiffusionNoise]]  # this rank's share of a step

    def step(self, *, quiet: bool = False) -> Tensor:
        """One step as `train.loop.loop` takes it; the loss is the mean over ranks. `quiet`: gradients do not meet."""
        self.optimizer.zero_grad(set_to_none=True)
        device = self.alphas.device
        total = torch.zeros((), device=device)
        for micro, (encoded, draw) in enumerate(self.batches):
            last = micro == len(self.batches) - 1 and not quiet
            with accumulating(self.called, self.ranks, last=last):
                predicted = predict(self.called, encoded, draw, self.alphas)
                loss = training_loss(predicted, draw, self.alphas) / len(self.batches)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.ranks.mean(total)
        update(self.optimizer, total, clip_norm(self.unet.parameters(), 1.0))
        return total


def make_trainee(options: argparse.Namespace, ranks: Ranks, compute: Compute, device: torch.device) -> Trainee:
    torch.manual_seed(1)
    unet = starting_unet(options)
    nn.Module.to(unet, device)
    prepare(unet, compute)
    called = wrap_ddp_or_fsdp(unet, ranks)
    torch._dynamo.config.optimize_ddp = options.optimize_ddp == "on"  # read when the graph is made, at the first step
    optimizer = make_optimiser(unet.parameters(), compute, lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2)
    batches = []
    for micro in range(options.accumulation):
        for rank in range(options.world) if ranks.world == 1 else [ranks.rank]:
            torch.manual_seed(1000 + micro * options.world + rank)
            batches.append(random_batch(options, device))
    return Trainee(ranks, unet, called, optimizer, noise_schedule().to(device), batches)


def _seconds(work: Callable[[], Any], device: torch.device, ranks: Ranks) -> float:
    """From when all ranks are ready to when this one's device has finished."""
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
    """Whether all ranks have the same bits; with FSDP2 each has a part of its own, and there is nothing to compare."""
    if ranks.parallel == "fsdp":
        return True
    different = False
    for parameter in unet.parameters():
        first = parameter.detach().clone()
        dist.broadcast(first, 0)
        different |= not torch.equal(first, parameter)
    return not ranks.any(different)


if __name__ == "__main__":
    sys.exit(main())
