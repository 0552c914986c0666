"""Derive the kind (such as cat or chair), the uid and the random generator of a procedural object.

All three depend only on the object's index and the seed of the shard set.
"""

import hashlib
import re

import numpy as np

from dataset.errors import UserError

KINDS = (
    "cat",
    "dog",
    "rabbit",
    "duck",
    "penguin",
    "fish",
    "chair",
    "table",
    "lamp",
    "bed",
    "car",
    "aeroplane",
    "rocket",
    "sailboat",
    "mug",
    "teapot",
    "house",
    "castle",
    "robot",
    "snowman",
    "tree",
    "mushroom",
    "cactus",
    "flower",
    "horse",
    "cow",
    "pig",
    "elephant",
    "bird",
    "owl",
    "turtle",
    "frog",
    "dinosaur",
    "teddybear",
    "butterfly",
    "apple",
    "pear",
    "banana",
    "pineapple",
    "pumpkin",
    "burger",
    "pizza",
    "cake",
    "donut",
    "icecream",
    "plant",
    "bus",
    "truck",
    "tractor",
    "train",
    "bicycle",
    "motorcycle",
    "ship",
    "helicopter",
    "biplane",
    "tank",
    "sofa",
    "shoe",
    "hat",
    "backpack",
    "umbrella",
    "bottle",
    "vase",
    "clock",
    "lantern",
    "book",
    "guitar",
    "drum",
    "piano",
    "camera",
    "telephone",
    "hammer",
    "scissors",
    "bucket",
    "basket",
    "crown",
)
MAX_INDEX = 999_999
_UID = re.compile(r"procedural-([a-z]+)-(\d{6})")


def generator(*keys: object) -> np.random.Generator:
    """Return a random generator seeded by the text of `keys`. It gives the same numbers on every machine."""
    text = "\0".join(str(key) for key in keys)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "little"))


def kind_of(index: int, seed: int) -> str:
    """Return the kind of the procedural object `index`, such as cat.

    Among the first len(KINDS) objects, and among each further len(KINDS) objects, every kind occurs once.

    Raises UserError when the index is out of range.
    """
    if not 0 <= index <= MAX_INDEX:
        raise UserError(f"procedural object {index} does not exist; choose an index from 0 to {MAX_INDEX}")
    block, place = divmod(index, len(KINDS))
    order = generator("kinds", seed, block).permutation(len(KINDS))
    return KINDS[int(order[place])]


def uid_of(index: int, seed: int) -> str:
    """Return the uid procedural-KIND-INDEX of the procedural object `index`.

    KIND depends on `index` and `seed`. The seed itself is not part of the uid, because all objects of a shard set have
    the same seed.
    """
    return f"procedural-{kind_of(index, seed)}-{index:06d}"


def parse_uid(uid: str) -> tuple[str, int]:
    """Parse a uid returned by `uid_of` into (kind, index). Raises UserError for other uids."""
    match = _UID.fullmatch(uid)
    if match is None or match[1] not in KINDS:
        raise UserError(
            f"{uid!r} is not the uid of a procedural object; expected procedural-KIND-INDEX, where INDEX has six "
            f"digits and KIND is one of {', '.join(KINDS)}"
        )
    return match[1], int(match[2])


def object_rng(index: int, seed: int) -> np.random.Generator:
    """Return the random generator for the shape, the colors and the pattern of the procedural object `index`."""
    return generator("object", seed, uid_of(index, seed))
