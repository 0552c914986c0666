"""Objects that are not trained on, and the loss on some of them by timestep.

Whether an object is held out depends on its uid alone: for validation during training, or as a test object, which no
part of a model ever sees (`train.evaluate` looks at those). Timesteps, noise and views of the validation depend on the
run's seed alone: what changes from one validation to the next is the model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split, split_of
from train.data.latents import Batch
from train.data.loader import Feed, TrainingSet
from train.data.sampling import Draw
from train.layers.compile import to_device
from train.loop.loss import encode_views, object_losses, predict
from train.model.multiview import NUM_TIMESTEPS, MultiViewModel
from train.model.reference import ReferenceUse

MIN_OBJECTS: Final = 20  # a smaller set is trained on as a whole, test objects too, unless validation is asked for
MAX_OBJECTS: Final = 64  # of the held-out objects that a validation looks at
BUCKET: Final = 250  # timesteps
_STREAM: Final = 1001  # random numbers of its own beside `train.data.sampling`'s streams

Mode = Literal["auto", "on", "off"]


def divide(shards: TrainingSet, mode: Mode, test_share: float = TEST_SHARE) -> tuple[TrainingSet, TrainingSet | None]:
    """(what is trained on, what is held out for validation; None: validation is off). Test objects are in neither.

    auto: on, unless the set is so small that it cannot spare an object. off: the validation part is trained on. What is
    decided is printed. Raises UserError when nothing is left to train on, and when validation is asked for and has no
    object.
    """
    if mode == "off" and not test_share:
        return shards, None
    if mode != "on" and len(shards) < MIN_OBJECTS:
        print(
            f"note: {len(shards)} objects are fewer than {MIN_OBJECTS}: all are trained on, none is held out for "
            "validation or testing (--validation on insists)"
        )
        return shards, None
    parts = splits(shards, test_share)
    trained: tuple[Split, ...] = ("train", "validation") if mode == "off" else ("train",)
    training = only(shards, parts, trained)
    held_out = None if mode == "off" else only(shards, parts, ["validation"])
    tested = len(shards) - len(training) - len(held_out or ())
    if not len(training) or (mode == "on" and not len(held_out or ())):
        raise UserError(
            f"{shards.url}: {len(training)} objects to train on and {len(held_out or ())} held out, by their uids; "
            "both are needed: render more objects, or give --validation off"
        )
    if tested:
        print(f"test: {tested} of {len(shards)} objects are left out of all training, by a hash of their uids")
    if held_out is not None and not len(held_out):
        print(
            f"note: no validation: no uid of these {len(shards)} objects falls into the {VALIDATION_SHARE:.0%} held out"
        )
        held_out = None
    if held_out is not None:
        print(f"validation: {len(held_out)} of {len(shards)} objects are held out of training, by a hash of their uids")
    return (training, held_out) if tested or held_out is not None else (shards, None)


def splits(shards: TrainingSet, test_share: float = TEST_SHARE) -> list[list[Split]]:
    """The part of each object, shard by shard."""
    return [
        [split_of(shards.uid(shard, i), VALIDATION_SHARE, test_share) for i in range(samples)]
        for shard, samples in enumerate(shards.samples_per_shard)
    ]


def only(shards: TrainingSet, parts: Sequence[Sequence[Split]], wanted: Collection[Split]) -> TrainingSet:
    """The objects of some parts, as `splits` has them, as a smaller set."""
    kept = []
    for shard, samples in enumerate(shards.samples_per_shard):
        stored = np.arange(samples, dtype=np.int32) if shards.kept is None else shards.kept[shard]
        kept.append(stored[np.array([part in wanted for part in parts[shard]], bool)])
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
            reference_camera=once.reference_camera.expand(buckets, *once.reference_camera.shape[1:]),
            tokens=once.tokens.expand(buckets, *once.tokens.shape[1:]),
        )
        draw = fixed_draw(feed.seed, number, encoded.targets)
        losses.append(object_losses(predict(model.unet, encoded, draw, model.alphas_cumprod), draw.noise))
    means = torch.stack(losses).double().mean(0).tolist()
    return {"loss": sum(means) / len(means), **dict(zip(bucket_names(), means, strict=True))}
