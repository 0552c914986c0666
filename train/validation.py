"""Objects that are not trained on, and the loss on them by timestep.

Whether an object is held out depends on its uid alone. Timesteps, noise and views of the validation depend on the
run's seed alone: what changes from one validation to the next is the model.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from dataset.errors import UserError
from dataset.selection import Split, split_of
from train.ablation import ReferenceUse
from train.batch import Draw
from train.compute import to_device
from train.feed import Feed, TrainingSet
from train.latent_batch import Batch
from train.model import NUM_TIMESTEPS, MultiViewModel
from train.objective import encode_views, object_losses, predict

SHARE: Final = 0.05  # of the objects held out
MIN_OBJECTS: Final = 20  # a smaller set is trained on as a whole, unless validation is asked for
MAX_OBJECTS: Final = 64  # of the held-out objects that a validation looks at
BUCKET: Final = 250  # timesteps
_STREAM: Final = 1001  # random numbers of its own beside `train.batch`'s streams

Mode = Literal["auto", "on", "off"]


def divide(shards: TrainingSet, mode: Mode) -> tuple[TrainingSet, TrainingSet | None]:
    """(what is trained on, what is held out). None: validation is off, and everything is trained on.

    auto: on, unless the set is so small that it cannot spare an object; what is decided is printed. Raises UserError
    when it is asked for and one part would be empty.
    """
    if mode == "off":
        return shards, None
    if mode == "auto" and len(shards) < MIN_OBJECTS:
        print(f"note: no validation: {len(shards)} objects are fewer than {MIN_OBJECTS} (--validation on insists)")
        return shards, None
    training, held_out = (_part(shards, split) for split in ("train", "validation"))
    if not len(held_out) and mode == "auto":
        print(f"note: no validation: no uid of these {len(shards)} objects falls into the {SHARE:.0%} held out")
        return shards, None
    if not len(held_out) or not len(training):
        raise UserError(
            f"{shards.url}: {len(training)} objects to train on and {len(held_out)} held out, by their uids; "
            "both are needed: render more objects, or give --validation off"
        )
    print(f"validation: {len(held_out)} of {len(shards)} objects are held out of training, by a hash of their uids")
    return training, held_out


def _part(shards: TrainingSet, split: Split) -> TrainingSet:
    """The objects of one part as a smaller set."""
    kept = []
    for shard, samples in enumerate(shards.samples_per_shard):
        stored = np.arange(samples, dtype=np.int32) if shards.kept is None else shards.kept[shard]
        inside = [split_of(shards.uid(shard, i), SHARE, 0.0) == split for i in range(samples)]
        kept.append(stored[np.array(inside, bool)])
    return shards.narrowed(tuple(kept))


def bucket_names() -> list[str]:
    """`t000-249` and so on, one a bucket."""
    return [f"t{start:03d}-{start + BUCKET - 1:03d}" for start in range(0, NUM_TIMESTEPS, BUCKET)]


def fixed_draw(seed: int, number: int, latents: Tensor) -> Draw:
    """For held-out object `number`, its latents [k, f, c, h, w] once a bucket: a timestep of each bucket, and noise.

    Drawn on the CPU; nothing is dropped.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM, number)))
    starts = np.arange(0, NUM_TIMESTEPS, BUCKET)
    timesteps = torch.from_numpy(starts + rng.integers(BUCKET, size=len(starts)))
    cpu = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(latents.shape, generator=cpu)
    device = latents.device
    dropped = torch.zeros(len(starts), dtype=torch.bool, device=device)
    return Draw(to_device(timesteps, device), to_device(noise, device), dropped)


def validation_views(feed: Feed, number: int) -> Batch:
    """The fixed views of one held-out object: those of the multi-view branch, a random reference."""
    return feed.fixed(number, 1, micro=number)


@torch.no_grad()
def validate(model: MultiViewModel, feed: Feed, use: ReferenceUse) -> Mapping[str, float]:
    """Mean loss (Eq. 5 or 6, unweighted) of the first MAX_OBJECTS held-out objects, by bucket, and their mean `loss`.

    `feed` is that of the held-out objects. The same model gives the same numbers, whenever and on whatever batch size.
    """
    losses = []
    for number in range(min(MAX_OBJECTS, len(feed.shards))):
        once = encode_views(model, validation_views(feed, number), use)
        buckets = NUM_TIMESTEPS // BUCKET
        encoded = replace(
            once,
            targets=once.targets.expand(buckets, *once.targets.shape[1:]),
            reference=None if once.reference is None else once.reference.expand(buckets, *once.reference.shape[1:]),
            cameras=once.cameras.expand(buckets, *once.cameras.shape[1:]),
            tokens=once.tokens.expand(buckets, *once.tokens.shape[1:]),
        )
        draw = fixed_draw(feed.seed, number, encoded.targets)
        losses.append(object_losses(predict(model.unet, encoded, draw, model.alphas_cumprod), draw.noise))
    means = torch.stack(losses).double().mean(0).tolist()
    return {"loss": sum(means) / len(means), **dict(zip(bucket_names(), means, strict=True))}
