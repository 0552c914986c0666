"""List the assets of a source: `folder:DIR`, `objaverse:lvis|all|UIDS.txt` or `procedural:N`.

Listing opens no model file and does not import Blender. If a model file cannot be read when it is rendered, only the
object of this file fails.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from dataset.errors import UserError
from dataset.format.manifest import UNKNOWN, Asset, escape_name
from dataset.format.schema import check_uid
from dataset.format.uids import safe_uids
from dataset.io.files import json_bytes
from dataset.reading.csv_table import columns_text, not_utf8, numbered_lines, repeated_columns
from render.settings import MODEL_SUFFIXES
from render.sources.licenses import spdx

logger = logging.getLogger(__name__)
MANIFEST_NAME: Final = "manifest.csv"
SourceKind = Literal["folder", "objaverse", "procedural"]
_MEGABYTE: Final = 10**6


@dataclass(frozen=True)
class SourceSelection:
    """Options that select objects of a source.

    Objects excluded by their license or file size stay in the manifest with the reason (`Asset.excluded`).
    """

    limit: int | None = None
    uids: Path | None = None  # a file with one uid per line; other objects are not in the manifest
    include_licenses: tuple[str, ...] = ()  # SPDX identifiers or Objaverse's codes; empty: all
    max_file_mb: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}; choose a value of at least 1")
        if self.max_file_mb is not None and self.max_file_mb <= 0:
            raise UserError(f"--max-file-mb is {self.max_file_mb}; choose a positive number of megabytes")
        for name in self.include_licenses:
            spdx(name)

    @property
    def max_bytes(self) -> int | None:
        """The limit `max_file_mb` in bytes; None: no limit."""
        return None if self.max_file_mb is None else int(self.max_file_mb * _MEGABYTE)


@dataclass(frozen=True)
class ObjectSource:
    """A parsed source specification `KIND:REST`, such as `folder:DIR` or `procedural:24`."""

    spec: str
    kind: SourceKind
    rest: str

    @property
    def root(self) -> Path | None:
        """The folder of a folder source; None for other sources. `Asset.file` is relative to this folder."""
        return Path(self.rest).resolve() if self.kind == "folder" else None


def parse_source(spec: str) -> ObjectSource:
    """Parse a source specification `KIND:REST`, where KIND is folder, objaverse or procedural.

    Raises UserError when KIND is unknown or REST is empty.
    """
    kind, separator, rest = spec.partition(":")
    if separator and rest:
        match kind:
            case "folder" | "objaverse" | "procedural":
                return ObjectSource(spec, kind, rest)
    raise UserError(f"unknown source {spec!r}; use folder:DIR, objaverse:lvis|all|UIDS.txt or procedural:N")


def assets(source: ObjectSource, seed: int, selection: SourceSelection) -> Iterator[Asset]:
    """Yield the selected objects of a source in manifest order. `seed` determines the procedural objects.

    Raises UserError, during the iteration, when the source is unusable.
    """
    if selection.uids and source.kind == "objaverse":
        raise UserError(
            "--uids is only for folder: and procedural: sources; to select objects of Objaverse, write --source "
            "objaverse:UIDS.txt"
        )
    listed = _kept(_listed(source, seed, selection), selection.uids)
    for asset in islice(listed, selection.limit):
        yield replace(asset, excluded=_excluded(asset, selection)) if not asset.excluded else asset


def fingerprint(source: ObjectSource, seed: int, selection: SourceSelection) -> str:
    """Return a hash of the list of selected objects. If two hashes are equal, `assets` yields the same objects.

    For a folder, the hash covers the names and sizes of the files. Objaverse and procedural sources are not listed: the
    hash covers the source specification instead. `seed` determines the procedural objects.
    """
    digest = hashlib.sha256(json_bytes([source.kind, seed, sorted(map(spdx, selection.include_licenses))]))
    digest.update(json_bytes([selection.limit, selection.max_file_mb]))
    if selection.uids:
        digest.update(_read_text(selection.uids).encode())
    match source.kind:
        case "folder":
            for asset in folder_assets(Path(source.rest)):
                digest.update(json_bytes(vars(asset)))
        case "objaverse":
            from render.sources.objaverse import fingerprint as of_selection

            digest.update(of_selection(source.rest).encode())
        case "procedural":
            digest.update(source.rest.encode())
    return digest.hexdigest()


def _listed(source: ObjectSource, seed: int, selection: SourceSelection) -> Iterator[Asset]:
    match source.kind:
        case "folder":
            yield from folder_assets(Path(source.rest))
        case "procedural":
            yield from procedural_assets(source.rest, seed)
        case "objaverse":
            from render.sources.objaverse import objaverse_assets

            yield from objaverse_assets(source.rest)


def _kept(listed: Iterator[Asset], uids: Path | None) -> Iterator[Asset]:
    if uids is None:
        yield from listed
        return
    missing = {line.strip() for line in _read_text(uids).splitlines() if line.strip()}
    for asset in listed:
        if asset.uid in missing:
            missing.remove(asset.uid)
            yield asset
    if missing:
        raise UserError(
            f"{uids}: {len(missing)} uids are not in the source, for example {min(missing)!r}; remove these uids"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--uids {path} cannot be read ({error}); give a text file with one uid per line") from error


def _excluded(asset: Asset, selection: SourceSelection) -> str:
    """Return the flag that says why the asset is excluded, or "" if it is not."""
    allowed = {spdx(name) for name in selection.include_licenses}
    if allowed and asset.license not in allowed:
        return "licence-excluded"
    if selection.max_bytes is not None and (asset.bytes or 0) > selection.max_bytes:
        return "too-large"
    return ""


def procedural_assets(count: str, seed: int) -> Iterator[Asset]:
    """Yield the procedural objects 0 to `count` - 1 of this seed.

    `count` is the text after `procedural:`. Raises UserError when it is not a positive integer.
    """
    from render.procedural.catalog import uid_of

    if not count.isdecimal() or int(count) < 1:
        raise UserError(
            f"procedural:{count} has no positive number of objects after the colon; write for example procedural:24"
        )
    for index in range(int(count)):
        yield Asset(uid_of(index, seed), "procedural", "CC0-1.0", "isotropic3d procedural", procedural_index=index)


def folder_assets(folder: Path) -> list[Asset]:
    """Return the model files under a folder as assets.

    If `manifest.csv` exists in `folder`, or else in the parent of `folder`, the model files listed in this table are
    returned in the order of the table. Otherwise all model files are returned, sorted by path.

    Raises UserError when `folder` is not a folder or contains no model file, or when `manifest.csv` is unusable.
    """
    if not folder.is_dir():
        raise UserError(f"folder:{folder} is not a folder; check the path")
    root = folder.resolve()
    assets = _manifest_assets(root) or _walk_assets(root)
    if not assets:
        raise UserError(
            f"folder:{folder} contains no model file; the name of a model file ends in {' '.join(MODEL_SUFFIXES)}"
        )
    return assets


def _walk_assets(root: Path) -> list[Asset]:
    relative = sorted(_model_files(root))
    stems = [name[: name.rindex(".")] for name in relative]
    return [
        Asset(uid, escape_name(root.name), file=escape_name(name), bytes=_size(root / name))
        for uid, name in zip(safe_uids(stems, relative), relative, strict=True)
    ]


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if it cannot be read, which the worker reports later."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _model_files(root: Path) -> Iterator[str]:
    """Yield the relative POSIX paths of the model files, and of symbolic links that lead to themselves.

    Other links inside the folder are skipped; links out of it raise UserError.
    """
    for parent, folders, files in os.walk(root, onerror=_warn_unreadable):
        for name in folders + [name for name in files if name.lower().endswith(MODEL_SUFFIXES)]:
            path = Path(parent) / name
            if path.is_symlink() and (name in folders or not _is_loop(path)):
                _inside(root, path, f"the symbolic link {path}")
            elif name in files and not name.startswith("."):
                yield path.relative_to(root).as_posix()


def _warn_unreadable(error: OSError) -> None:
    logger.warning("%s cannot be listed (%s); its files are left out", escape_name(str(error.filename)), error.strerror)


def _is_loop(path: Path) -> bool:
    """Return whether a symbolic link leads back to itself."""
    try:
        path.resolve()
    except (OSError, RuntimeError):
        return True
    return False


def _resolved(path: Path) -> Path:
    """Return the path after following all symbolic links, except those that lead to themselves.

    Raises ValueError for a path with a NUL.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return Path(os.path.normpath(path))


def _inside(root: Path, path: Path, link: str) -> Path:
    """Return the resolved `path`. Raises UserError, which calls the path `link`, when it is outside of `root`."""
    resolved = _resolved(path)
    if not resolved.is_relative_to(root):
        raise UserError(f"{link} leads out of the folder {root}; copy the file into this folder")
    return resolved


def _manifest_assets(root: Path) -> list[Asset]:
    """Return the assets that a manifest lists, or none if there is no manifest.

    The manifest is `manifest.csv` in the folder. If that is missing, it is the one beside the folder, from which only
    the files inside the folder are used.
    """
    inner, outer = root / MANIFEST_NAME, root.parent / MANIFEST_NAME
    if inner.is_file():
        return [_row_asset(row, inner, root) for row in _rows(inner, lambda row: True, required=True)]
    if outer.is_file():
        rows = _rows(outer, lambda row: _resolved(root.parent / row["file"]).is_relative_to(root), required=False)
        return [_row_asset(row, outer, root) for row in rows]
    return []


def _rows(path: Path, applies: Callable[[dict[str, str]], bool], required: bool) -> list[dict[str, str]]:
    """Return the manifest rows for which `applies` is true. If the file has no column uid or file, return none.

    Raises UserError when the file cannot be read or, if `required`, lacks a column.
    """
    # `read_csv_table` is not used: the file may be another program's, whose encoding and columns are an error only if
    # it is required or has rows that apply.
    try:
        data = path.read_bytes()
        text, fault = data.decode("utf-8-sig"), None  # Excel begins the file with a byte order mark
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:  # it may be another program's file
        text, fault = data.decode("latin-1"), error
    lines = numbered_lines(text, path, strict=False)
    first, header = next(lines, (1, []))
    if required:
        _check_ours(path, fault, first, header)
    elif not {"uid", "file"} <= set(header):
        return []
    rows = []
    for number, cells in lines:
        row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
        if not row["uid"] or not row["file"]:
            raise UserError(f"{path}, line {number}: the column uid or file is empty; fill in both columns")
        if "\0" in row["file"]:
            raise UserError(f"{path}, line {number}: the path contains a NUL character; write the path without it")
        if not applies(row):
            continue
        if any(cells[len(header) :]):
            logger.warning(
                "%s, line %d: has more cells than there are columns, which are ignored; put cells with a comma in "
                "quotation marks",
                path,
                number,
            )
        rows.append(row)
    if rows:
        _check_ours(path, fault, first, header)
    return rows


def _check_ours(path: Path, fault: UnicodeDecodeError | None, number: int, header: Sequence[str]) -> None:
    """Check the encoding and the header of a manifest that lists files of the folder.

    Args:
        path: The manifest.
        fault: The error of decoding it as UTF-8, if any.
        number: The line of the header.
        header: The names of the columns.

    Raises UserError if it is not UTF-8, lacks a column or has two columns of the same name.
    """
    if fault is not None:
        raise not_utf8(path, fault)
    if missing := [column for column in ("uid", "file") if column not in header]:
        raise UserError(
            f"{path}, line {number}: lacks the {columns_text(missing)} (this line must name the columns); write a "
            "table with the columns uid, file, license and author"
        )
    if repeated := repeated_columns(header):
        raise UserError(
            f"{path}, line {number}: names the {columns_text(repeated)} more than once; rename or remove the "
            "additional ones"
        )


def _row_asset(row: dict[str, str], manifest: Path, root: Path) -> Asset:
    path = manifest.parent / row["file"]
    if Path(row["file"]).is_absolute():
        raise UserError(
            f"{manifest}: {row['file']} is an absolute path; write a path relative to the folder of the manifest"
        )
    if not row["file"].lower().endswith(MODEL_SUFFIXES):
        raise UserError(
            f"{manifest}: the file name {row['file']} does not end in one of {' '.join(MODEL_SUFFIXES)}; "
            "list only such files"
        )
    inside = _inside(root, path, f"{manifest}: {row['file']}")
    return Asset(
        uid=check_uid(row["uid"]),
        source=row.get("source") or escape_name(root.name),
        license=row.get("license") or UNKNOWN,
        author=row.get("author") or UNKNOWN,
        title=row.get("title") or "",
        url=row.get("url") or "",
        bytes=_size(inside) if inside.is_file() else None,
        file=escape_name(inside.relative_to(root).as_posix()),
    )
