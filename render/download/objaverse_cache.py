"""Objaverse's files in the cache of the `objaverse` package (0.1.7): each whole and checked, or not there at all."""

import hashlib
import os
import re
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from dataset.format.manifest import Asset
from render.download.http import DownloadError, Passing, Policy, check_size, transfer, with_attempts

_OBJECT_PATH: Final = re.compile(r"glbs/\d{3}-\d{3}/[0-9a-f]{32}\.glb", re.ASCII)
_GLB_HEADER: Final = struct.Struct("<4sII")  # magic, version, length of the file


@dataclass(frozen=True)
class Fetched:
    """A file's bytes, mapped rather than read: they cost memory only where they are touched."""

    data: NDArray[np.uint8]
    sha256: str
    attempts: int  # 0: it was in the cache
    path: Path | None  # in the cache; None when it is not kept there

    @property
    def size(self) -> int:
        return int(self.data.size)


@dataclass(frozen=True)
class Download:
    """How a download went; `data` are the file's bytes, None when `error_class` says why they did not come."""

    data: NDArray[np.uint8] | None = None
    sha256: str = ""
    attempts: int = 0  # 0: it was in the cache
    error_class: str = ""  # DownloadError.kind
    message: str = ""
    seconds: float = 0.0


def cache_folder() -> Path:
    """Where the `objaverse` package keeps its files; whoever has used it downloads nothing again."""
    return Path.home() / ".objaverse" / "hf-objaverse-v1"


def fetch(asset: Asset, cache: Path, policy: Policy) -> Fetched:
    """The file of an Objaverse asset, from the cache or downloaded. Raises DownloadError, whatever went wrong.

    A cached file that is no whole GLB counts as not there. What the cache held before is never removed.
    """
    name = asset.objaverse_path or ""
    if not _OBJECT_PATH.fullmatch(name):  # it decides a path on this machine
        raise DownloadError("BadPath", f"{name!r} is not a path of Objaverse, such as glbs/000-001/UID.glb", 0)
    local = cache / name
    try:
        return _cached(local, policy) or _downloaded(name, local, policy)
    except OSError as error:
        raise DownloadError("Disk", f"{name}: {error}") from error


def download(asset: Asset, cache: Path | None, policy: Policy) -> Download:
    """One download, wherever it runs: `cache` None is that machine's own."""
    started = time.monotonic()
    try:
        file = fetch(asset, cache or cache_folder(), policy)
    except DownloadError as error:
        seconds = round(time.monotonic() - started, 3)
        return Download(attempts=error.attempts, error_class=error.kind, message=str(error), seconds=seconds)
    return Download(file.data, file.sha256, file.attempts, seconds=round(time.monotonic() - started, 3))


def download_listing(name: str, cache: Path, policy: Policy, check: Callable[[Path], None]) -> Path:
    """Download a file that is no object into the cache. `check` sees it before it takes its name and may raise."""
    local = cache / name

    def attempt() -> None:
        with _landing(local) as file:
            transfer(f"{policy.base_url}/{name}", file, policy)
            check(Path(file.name))

    with_attempts(attempt, name, policy)
    return local


def _cached(local: Path, policy: Policy) -> Fetched | None:
    if not local.is_file():
        return None
    size = local.stat().st_size
    with local.open("rb") as file:
        if _glb_problem(file, size):
            return None
        check_size(size, policy)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Fetched(_mapped(file), sha256, 0, local)


def _downloaded(name: str, local: Path, policy: Policy) -> Fetched:
    def attempt() -> tuple[NDArray[np.uint8], str]:
        with _landing(local if policy.keep else None) as file:
            body = transfer(f"{policy.base_url}/{name}", file, policy)
            if problem := _glb_problem(file, body.size):
                if body.verified:  # it came as it was published: no attempt will change it
                    raise DownloadError("NotGlb", f"as published, it {problem}")
                raise Passing("NotGlb", f"it {problem}")
            return _mapped(file), body.sha256

    (data, sha256), attempts = with_attempts(attempt, name, policy)
    return Fetched(data, sha256, attempts, local if policy.keep else None)


@contextmanager
def _landing(local: Path | None) -> Iterator[IO[bytes]]:
    """An empty file to download into. It takes the name `local` if all goes well; without `local` it has no name."""
    if local is None:
        with tempfile.TemporaryFile() as nameless:
            yield nameless
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(f"{local.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with partial.open("x+b") as file:
            yield file
        os.replace(partial, local)
    finally:
        partial.unlink(missing_ok=True)


def _glb_problem(file: IO[bytes], size: int) -> str:
    """Why an open file of `size` bytes is not a whole GLB, or nothing."""
    file.seek(0)
    head = file.read(_GLB_HEADER.size)
    if len(head) < _GLB_HEADER.size or head[:4] != b"glTF":
        return f"is no GLB file: it begins with {head!r}"
    _, _, length = _GLB_HEADER.unpack(head)
    return f"is truncated: {size} bytes of {length}" if size < length else ""


def _mapped(file: IO[bytes]) -> NDArray[np.uint8]:
    """The bytes of an open file, which may be closed and unlinked after. Moves the file's position."""
    return np.asarray(np.memmap(file, np.uint8, "r"))
