"""Shards -> latents and image embeddings, as a latent set: `python -m train.encode SHARDS OUT --model MODEL`.

Every view passes the frozen parts once instead of at every step. The same command again resumes after the last finished
shard. The bytes are a function of the pictures, the model, the device and the batch size. What the set holds:
`dataset.format.latents`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dataset.errors import run_cli
from dataset.format.latents import Embedded, format_json
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import model_folder
from train.device import pick_device
from train.encode.encode_set import encode, plan_format, set_bytes
from train.encode.encoder import load_encoder


@dataclass(frozen=True)
class Encode:
    """Encode every view of a shard set once: VAE mean and log variance, image embedding, in float16.

    Size with the paper's model (latents 4 x 32 x 32, embedding 1024) at 800,000 objects, 25.6 M views: 0.51 TB, 16 KB
    of latents and 2 KB of embedding a view; with --no-logvar 0.30 TB, --embedded random 0.49 TB, with both 0.28 TB.
    """

    shards: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]
    """Shard set of pictures: a folder or an fsspec URL such as s3://bucket/set."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Latent set to write: a folder or an fsspec URL."""
    model: Path
    """Model whose VAE and image encoder are used: a model folder, checkpoint file or Hub name. Use the model that
    training starts from (--init-from). MVDream has no image encoder; the paper's is used with it."""
    logvar: bool = True
    """Keep the log variance, for training with --sample-posterior. Without it the latents take half the space."""
    embedded: Embedded = "all"
    """Which views carry an embedding: random are those that training takes as a reference."""
    batch_size: int = 32
    """Views encoded at once, 1 to 32: fewer need less memory. May change when resuming."""
    readers: int = 4
    """Threads that read and decode pictures while the device works."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ... bfloat16 autocast on a GPU, float32 on a CPU."""
    dry_run: bool = False
    """Print what latents.json would say, the size of the set, and stop."""


def run(args: Encode) -> None:
    """Encode, or print what would be done."""
    shards = ShardSet(args.shards)
    encoder = load_encoder(model_folder(args.model), pick_device(args.device))
    form = plan_format(encoder, shards, logvar=args.logvar, embedded=args.embedded)
    if args.dry_run:
        print(json.dumps({**format_json(form), "views_bytes": set_bytes(form, len(shards))}, indent=2))
        return
    encode(shards, args.out, encoder, form, batch_size=args.batch_size, readers=args.readers)


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Encode, prog="python -m train.encode")))
