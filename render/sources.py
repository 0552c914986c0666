"""What to render: `folder:DIR`, `objaverse:lvis|all|UIDS.txt` or `procedural:N` -> a list of assets in manifest order.

Listing opens no model file and imports no Blender; an asset that cannot be read later costs that asset alone.
"""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.schema import check_uid
from render.settings import MODEL_SUFFIXES

MANIFEST_NAME: Final = "manifest.csv"
UNKNOWN: Final = "unknown"
_UID_LENGTH: Final = 128
_HASH_LENGTH: Final = 8


@dataclass(frozen=True)
class Asset:
    """One object to render. Exactly one of the last three fields says where it comes from."""

    uid: str
    source: str
    license: str
    author: str
    path: str | None = None  # absolute path of a model file
    objaverse_path: str | None = None  # path inside of Objaverse's repository and cache
    procedural_index: int | None = None


def list_assets(source: str, seed: int, limit: int | None = None, licenses: Sequence[str] = ()) -> list[Asset]:
    """The first `limit` assets of a source. `licenses` (Objaverse's codes: by, cc0, ...) filters Objaverse only."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; it must be at least 1")
    kind, separator, rest = source.partition(":")
    if not separator or not rest or kind not in ("folder", "objaverse", "procedural"):
        raise UserError(f"unknown source {source!r}; use folder:DIR, objaverse:lvis|all|UIDS.txt or procedural:N")
    if licenses and kind != "objaverse":
        raise UserError(f"--licenses filters objaverse sources only, not {source!r}")
    if kind == "folder":
        return _unique(folder_assets(Path(rest)), source)[:limit]
    if kind == "procedural":
        return procedural_assets(rest, seed)[:limit]
    from render.objaverse_source import objaverse_assets

    return _unique(objaverse_assets(rest, licenses, limit), source)


def procedural_assets(count: str, seed: int) -> list[Asset]:
    """Objects 0 ... N-1 of this seed (render.procedural)."""
    from render.procedural.catalog import uid_of

    if not count.isdecimal() or int(count) < 1:
        raise UserError(f"procedural:{count} names no number of objects; write for example procedural:24")
    return [
        Asset(uid_of(index, seed), "procedural", "CC0-1.0", "isotropic3d procedural", procedural_index=index)
        for index in range(int(count))
    ]


def folder_assets(folder: Path) -> list[Asset]:
    """The model files under a folder, by `manifest.csv` (in it, or beside it) when there is one, else all, sorted."""
    if not folder.is_dir():
        raise UserError(f"folder:{folder} is not a folder; check the path")
    root = folder.resolve()
    assets = _manifest_assets(root) or _walk_assets(root)
    if not assets:
        raise UserError(f"folder:{folder} holds no model file ({' '.join(MODEL_SUFFIXES)})")
    return assets


def _walk_assets(root: Path) -> list[Asset]:
    relative = sorted(_model_files(root))
    uids = _uids(relative)
    return [Asset(uid, root.name, UNKNOWN, UNKNOWN, str(root / name)) for uid, name in zip(uids, relative, strict=True)]


def _model_files(root: Path) -> Iterator[str]:
    """Relative POSIX paths of the model files. A link out of the folder is refused, one inside of it is skipped."""
    for parent, folders, files in os.walk(root):
        for name in folders + [name for name in files if name.lower().endswith(MODEL_SUFFIXES)]:
            path = Path(parent) / name
            if path.is_symlink():
                _inside(root, path, f"{path} is a symbolic link that")
            elif name in files and not name.startswith("."):
                yield path.relative_to(root).as_posix()


def _inside(root: Path, path: Path, what: str) -> Path:
    """The resolved path, or a UserError when it lies outside of `root`."""
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise UserError(f"{what} leads out of the folder {root}; copy the file into it")
    return resolved


def _uids(relative: Sequence[str]) -> list[str]:
    """Uids from relative paths; those that would coincide (or are too long) carry a hash of the whole path."""
    plain = [_sanitised(name) for name in relative]
    counts = Counter(plain)
    return [
        uid if counts[uid] == 1 and len(uid) <= _UID_LENGTH else _hashed(uid, name)
        for uid, name in zip(plain, relative, strict=True)
    ]


def _sanitised(name: str) -> str:
    stem = name[: name.rindex(".")].replace("/", "-")
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def _hashed(uid: str, name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{uid[: _UID_LENGTH - _HASH_LENGTH - 1]}-{digest}"


def _manifest_assets(root: Path) -> list[Asset]:
    """Rows of the manifest in the folder; or of one beside the folder, those whose file lies in it; else nothing."""
    inner, outer = root / MANIFEST_NAME, root.parent / MANIFEST_NAME
    if inner.is_file():
        return [_row_asset(row, inner, root) for row in _rows(inner, required=True)]
    if outer.is_file():
        rows = [
            row for row in _rows(outer, required=False) if (root.parent / row["file"]).resolve().is_relative_to(root)
        ]
        return [_row_asset(row, outer, root) for row in rows]
    return []


def _rows(path: Path, required: bool) -> list[dict[str, str]]:
    """Rows with at least the columns uid and file. Without them: a UserError if `required`, else not our manifest."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"uid", "file"} - set(reader.fieldnames or ())
        if missing and required:
            raise UserError(
                f"{path} lacks the column {' and '.join(sorted(missing))}; it needs uid,file,license,author"
            )
        rows = [] if missing else list(reader)
    for number, row in enumerate(rows, start=2):
        if not row["uid"] or not row["file"]:
            raise UserError(f"{path}, line {number}: uid or file is empty")
    return rows


def _row_asset(row: dict[str, str], manifest: Path, root: Path) -> Asset:
    path = manifest.parent / row["file"]
    if Path(row["file"]).is_absolute():
        raise UserError(f"{manifest}: {row['file']} is an absolute path; files are relative to the manifest")
    if not row["file"].lower().endswith(MODEL_SUFFIXES):
        raise UserError(f"{manifest}: {row['file']} is not one of {' '.join(MODEL_SUFFIXES)}")
    return Asset(
        uid=check_uid(row["uid"]),
        source=row.get("source") or root.name,
        license=row.get("license") or UNKNOWN,
        author=row.get("author") or UNKNOWN,
        path=str(_inside(root, path, f"{manifest}: {row['file']}")),
    )


def _unique(assets: list[Asset], source: str) -> list[Asset]:
    repeated = [uid for uid, count in Counter(asset.uid for asset in assets).items() if count > 1]
    if repeated:
        raise UserError(f"{source} names the uid {repeated[0]!r} more than once; uids must be unique")
    return assets
