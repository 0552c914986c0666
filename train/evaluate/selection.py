"""Choose the objects and models that an evaluation compares, and identify the models by hash."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split
from dataset.reading.latent_set import LatentSet, open_views
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import file_sha256
from train.data.splits import assign_splits, select_splits
from train.evaluate.baselines import spread_evenly
from train.model.multiview import SPEC_FILE

_PARTS: Final = ("unet", "vae", "image_tower", "image_encoder")


def open_pictures(url: str) -> ShardSet:
    """A shard set. Raises UserError where it holds latents: they have lost the truth's pictures."""
    found = open_views(url)
    if isinstance(found, LatentSet):
        raise UserError(f"{url}: a latent set; evaluation compares pictures, so give the set that was encoded")
    return found


def part_of(shards: ShardSet, split: Split) -> ShardSet:
    """The objects of a split, with the shares that training has when nothing else is asked for."""
    part = shards if split == "all" else select_splits(shards, assign_splits(shards), (split,))
    assert isinstance(part, ShardSet)
    return part


def choose(shards: ShardSet, split: Split, objects: int | None) -> list[tuple[int, int]]:
    """(shard, sample) of what is evaluated. Raises UserError when the set has no object of the split."""
    part = part_of(shards, split)
    if not len(part):
        share = TEST_SHARE if split == "test" else VALIDATION_SHARE
        raise UserError(
            f"{shards.url}: none of its {len(shards)} objects is in the {split} split ({share:.0%} of all, by a hash "
            "of their uids); give a larger set, or --split all for a set that was not trained on"
        )
    wanted = {part.uid(*place) for place in spread_evenly(part, objects or len(part))}
    places = spread_evenly(shards, len(shards))
    return [place for place in places if shards.uid(*place) in wanted]


def name_models(models: Sequence[Path]) -> list[str]:
    """Short names: the last parts of the paths, as many as tell them apart."""
    for depth in range(1, max(len(model.parts) for model in models) + 1):
        names = ["/".join(model.parts[-depth:]) for model in models]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"--model names {models[0]} and others, one of them twice; give each model once")


def folder_sha256(folder: Path, parts: Sequence[str] = _PARTS) -> str:
    """Of the weights and settings of a model folder's parts: the same for the same model elsewhere."""
    digest = hashlib.sha256((folder / SPEC_FILE).read_bytes())
    for part in parts:
        for path in sorted((folder / part).glob("*")):
            if path.suffix in (".json", ".safetensors", ".bin"):
                digest.update(f"{part}/{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
