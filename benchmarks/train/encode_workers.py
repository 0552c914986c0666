"""Measure how encoding scales with GPUs: `python -m benchmarks.train.encode_workers --workers 1 2`.

Takes minutes on a machine with several GPUs.

VAE and ViT-H-14 have the paper's size and random weights, as in `benchmarks.train.encode_bench`. For each number of
workers the whole set is encoded into a new folder, by the Ray workers of `python -m train.encode`, one per GPU.

The speed is measured in the second half of the shards, when every worker has loaded and compiled its networks, and
without the last shards, during which some workers have nothing left to do. With more workers more shards are encoded,
so that this part takes equally long. The last line is JSON; `efficiency` divides the views per second by the number of
workers and by the speed of one of the first number of workers.

`--toy` encodes small images with small networks on CPUs, to check the script.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from benchmarks.train.encode_bench import PAPER, TOY, Phases, random_encoder, write_set
from dataset.errors import UserError, run_cli
from dataset.format.latents import LatentFormat
from dataset.format.schema import ALL_VIEWS
from dataset.reading.shard_set import ShardSet
from train.encode.encode_set import default_batch_size, default_num_workers, encode, plan_format
from train.encode.encoder import Encoder
from train.encode.ray_workers import EncodeJob, encode_on_workers
from train.model.multiview import MultiViewModel, save_model
from train.model.noise_schedule import noise_schedule
from train.model.unet import UNetShape, build_unet

UNUSED_UNET: Final = UNetShape(4, 8, (32, 64), (True, True), 1, head_width=16, token_width=24, norm_groups=8)


@dataclass(frozen=True)
class WorkersSpeed:
    """Measurements of one number of workers."""

    views_per_s: float  # of all workers, when all are warm
    whole_s: float  # from the start of Ray to the end of the set
    sha256: list[str]  # of the first shards of latents


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode a synthetic set with each number of workers, and print the measurements."""
    options = _options(arguments)
    size, device = (TOY, torch.device("cpu")) if options.toy else (PAPER, torch.device("cuda"))
    phases, measured = Phases(), {}
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        folder = Path(name)
        encoder = phases.timed("networks", lambda: random_encoder(size, device))
        phases.timed("model folder", lambda: save_networks(encoder, folder / "model"))
        objects = options.objects_per_shard * options.shards * max(options.workers)
        shards = phases.timed(
            "shard set", lambda: write_set(folder / "set", objects, options.objects_per_shard, size.image_size)
        )
        form = plan_format(encoder, shards, logvar=True, embedded="all")
        batch_size = default_batch_size(device, size.image_size, options.objects_per_shard)
        for workers in options.workers:
            job = EncodeJob(
                str(folder / "set"),
                str(folder / f"latents-{workers}"),
                folder / "model",
                form,
                batch_size,
                default_num_workers(max(options.workers)),
                len(shards) * len(ALL_VIEWS),
                "auto" if options.toy else "on",
            )
            measured[workers] = phases.timed(
                f"{workers} workers",
                lambda: measure(job, encoder, shards, workers, options.shards),  # noqa: B023
            )
            print(f"{workers} workers: {measured[workers].views_per_s:.1f} views/s", flush=True)
    base_workers, base = next(iter(measured.items()))
    line = {
        "views_per_s": {workers: round(result.views_per_s, 1) for workers, result in measured.items()},
        "efficiency": {
            workers: round(result.views_per_s / base.views_per_s * base_workers / workers, 4)
            for workers, result in measured.items()
        },
        "whole_s": {workers: round(result.whole_s, 1) for workers, result in measured.items()},
        "same_latents": all(result.sha256 == base.sha256 for result in measured.values()),
        "objects_per_shard": options.objects_per_shard,
        "shards_per_worker": options.shards,
        "batch": batch_size,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="numbers of workers to measure")
    parser.add_argument("--shards", type=int, default=8, help="number of shards per worker, from 4")
    parser.add_argument("--objects-per-shard", type=int, default=128, help="number of objects in a shard")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=None,
        help="folder for temporary files, 2 MB per object and 4 GB for the networks (default: the system's)",
    )
    parser.add_argument("--toy", action="store_true", help="encode small images on CPUs, to check the script")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if min(options.workers) < 1:
        parser.error(f"--workers is {min(options.workers)}; it must be at least 1")
    if options.shards < 4:
        parser.error(f"--shards is {options.shards}; it must be at least 4")
    if not options.toy and torch.cuda.device_count() < max(options.workers):
        raise UserError(
            f"--workers is {max(options.workers)}, but this machine has {torch.cuda.device_count()} GPUs; give a "
            "smaller number, or --toy"
        )
    return options


def save_networks(encoder: Encoder, folder: Path) -> None:
    """Write a model folder with the VAE and the image encoder; encoding does not use its UNet."""
    torch.manual_seed(0)
    unet = build_unet(UNUSED_UNET)
    save_model(MultiViewModel(unet, encoder.vae, encoder.image_encoder, encoder.spec, noise_schedule()), folder)


def measure(job: EncodeJob, encoder: Encoder, shards: ShardSet, workers: int, per_worker: int) -> WorkersSpeed:
    """Encode `per_worker` shards per worker into a new folder."""
    index = replace(shards.index, shards=shards.index.shards[: workers * per_worker])
    form: LatentFormat = replace(job.form, pictures=tuple(shard.sha256 for shard in index.shards))
    job, ended, started = replace(job, form=form), [], time.perf_counter()

    def timed(numbers: Sequence[int]) -> Iterator[int]:
        for number in encode_on_workers(job, numbers, workers, gpus=encoder.device.type == "cuda"):
            ended.append(time.perf_counter())
            yield number

    some = ShardSet(shards.url, index)
    encode(some, job.out, encoder, form, batch_size=job.batch_size, encode_shards=timed)
    whole_s = time.perf_counter() - started
    first, last = len(ended) // 2, len(ended) - workers
    views = (last - first) * index.objects_per_shard * len(ALL_VIEWS)
    files = sorted(Path(job.out).glob("*.tar"))[:per_worker]
    return WorkersSpeed(
        views / (ended[last] - ended[first]),
        whole_s,
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
    )


if __name__ == "__main__":
    run_cli(main)
