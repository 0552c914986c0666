"""Choose the objects of an evaluation, name the models, and compute hashes that identify the models."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split
from dataset.reading.latent_set import LatentSet, open_views
from dataset.reading.rendered_object import Place
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import file_sha256
from train.data.splits import assign_splits, select_splits
from train.model.multiview import SPEC_FILE

PARTS: Final = ("unet", "vae", "image_tower", "image_encoder")


def open_images(url: str) -> ShardSet:
    """Open the shard set at a folder or URL. Raises UserError when `url` is a latent set, which contains no images."""
    opened = open_views(url)
    if isinstance(opened, LatentSet):
        raise UserError(
            f"{url}: a latent set, but the evaluation compares images; give the image set from which the latent set "
            "was encoded"
        )
    return opened


def part_of(shards: ShardSet, split: Split) -> ShardSet:
    """Return the objects of a split as a set. The split "all" is the whole set.

    Objects are assigned to splits in the same way as by training with the default --test-share.
    """
    part = shards if split == "all" else select_splits(shards, assign_splits(shards), (split,))
    assert isinstance(part, ShardSet)
    return part


def spread_evenly(shards: ShardSet, limit: int) -> list[Place]:
    """Return the places of `limit` objects, spread evenly over the set. If the set is smaller, return all places.

    The place of an object is a pair: the index of the shard in the set, and the index of the object in the shard.
    """
    places = [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    count = min(limit, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def select_objects(shards: ShardSet, split: Split, limit: int | None) -> list[Place]:
    """Return the places of the objects to evaluate, spread evenly over the split.

    The place of an object is a pair: the index of the shard in `shards`, and the index of the object in the shard.

    Args:
        shards: The set to choose from.
        split: The split whose objects to evaluate.
        limit: Maximum number of objects. None: all objects of the split.

    Raises:
        UserError: The set has no object of the split.
    """
    part = part_of(shards, split)
    if not len(part):
        share = TEST_SHARE if split == "test" else VALIDATION_SHARE
        raise UserError(
            f"{shards.url}: none of its {len(shards)} objects is in the {split} split ({share:.0%} of all, by a hash "
            "of their uids); give a larger set, or --split all for a set that no model was trained on"
        )
    selected = {part.uid(*place) for place in spread_evenly(part, limit or len(part))}
    places = spread_evenly(shards, len(shards))
    return [place for place in places if shards.uid(*place) in selected]


def name_models(models: Sequence[Path]) -> list[str]:
    """Return a short name for each model: the last one or more components of the model's path.

    All names have the same number of components, the smallest number for which all names differ. Raises UserError when
    a model is given twice.
    """
    for depth in range(1, max(len(model.parts) for model in models) + 1):
        names = ["/".join(model.parts[-depth:]) for model in models]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"--model names the same model twice ({', '.join(map(str, models))}); give each model once")


def folder_sha256(folder: Path, parts: Sequence[str] = PARTS) -> str:
    """Return a SHA-256 of `model.json` and of the weights and settings in some subfolders of a model folder.

    The hash does not depend on the location of the model folder.

    Args:
        folder: Model folder.
        parts: Names of the subfolders to include; those that do not exist are ignored."""
    digest = hashlib.sha256((folder / SPEC_FILE).read_bytes())
    for part in parts:
        for path in sorted((folder / part).glob("*")):
            if path.suffix in (".json", ".safetensors", ".bin"):
                digest.update(f"{part}/{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
