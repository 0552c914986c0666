"""A synthetic Objaverse cache of any size, in the layout of the `objaverse` package: lists and annotations only."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

CODES = ("by",) * 90 + ("by-nc",) * 3 + ("by-nc-sa",) * 4 + ("by-sa",) * 2 + ("cc0",)  # about Objaverse's shares
LVIS_EVERY = 17
_FILLER = {"description": "lorem ipsum dolor sit amet " * 20, "tags": [{"name": "chair", "slug": "chair"}] * 6}
_NOTE = (
    '{"uri": "https://example.org/v3/models/UID", "uid": "UID", "name": "Thing NUMBER", "viewCount": NUMBER, '
    '"viewerUrl": "https://example.org/3d-models/UID", "license": "CODE", '
    '"user": {"username": "user-SMALL", "displayName": "User SMALL", "account": "basic"}, '
    '"archives": {"glb": {"size": NUMBER, "faceCount": NUMBER}}, ' + json.dumps(_FILLER)[1:]
)


def uid_of(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def folder_of(number: int, folders: int) -> str:
    folder = number % folders
    return f"{folder // 1000:03d}-{folder % 1000:03d}"


def make_cache(home: Path, objects: int, folders: int = 160) -> Path:
    """Write `home`/.objaverse/hf-objaverse-v1 and return it. Annotations are about 1 KB each."""
    root = home / ".objaverse" / "hf-objaverse-v1"
    (root / "metadata").mkdir(parents=True)
    lines = (f'"{uid_of(n)}": "glbs/{folder_of(n, folders)}/{uid_of(n)}.glb"' for n in range(objects))
    _write(root / "object-paths.json.gz", lines)
    for folder in range(min(folders, objects)):
        numbers = range(folder, objects, folders)
        _write(root / "metadata" / f"{folder_of(folder, folders)}.json.gz", map(_note, numbers))
    lvis = {f"category {n}": [uid_of(m) for m in range(n * LVIS_EVERY, objects, 3 * LVIS_EVERY)] for n in range(3)}
    (root / "lvis-annotations.json.gz").write_bytes(gzip.compress(json.dumps(lvis).encode()))
    return root


def _note(number: int) -> str:
    uid, code, small = uid_of(number), CODES[number % len(CODES)], str(number % 1000)
    text = _NOTE.replace("UID", uid).replace("NUMBER", str(number)).replace("CODE", code).replace("SMALL", small)
    return f'"{uid}": {text}'


def _write(path: Path, pairs: Iterator[str]) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("{")
        for number, pair in enumerate(pairs):
            file.write(f"{', ' if number else ''}{pair}")
        file.write("}")
