"""Small latent sets: the images of `make_shards`, encoded by the micro model."""

from pathlib import Path

from dataset.format.latents import Embedded
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import CPU
from train.encode.encode_set import encode, plan_format
from train.encode.encoder import Encoder
from train.model.multiview import MultiViewModel


def make_latent_set(
    folder: Path, pictures: Path | str, model: MultiViewModel, *, logvar: bool = True, embedded: Embedded = "all"
) -> Path:
    """Encode a shard set into `folder`, on the CPU; returns it."""
    encoder, shards = Encoder(model.vae, model.image_encoder, model.spec, CPU), ShardSet(pictures)
    encode(shards, str(folder), encoder, plan_format(encoder, shards, logvar=logvar, embedded=embedded))
    return folder
