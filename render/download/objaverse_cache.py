"""Download Objaverse files into the cache of the `objaverse` package (0.1.7).

A file in the cache is always complete, because each file is verified before it gets its final name.
"""

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
from dataset.format.outcomes import Failure
from render.download.http import DownloadError, DownloadPolicy, RetryableError, check_size, transfer, with_retries

_OBJECT_PATH: Final = re.compile(r"glbs/\d{3}-\d{3}/[0-9a-f]{32}\.glb", re.ASCII)
_GLB_HEADER: Final = struct.Struct("<4sII")  # magic, version, length of the file


@dataclass(frozen=True)
class CachedFile:
    """A downloaded file. The array `data` [n] contains its n bytes. It is memory-mapped: read from disk when needed."""

    data: NDArray[np.uint8]
    sha256: str
    attempts: int  # 0 if it was in the cache
    path: Path | None  # in the cache; None when it is not kept there

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return int(self.data.size)


@dataclass(frozen=True)
class Download:
    """A completed or failed download. `data` [n] contains the n bytes of the file.

    If the download failed, `data` is None and `failure` gives the reason.
    """

    data: NDArray[np.uint8] | None = None
    sha256: str = ""
    attempts: int = 0  # 0: it was in the cache
    failure: Failure | None = None
    seconds: float = 0.0


def cache_folder() -> Path:
    """Return the cache folder of the `objaverse` package. Files that the package has downloaded are reused."""
    return Path.home() / ".objaverse" / "hf-objaverse-v1"


def fetch(asset: Asset, cache: Path, policy: DownloadPolicy) -> CachedFile:
    """Get the file of an Objaverse asset from the cache, or download it.

    A cached file that is not a complete GLB is downloaded again. Nothing is removed from the cache. Raises
    DownloadError on any failure.
    """
    name = asset.objaverse_path or ""
    if not _OBJECT_PATH.fullmatch(name):  # the name becomes a local path
        raise DownloadError("BadPath", f"{name!r} is not a path in Objaverse, such as glbs/000-001/UID.glb", 0)
    local = cache / name
    try:
        return _cached(local, policy) or _downloaded(name, local, policy)
    except OSError as error:
        raise DownloadError("Disk", f"{name}: the file cannot be read or written in {cache} ({error})") from error


def download(asset: Asset, cache: Path | None, policy: DownloadPolicy) -> Download:
    """Get the file of one asset from the cache, or download it. An error is returned as `Download.failure`, not raised.

    Args:
        asset: An object of Objaverse.
        cache: The cache folder; None: `cache_folder()` on the machine that calls this function.
        policy: Settings of the download.
    """
    started = time.monotonic()
    try:
        file = fetch(asset, cache or cache_folder(), policy)
    except DownloadError as error:
        seconds = round(time.monotonic() - started, 3)
        return Download(attempts=error.attempts, failure=error.failure, seconds=seconds)
    return Download(file.data, file.sha256, file.attempts, seconds=round(time.monotonic() - started, 3))


def download_listing(name: str, cache: Path, policy: DownloadPolicy, check: Callable[[Path], None]) -> Path:
    """Download a list or annotation file of Objaverse into the cache. Return the path of the file in the cache.

    Args:
        name: Path of the file in Objaverse, such as object-paths.json.gz.
        cache: The cache folder.
        policy: Settings of the download.
        check: Called with the path of the complete file before it gets its final name. Raises RetryableError to reject
            the file.

    Raises DownloadError when all attempts fail.
    """
    local = cache / name

    def attempt() -> None:
        with _download_target(local) as file:
            transfer(f"{policy.base_url}/{name}", file, policy)
            check(Path(file.name))

    with_retries(attempt, name, policy)
    return local


def _cached(local: Path, policy: DownloadPolicy) -> CachedFile | None:
    if not local.is_file():
        return None
    size = local.stat().st_size
    with local.open("rb") as file:
        if _glb_problem(file, size):
            return None
        check_size(size, policy)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return CachedFile(_mapped(file), sha256, 0, local)


def _downloaded(name: str, local: Path, policy: DownloadPolicy) -> CachedFile:
    def attempt() -> tuple[NDArray[np.uint8], str]:
        with _download_target(local if policy.keep else None) as file:
            body = transfer(f"{policy.base_url}/{name}", file, policy)
            if problem := _glb_problem(file, body.size):
                if body.verified:  # the published file itself is bad: a retry is useless
                    raise DownloadError("NotGlb", f"the file on the server {problem}")
                raise RetryableError("NotGlb", f"the downloaded file {problem}")
            return _mapped(file), body.sha256

    (data, sha256), attempts = with_retries(attempt, name, policy)
    return CachedFile(data, sha256, attempts, local if policy.keep else None)


@contextmanager
def _download_target(local: Path | None) -> Iterator[IO[bytes]]:
    """Open an empty file to download into. On success it is renamed to `local`; if `local` is None, it has no name."""
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
    """Return why an open file of `size` bytes is not a complete GLB, or an empty string."""
    file.seek(0)
    head = file.read(_GLB_HEADER.size)
    if len(head) < _GLB_HEADER.size or head[:4] != b"glTF":
        return f"is not a GLB file: it begins with {head!r}"
    _, _, length = _GLB_HEADER.unpack(head)
    return f"is truncated: it has {size} bytes, but its header declares {length}" if size < length else ""


def _mapped(file: IO[bytes]) -> NDArray[np.uint8]:
    """Return the bytes [n] of an open file, which may then be closed and deleted. Moves the file's position."""
    return np.asarray(np.memmap(file, np.uint8, "r"))
