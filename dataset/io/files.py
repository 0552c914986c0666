"""Open URLs, read and write JSON, and write files atomically, on any file system that fsspec supports."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError

TEMPORARY_SUFFIX: Final = ".tmp"


def url_to_fs(url: str | Path) -> tuple[Any, str]:
    """Return the fsspec file system of a folder or URL, and the path on that file system, without trailing slash.

    Raises:
        UserError: fsspec does not know the URL's protocol, or the Python package for this protocol is not installed.
    """
    try:
        # No cache of listings: another process, here or elsewhere, may have written since.
        fs, root = fsspec.core.url_to_fs(str(url), use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"cannot open {url}: a Python package for this kind of URL is not installed ({error})"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{url} is neither a folder nor a URL that fsspec supports ({error}); give a folder, or a URL such as "
            "s3://bucket/set"
        ) from error
    return fs, root.rstrip("/")


def check_reachable(fs: Any, root: str, url: str) -> None:
    """Raise UserError when remote storage cannot be accessed: wrong credentials, no such bucket, or no network.

    Args:
        fs: fsspec file system of the URL. For a local file system, nothing is checked.
        root: Path on `fs`; its first component is the bucket.
        url: The URL, for messages.
    """
    if isinstance(fs, LocalFileSystem):
        return
    bucket = root.partition("/")[0]
    try:
        bucket_exists = not url.startswith("s3:") or fs.exists(bucket)
    except _storage_errors(fs) as error:
        raise UserError(
            f"cannot reach {url}: {error}; check the network, and the credentials for the storage (docs/cluster.md)"
        ) from error
    if not bucket_exists:
        raise UserError(
            f"cannot reach {url}: there is no bucket {bucket!r}, or the credentials of this environment do not "
            "give access to this bucket; create the bucket, correct the bucket name, or set the credentials (without "
            "credentials, s3fs connects anonymously)"
        )


def _storage_errors(fs: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that the library of a remote file system raises; some of them are not OSErrors."""
    if "s3" not in fs.protocol:
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return (OSError, BotoCoreError)


def exists(fs: Any, path: str) -> bool:
    """Return whether the file or folder `path` exists on the fsspec file system `fs`.

    For a local file system, this function does not use fsspec's own `exists`, which returns False after any exception,
    even after Ctrl-C or when access is denied.

    Raises:
        UserError: `fs` is a local file system and denies access.
    """
    if not isinstance(fs, LocalFileSystem):
        return bool(fs.exists(path))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: the path contains a NUL character
        return False
    except OSError as error:
        raise UserError(f"cannot access {path}: {error.strerror}; check the path and permissions") from error
    return True


def json_bytes(obj: Any) -> bytes:
    """Convert `obj` to JSON with sorted keys and one newline at the end, as bytes. Equal objects give equal bytes.

    Raises:
        ValueError: `obj` contains NaN or an infinite number.
    """
    return (json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


def read_json(fs: Any, path: str, remedy: str) -> Any:
    """Read and parse the JSON file `path` on the fsspec file system `fs`.

    Raises:
        UserError: The file cannot be read or is not valid JSON. If it is not valid JSON, the message ends in `remedy`,
            which says what to do.
    """
    try:
        return json.loads(fs.cat_file(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path and permissions") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from error


class Writer:
    """File wrapper that counts the bytes that are written and computes their SHA-256.

    Its method `write` raises UserError when writing fails.
    """

    def __init__(self, file: Any, path: str) -> None:
        self.file, self.path = file, path
        self.digest, self.count = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        with _explained(self.path):
            self.file.write(data)
        self.digest.update(data)
        self.count += len(data)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Convert an OSError that is raised in the `with` block to a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(
            f"cannot write {path}: {reason}; check the free disk space and the permissions, then repeat the command"
        ) from error


@contextmanager
def atomic_file(fs: Any, path: str) -> Iterator[Writer]:
    """Yield a Writer for the file `path`. The complete file appears there when the `with` block ends without error.

    If the block raises an error, the previous file at `path`, if any, stays unchanged.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = f"{path}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"
    local = isinstance(fs, LocalFileSystem)
    opener = open if local else fs.open
    with ExitStack() as undo:
        undo.callback(_drop, fs, temporary)
        with _explained(path):
            if local:  # object stores have no folders, and s3fs would create a bucket for a misspelled name
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            file = opener(temporary, "wb")
        try:
            yield Writer(file, path)
        finally:
            with _explained(path):
                file.close()
        with _explained(path):
            _rename(fs, temporary, path, local)
        undo.pop_all()


def _drop(fs: Any, path: str) -> None:
    """Delete the file `path` if it exists. Ignore errors."""
    with suppress(OSError):
        fs.rm_file(path)


def _rename(fs: Any, temporary: str, path: str, local: bool) -> None:
    if not local:
        fs.mv(temporary, path)
        return
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(os.path.dirname(path))


def _fsync(path: str) -> None:
    """Write the cached bytes of a file, or the cached entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes_atomic(fs: Any, path: str, data: bytes) -> None:
    """Write `data` to the file `path` on the fsspec file system `fs`. Replace a previous file in one step.

    Raises:
        UserError: The file cannot be written.
    """
    with atomic_file(fs, path) as writer:
        writer.write(data)


def write_file_atomic(path: Path, data: bytes) -> None:
    """Write `data` to the local file `path`. Replace a previous file in one step, and create missing folders.

    Raises:
        UserError: The file cannot be written.
    """
    write_bytes_atomic(LocalFileSystem(), str(path.absolute()), data)


def write_json_atomic(fs: Any, path: str, obj: Any) -> None:
    """Write `obj` as JSON to the file `path` on the fsspec file system `fs`. Replace a previous file in one step.

    Raises:
        UserError: The file cannot be written.
        ValueError: `obj` contains NaN or an infinite number.
    """
    write_bytes_atomic(fs, path, json_bytes(obj))
