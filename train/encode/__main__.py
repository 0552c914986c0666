"""Encode a shard set into a latent set: `python -m train.encode SHARDS OUT --model MODEL`.

Training on a latent set avoids encoding the views at every step. Repeat the command to resume after the last finished
shard. The latents depend on images, model, device and batch size. `dataset.format.latents` describes the format of a
latent set.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.format.latents import Embedded, format_json
from dataset.format.schema import ALL_VIEWS
from dataset.io.old_flags import rename_old_flags
from dataset.io.options import HiddenDefault
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import model_folder
from train.device import pick_device
from train.encode.encode_set import default_batch_size, default_num_workers, encode, plan_format, set_bytes
from train.encode.encoder import CompileEncoder, load_encoder, speed_up

RENAMED: Final = {"--readers": "--num-workers"}  # old name -> new name; the old ones will be removed


@dataclass(frozen=True)
class EncodeArgs:
    """Encode every view of a shard set. Store the VAE's mean and log variance, and the image embedding, in float16.

    With the paper's model, a latent has 4 x 32 x 32 values and an embedding has 1024 values. A latent set of 800,000
    objects (25.6 million views) takes 0.51 TB: per view 16 KB for latents and 2 KB for the embedding. It takes
    0.30 TB with --no-logvar, 0.49 TB with --embedded random, and 0.28 TB with both options.
    """

    shards: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to encode: a folder or an fsspec URL such as s3://bucket/set."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Latent set to write: a folder or an fsspec URL."""
    model: Path
    """Model whose VAE and image encoder are used: a model folder, checkpoint file or Hub name. Give the model that
    training starts from (--init-from). For MVDream, which has no image encoder, the paper's is used."""
    logvar: bool = True
    """Store the log variance, which `python -m train` needs for --sample-posterior. Without it, the latents take half
    the space."""
    embedded: Embedded = "all"
    """Views whose embedding is stored. random: only the random views, which training uses as references. all: all
    views."""
    batch_size: HiddenDefault[int | None] = None
    """Number of views encoded at once, 1 to 1024. A smaller number needs less memory. This option may change when the
    command is repeated. Default: 32 on a CPU; on a GPU 32 to 256, by its free memory and the number of objects
    in a shard. A CPU gives the same bytes with the same number; a GPU can round differently."""
    compile: CompileEncoder = "auto"
    """Whether to compile VAE and image encoder on a GPU. auto: for 512 objects or more. Compiled code rounds
    differently; an interrupted set should be completed with the same choice."""
    num_workers: HiddenDefault[int | None] = None
    """Number of threads that read and decode images, in each process. Default: one per CPU core, at most 8."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ... Uses bfloat16 autocast on a GPU, float32 on a CPU."""
    workers: HiddenDefault[int | None] = None
    """Number of processes on this machine, each with its own GPU, which are started with Ray and encode different
    shards. Default: one per GPU, or one on a CPU. This option may change when the command is repeated."""
    dry_run: bool = False
    """Print the contents of latents.json and the size of the set, and exit."""


def parse(argv: Sequence[str]) -> EncodeArgs:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    return tyro.cli(EncodeArgs, prog="python -m train.encode", args=rename_old_flags(argv, RENAMED))


def run(args: EncodeArgs) -> None:
    """Encode a shard set. With --dry-run, only print the contents of latents.json and the size of the latent set."""
    shards, model, device = ShardSet(args.shards), model_folder(args.model), pick_device(args.device)
    workers = _workers(args.workers, device)
    encoder = load_encoder(model, device)
    form = plan_format(encoder, shards, logvar=args.logvar, embedded=args.embedded)
    batch_size = args.batch_size
    if batch_size is None:
        batch_size = default_batch_size(device, encoder.spec.image_size, shards.index.objects_per_shard)
    num_workers = default_num_workers(workers) if args.num_workers is None else args.num_workers
    if args.dry_run:
        print(json.dumps({**format_json(form), "views_bytes": set_bytes(form, len(shards))}, indent=2))
        return
    views = len(shards) * len(ALL_VIEWS)
    on_workers = None
    if min(workers, len(shards.index.shards)) > 1:
        from train.encode.ray_workers import EncodeJob, encode_on_workers

        source, target = (url if "://" in url else str(Path(url).resolve()) for url in (args.shards, args.out))
        job = EncodeJob(source, target, model.resolve(), form, batch_size, num_workers, views, args.compile)
        on_workers = partial(encode_on_workers, job, workers=workers, gpus=device.type == "cuda")
    else:
        encoder = speed_up(encoder, batch_size, views, args.compile, form.embedded)
    index = encode(
        shards,
        args.out,
        encoder,
        form,
        batch_size=batch_size,
        num_workers=num_workers,
        encode_shards=on_workers,
    )
    print(
        f"{args.out}: {index.objects} objects, {index.views} views, {index.bytes / 1e9:.2f} GB in "
        f"{len(index.shards)} shards"
    )


def _workers(workers: int | None, device: torch.device) -> int:
    """Return the number of processes. Raises UserError when `workers` is out of range for the device."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; it must be at least 1")
    if workers is not None and workers > 1 and device.index is not None:
        raise UserError(
            f"--device {device} selects a single GPU, but --workers {workers} needs several; give --device cuda, or "
            "leave out --workers"
        )
    return workers or (torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1)


if __name__ == "__main__":
    run_cli(lambda: run(parse(sys.argv[1:])))
