"""Make uids from the names of files and folders."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

UID_LENGTH: Final = 128
_HASH_LENGTH: Final = 8


def safe_uids(stems: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return one uid per object, made from its name. Repeated or too long uids get a hash of the name as a suffix.

    Args:
        stems: The names without the endings of files. Characters that a uid cannot contain become "_", and "/"
            becomes "-".
        names: The whole names, which differ from each other.
    """
    plain = [re.sub(r"[^A-Za-z0-9_-]", "_", stem.replace("/", "-")) for stem in stems]
    counts = Counter(plain)
    return [
        uid if counts[uid] == 1 and len(uid) <= UID_LENGTH else _hashed(uid, name)
        for uid, name in zip(plain, names, strict=True)
    ]


def _hashed(uid: str, name: str) -> str:
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_HASH_LENGTH]
    return f"{uid[: UID_LENGTH - _HASH_LENGTH - 1]}-{digest}"
