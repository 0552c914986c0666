"""List the objects of Objaverse 1.0, with the file layout and cache of the `objaverse` package.

Objects are streamed to save memory. The 798,759 uids take 26 MB as byte arrays; the dictionaries of the package, with
uids and annotations, take gigabytes. The path table is parsed while it is decompressed, and only one of the 160
metadata files is in memory at a time.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.format.manifest import UNKNOWN, Asset
from render.download.http import DownloadError, DownloadPolicy, RetryableError
from render.download.objaverse_cache import cache_folder, download_listing
from render.sources.licenses import CODES

PATHS: Final = "object-paths.json.gz"
LVIS: Final = "lvis-annotations.json.gz"
_UID_BYTES: Final = 32
_CHUNK: Final = 1 << 20
_PAIR: Final = re.compile(  # an entry of the path table with its separator
    rb'\s*[{,]\s*"([0-9a-f]{32})"\s*:\s*"glbs/(\d{3}-\d{3})/([0-9a-f]{32})\.glb"'
)
_LONGEST_PAIR: Final = 4096  # with a generous amount of white space
_UID: Final = re.compile(rb"[0-9a-f]{32}")
_FIELDS: Final = ("name", "license", "viewerUrl", "user", "displayName", "username")  # of an annotation and its user
_DAMAGED: Final = (OSError, EOFError, zlib.error, ValueError)  # of gzip, and of json (ValueError)
Uids = NDArray[np.bytes_]  # [n] of S32, sorted
T = TypeVar("T")


def objaverse_assets(
    selection: str, cache: Path | None = None, policy: DownloadPolicy | None = None
) -> Iterator[Asset]:
    """Iterate over the selected objects of Objaverse, sorted by the name of their folder in Objaverse and by uid.

    Objaverse's list files and annotation files that are not in the cache are downloaded.

    Args:
        selection: `lvis`, `all`, or the path of a text file with one uid per line.
        cache: The cache folder; None: that of the `objaverse` package.
        policy: Settings of the downloads; None: the defaults.

    Raises UserError, possibly during the iteration, when the selection or a list file is unusable.
    """
    cache, policy = cache or cache_folder(), replace(policy or DownloadPolicy(), max_bytes=None)
    chosen = _chosen(selection, cache, policy)
    folders = _by_folder(cache, policy)
    if chosen is not None:
        folders = _selected(selection, chosen, folders)
    return _assets(folders, cache, policy)


def fingerprint(selection: str) -> str:
    """Return a string that identifies the selected objects of Objaverse, without listing these objects.

    `selection` is `lvis`, `all`, or the path of a text file with one uid per line. The returned string contains the
    sha256 of such a text file instead of its path.
    """
    if selection not in ("all", "lvis"):
        selection = f"sha256:{_uid_file(selection, _sha256)}"
    return f"objaverse:{selection}"


def _assets(folders: dict[str, Uids], cache: Path, policy: DownloadPolicy) -> Iterator[Asset]:
    for folder in sorted(folders):
        annotations = _annotations(folder, cache, policy)
        for raw in folders[folder].tolist():
            uid = raw.decode()
            yield _asset(uid, folder, annotations.get(uid, {}))


def _asset(uid: str, folder: str, annotation: dict[str, Any]) -> Asset:
    user = annotation.get("user")
    user = user if isinstance(user, dict) else {}
    code = _text(annotation.get("license"))
    page = _text(annotation.get("viewerUrl"))
    return Asset(
        uid,
        "objaverse",
        license=CODES.get(code, code) or UNKNOWN,
        author=_text(user.get("displayName")) or _text(user.get("username")) or UNKNOWN,
        title=_text(annotation.get("name")),
        url=page if page.startswith("https://") else "",  # it becomes a link in reports
        objaverse_path=f"glbs/{folder}/{uid}.glb",
    )


def _text(value: Any) -> str:
    """Return a string on one line, with lone surrogates replaced; "" for other types."""
    return " ".join(value.encode(errors="replace").decode().split()) if isinstance(value, str) else ""


def _chosen(selection: str, cache: Path, policy: DownloadPolicy) -> Uids | None:
    """Return the uids of a selection; None means all."""
    if selection == "all":
        return None
    if selection == "lvis":
        return _sorted(_read(_listing(LVIS, cache, policy), _lvis_uids))
    return _uid_file(selection, _uids_of_lines)


def _uid_file(selection: str, read: Callable[[Path], T]) -> T:
    path = Path(selection)
    if not path.is_file():
        raise UserError(
            f"objaverse:{selection} is unknown; give objaverse:lvis, objaverse:all or objaverse:FILE, "
            "where FILE is an existing text file with one uid per line"
        )
    try:
        return read(path)
    except OSError as error:
        raise UserError(f"cannot read the uids of {path} ({error}); give a text file with one uid per line") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uids_of_lines(path: Path) -> Uids:
    """Return the uids of a text file with one per line, without duplicates."""
    uids = bytearray()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            uid = line.strip()
            if uid and not _UID.fullmatch(uid):
                shown = uid[:60].decode(errors="replace")
                raise UserError(
                    f"{path}, line {number}: {shown!r} is not an Objaverse uid (32 digits 0-9 a-f); correct this line"
                )
            uids += uid
    if not uids:
        raise UserError(f"{path} contains no uid; write one uid per line")
    return _sorted(uids)


def _lvis_uids(file: gzip.GzipFile) -> bytearray:
    categories = json.load(file)
    uids = bytearray().join(uid.encode() for named in _object(categories).values() for uid in named)
    if not uids or len(uids) % _UID_BYTES:
        raise ValueError("the LVIS annotations contain no uids, or uids that do not have 32 characters")
    return uids


def _sorted(uids: bytearray) -> Uids:
    """Split a concatenation of uids, and return them sorted and without duplicates."""
    array: Uids = np.frombuffer(uids, f"S{_UID_BYTES}")
    return np.unique(array)


def _selected(selection: str, chosen: Uids, folders: dict[str, Uids]) -> dict[str, Uids]:
    """Return the chosen uids of each folder. Raises UserError when a chosen uid is in none of them."""
    exists = np.zeros(len(chosen), bool)
    kept: dict[str, Uids] = {}
    for folder, uids in folders.items():
        place = np.minimum(np.searchsorted(chosen, uids), len(chosen) - 1)
        inside = chosen[place] == uids
        exists[place[inside]] = True
        if inside.any():
            kept[folder] = uids[inside]
    if not exists.all():
        first = chosen[~exists][0].decode()
        raise UserError(
            f"objaverse:{selection}: {np.sum(~exists)} of the selected uids are not in Objaverse, for example "
            f"{first!r}; remove these uids"
        )
    return kept


def _by_folder(cache: Path, policy: DownloadPolicy) -> dict[str, Uids]:
    """Return all uids of Objaverse by the name of their folder (000-000 ...)."""
    folders = _read(_listing(PATHS, cache, policy), _parse_paths)
    return {folder: _sorted(folders.pop(folder)) for folder in list(folders)}


def _parse_paths(file: gzip.GzipFile) -> dict[str, bytearray]:
    """Parse the table `{"UID": "glbs/FOLDER/UID.glb", ...}` in chunks into concatenated uids per folder."""
    folders: defaultdict[str, bytearray] = defaultdict(bytearray)
    text, place, more = b"", 0, True
    while True:
        if more and len(text) - place < _LONGEST_PAIR:
            chunk = file.read(_CHUNK)
            text, place, more = text[place:] + chunk, 0, bool(chunk)
        elif (pair := _PAIR.match(text, place)) and pair[1] == pair[3]:
            folders[pair[2].decode()] += pair[1]
            place = pair.end()
        elif folders and not more and text[place:].strip() == b"}":
            return folders
        else:
            raise ValueError(
                f'expected an entry such as "UID": "glbs/FOLDER/UID.glb", not {text[place : place + 60]!r}'
            )


def _annotations(folder: str, cache: Path, policy: DownloadPolicy) -> dict[str, Any]:
    """Return the used fields of each uid's annotation."""
    return _read(_listing(f"metadata/{folder}.json.gz", cache, policy), _parse_annotations)


def _parse_annotations(file: gzip.GzipFile) -> dict[str, Any]:
    annotations = _object(json.load(file, object_hook=_used_fields))
    return {uid: _object(annotation) for uid, annotation in annotations.items()}


def _used_fields(parsed: dict[str, Any]) -> dict[str, Any]:
    """Return the used fields of a parsed annotation, a tenth of its memory. Other objects are returned unchanged."""
    return {name: parsed[name] for name in _FIELDS if name in parsed} or parsed


def _object(parsed: Any) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        raise ValueError(f"expected a JSON object, not {str(parsed)[:60]!r}")
    return parsed


def _listing(name: str, cache: Path, policy: DownloadPolicy) -> Path:
    """Return the path of a list in the cache, after downloading it if necessary."""
    if (local := cache / name).is_file():
        return local
    try:
        return download_listing(name, cache, policy, _check_gzip)
    except (DownloadError, OSError) as error:
        raise UserError(
            f"Objaverse's list {name} is not in {cache} and cannot be downloaded ({error}); check the network, or save "
            f"{policy.base_url}/{name} as {local}"
        ) from error


def _check_gzip(path: Path) -> None:
    """Raise RetryableError unless the file can be decompressed to its end, where its checksum is."""
    try:
        with gzip.open(path) as file:
            while file.read(_CHUNK):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RetryableError("NotGzip", f"the downloaded file is not a complete gzip file ({error})") from error


def _read(path: Path, parse: Callable[[gzip.GzipFile], T]) -> T:
    try:
        with gzip.open(path) as file:
            return parse(file)
    except _DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}); delete the file to download it again") from error
