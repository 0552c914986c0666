"""Check that one GPU, DDP and FSDP2 load each other's checkpoints: `python -m benchmarks.train.ranks_resume SHARDS`.

Stage 2 trains 8 steps in each of the three ways, and writes a checkpoint after step 4. Then each way resumes from each
of the three checkpoints and does the last 4 steps. The checkpoints of DDP and FSDP2 hold the same training, so resuming
from one or the other must lead to the same losses within LOSS_TOLERANCE. One process draws other noise than several
(`train.data.sampling`), so its losses are compared only among the runs that resume from its checkpoint. The last line
is JSON. Takes a minute on two GPUs with a small model.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch.multiprocessing.spawn import spawn

from benchmarks.options import add_device
from dataset.errors import run_cli
from train.config.presets import TINY
from train.distributed.process_group import ALONE, init_process_group
from train.loop import sample_sheet
from train.loop.checkpoint import FOLDER
from train.loop.loop import train
from train.loop.run_config import CONFIG_FILE, TrainingRun

Way = Literal["one", "ddp", "fsdp"]
WAYS: Final[tuple[Way, ...]] = ("one", "ddp", "fsdp")
STEPS: Final = 8
OBJECTS: Final = 8  # per step
CHECKPOINT: Final = 4
LOSS_TOLERANCE: Final = 2e-3  # absolute; in bf16, sums in another order differ, and training amplifies the difference


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        spawn(_process, (options, folder), nprocs=options.world)  # type: ignore[no-untyped-call]
        losses: dict[str, list[float]] = json.loads((Path(folder) / "losses.json").read_text())
    differences = compare(losses)
    line = {
        "world": options.world,
        "steps": STEPS,
        "checkpoint": CHECKPOINT,
        "losses": {name: values for name, values in losses.items() if "-" not in name},
        "largest_loss_differences": differences,
        "losses_agree": max(differences.values()) <= LOSS_TOLERANCE,
        "exact_resume": [way for way in WAYS if losses[f"{way}-{way}"] == losses[way][CHECKPOINT:]],
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(line))
    return 0


def compare(losses: dict[str, list[float]]) -> dict[str, float]:
    """Return the largest difference between the losses of runs that did the same training, by the names of the runs.

    `losses` contains the losses of the runs `way` and `source-way`: those of all steps, or those after the checkpoint.
    """
    pairs = [("ddp", "fsdp"), ("ddp-one", "fsdp-one"), ("one-ddp", "one-fsdp")]
    pairs += [("ddp", f"{source}-{way}") for source in WAYS[1:] for way in WAYS[1:]] + [("one", "one-one")]
    return {
        f"{first} and {second}": max(
            abs(a - b) for a, b in zip(losses[first][-len(losses[second]) :], losses[second], strict=True)
        )
        for first, second in pairs
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path, help="shard set or latent set with at least 8 objects")
    parser.add_argument("--model", type=Path, default=Path("weights/tiny"), help="model folder to start from")
    parser.add_argument(
        "--world", type=int, default=2, help=f"number of processes of DDP and FSDP2, from 2; it must divide {OBJECTS}"
    )
    add_device(parser)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.world < 2 or OBJECTS % options.world:
        parser.error(f"--world is {options.world}; give a number from 2 on that divides {OBJECTS}")
    return options


def _process(rank: int, options: argparse.Namespace, folder: str) -> None:
    device = torch.device("cuda", rank) if options.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    sample_sheet.SAMPLE_STEPS = 1  # type: ignore[misc]
    losses: dict[str, list[float]] = {}
    for number, (source, way) in enumerate([(None, way) for way in WAYS] + [(a, b) for a in WAYS for b in WAYS]):
        name = way if source is None else f"{source}-{way}"
        run = _run(options, Path(folder) / name, device)
        if source is not None and rank == 0:
            _copy_checkpoint(Path(folder) / source, run.out)
        meeting = f"file://{folder}/meeting-{number}"
        with init_process_group(
            rank, options.world, device, "fsdp" if way == "fsdp" else "ddp", init_method=meeting
        ) as ranks:
            ranks.wait()
            if way == "one":
                losses[name] = train(run, ALONE) if rank == 0 else []
            else:
                losses[name] = train(run, ranks)
            ranks.wait()
        if rank == 0:
            print(f"{name}: {' '.join(f'{loss:.5f}' for loss in losses[name])}", flush=True)
    if rank == 0:
        (Path(folder) / "losses.json").write_text(json.dumps(losses))


def _run(options: argparse.Namespace, out: Path, device: torch.device) -> TrainingRun:
    schedule = replace(TINY.stage2, steps=STEPS, objects=OBJECTS, warmup_steps=2)
    settings: dict[str, Any] = {"checkpoint_every": CHECKPOINT, "keep_checkpoints": STEPS, "log_every": CHECKPOINT}
    recipe = replace(TINY, stage2=schedule, validation="off", **settings)
    return TrainingRun(2, recipe, str(options.shards), out, options.model, seed=0, device=device, compile="none")


def _copy_checkpoint(source: Path, out: Path) -> None:
    """Copy what a run that was stopped after the checkpoint would have left in its folder."""
    name = f"{FOLDER}/step-{CHECKPOINT:09d}"
    shutil.copytree(source / name, out / name)
    shutil.copy(source / CONFIG_FILE, out / CONFIG_FILE)


if __name__ == "__main__":
    run_cli(main)
