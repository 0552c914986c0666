"""Objaverse 1.0 through the `objaverse` package: its lists, its annotations, its cache (~/.objaverse/hf-objaverse-v1).

`objaverse.load_objects` reads the whole path table for each call and dies on one failed download, so one object is
fetched by the package's own single-object function (0.1.7, pinned) into the package's own cache.
"""

import json
import urllib.error
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Any, Final, TypeVar

import objaverse

from dataset.errors import UserError
from render.sources import UNKNOWN, Asset

# Sketchfab's licence codes, as in the annotations -> SPDX identifiers
LICENSES: Final = {
    "by": "CC-BY-4.0",
    "by-nc": "CC-BY-NC-4.0",
    "by-nc-nd": "CC-BY-NC-ND-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",
    "by-nd": "CC-BY-ND-4.0",
    "by-sa": "CC-BY-SA-4.0",
    "cc0": "CC0-1.0",
}
T = TypeVar("T")


def objaverse_assets(selection: str, licenses: Sequence[str], limit: int | None) -> list[Asset]:
    """The first `limit` objects of `lvis`, `all` or a file of uids (one a line) whose licence code is in `licenses`."""
    if unknown := sorted(set(licenses) - set(LICENSES)):
        raise UserError(f"--licenses {unknown[0]!r} is not one of {', '.join(LICENSES)}")
    paths: dict[str, str] = _fetched("object paths", objaverse._load_object_paths)
    uids = _selected(selection, paths)
    if not licenses:
        uids = uids[:limit]
    annotations: dict[str, Any] = _fetched("annotations", lambda: objaverse.load_annotations(uids))
    if licenses:
        uids = [uid for uid in uids if annotations.get(uid, {}).get("license") in licenses][:limit]
    if not uids:
        raise UserError(f"objaverse:{selection} holds no object with a licence of {', '.join(licenses) or 'any kind'}")
    return [_asset(uid, paths[uid], annotations.get(uid, {})) for uid in uids]


def fetch(objaverse_path: str, uid: str) -> Path:
    """The local file of an object, downloaded into the package's cache when it is not there. Raises OSError."""
    local = Path(objaverse._VERSIONED_PATH) / objaverse_path
    if not local.exists():
        with redirect_stdout(stderr):
            objaverse._download_object(uid, objaverse_path, 1, 0)
    return local


def _selected(selection: str, paths: dict[str, str]) -> list[str]:
    if selection == "all":
        return sorted(paths)
    if selection == "lvis":
        categories: dict[str, list[str]] = _fetched("LVIS annotations", objaverse.load_lvis_annotations)
        return sorted({uid for uids in categories.values() for uid in uids})
    file = Path(selection)
    if not file.is_file():
        raise UserError(f"objaverse:{selection}: neither lvis, all nor a file of uids, one a line")
    uids = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if unknown := [uid for uid in uids if uid not in paths]:
        raise UserError(f"{selection}: {len(unknown)} uids are not in Objaverse, the first is {unknown[0]!r}")
    return uids


def _asset(uid: str, path: str, annotation: dict[str, Any]) -> Asset:
    user = annotation.get("user") or {}
    code = annotation.get("license") or UNKNOWN
    author = user.get("displayName") or user.get("username") or UNKNOWN
    return Asset(uid, "objaverse", LICENSES.get(code, code), author, objaverse_path=path)


def _fetched(what: str, load: Callable[[], T]) -> T:
    """What `load` returns; a failed download or a damaged cache file becomes a UserError."""
    try:
        return load()
    except (urllib.error.URLError, OSError, EOFError, json.JSONDecodeError) as error:
        raise UserError(
            f"cannot read Objaverse's {what} ({error}); check the network, or delete the damaged file in "
            f"{objaverse._VERSIONED_PATH}"
        ) from error
