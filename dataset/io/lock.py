"""Allow only one process at a time to write an output, by a lock of the operating system or by a lease.

Local folders are locked by the operating system. Among them is the local folder that holds the results of a remote set
before upload. The remote set itself is locked by a lease, which is a file in the set. The process that owns the lease
rewrites this file every minute. Another process takes over the lease when the file has not been rewritten for LEASE_S
seconds, or when the owner ran on the same machine and no longer exists.
"""

import fcntl
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError
from dataset.io.files import TEMPORARY_SUFFIX, check_reachable, json_bytes

LEASE_NAME: Final = "lease.json"
LOCK_NAME: Final = "lock"
LEASE_S: Final = 300.0
RENEW_S: Final = 60.0
_TEMPORARY: Final = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}")
_SETTLE_S: Final = 1.0  # after writing a lease, wait this long and check that no other writer replaced it


@contextmanager
def owned(fs: Any, root: str, folder: Path | None, url: str, writer: str = "rendering") -> Iterator[None]:
    """Lock the set in the folder `root` of `fs` during the `with` block, so that no other process writes the set.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        folder: Local folder in which the lock file is written. For a local set, this is the folder of the set; for a
            remote set, it is the local folder that holds results before upload. None: use only the lease.
        url: URL of the set, for messages.
        writer: A noun for what the locking process does, such as "rendering", for messages.

    Raises:
        UserError: Another process has locked the set, or the lock file cannot be written.
    """
    with _flock(folder / LOCK_NAME, url, writer) if folder is not None else nullcontext():
        if isinstance(fs, LocalFileSystem):
            yield
        else:
            with _lease(fs, f"{root}/{LEASE_NAME}", url, writer):
                yield


@contextmanager
def owned_out(fs: Any, root: str, out: str, writer: str) -> Iterator[None]:
    """Create the folder of the set at the URL `out`, and lock the set during the `with` block.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        out: Folder or URL of the set.
        writer: A noun for what the locking process does, such as "encoding", for messages.

    Raises:
        UserError: Another process has locked the set, or the set cannot be reached or written.
    """
    check_reachable(fs, root, out)
    folder = Path(root) if isinstance(fs, LocalFileSystem) else None
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_not_writable(Path(out), error)) from error
    with owned(fs, root, folder, out, writer):
        yield


@contextmanager
def locked_folder(folder: Path, writer: str) -> Iterator[None]:
    """Create a local folder if it does not exist, and lock this folder during the `with` block.

    If this function created the folder and the folder is still empty at the end of the block, the folder is removed.

    The operating system releases the lock when the process ends, even if the process is killed. Temporary files that a
    killed process left in the folder (`dataset.io.files.atomic_file`) are removed at the start.

    Args:
        folder: The output folder of a command.
        writer: A noun for what the command does, such as "training", for messages.

    Raises:
        UserError: Another process has locked the folder, or the folder cannot be written.
    """
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_not_writable(folder, error)) from error
    try:
        with _flock(folder / LOCK_NAME, str(folder), writer):
            _remove_temporaries(folder)
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _remove_temporaries(folder: Path) -> None:
    """Remove the temporary files in `folder`, which is locked, except in subfolders that have a lock of their own."""
    for parent, folders, files in os.walk(folder):
        if LOCK_NAME in files and Path(parent) != folder:
            folders.clear()
            continue
        for name in filter(_TEMPORARY.fullmatch, files):
            (Path(parent) / name).unlink(missing_ok=True)


@contextmanager
def locked_file(path: Path, writer: str) -> Iterator[None]:
    """Lock the output file or folder `path` during the `with` block. `path` does not have to exist yet.

    The lock is a hidden file beside `path`. The operating system releases it when the process ends, as in
    `locked_folder`. `writer` is a noun for what the locking process does, such as "training", for messages.

    Raises:
        UserError: Another process has locked `path`, or the parent folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_not_writable(path.parent, error)) from error
    with _flock(path.with_name(f".{path.name}.{LOCK_NAME}"), str(path), writer):
        yield


@contextmanager
def _flock(path: Path, url: str, writer: str) -> Iterator[None]:
    descriptor = _open_locked(path, url, writer)
    try:
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, url: str, writer: str) -> int:
    """Open and lock the lock file `path`, and return its descriptor.

    Raises:
        UserError: Another process has locked `path`, or `path` cannot be written.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(_not_writable(path, error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.ftruncate(descriptor, 0)  # a killed process left it
                return descriptor
        except BlockingIOError as error:
            owner = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
            os.close(descriptor)
            by = f": {owner}" if owner else ""
            raise UserError(
                f"another {writer} is writing {url}{by}; wait until that process has ended, or stop it"
            ) from error
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner removed it in the meantime


def _not_writable(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror}; check the path and permissions"


@contextmanager
def _lease(fs: Any, path: str, url: str, writer: str) -> Iterator[None]:
    holder = _read(fs, path)
    if holder is not None and not _stale(holder):
        raise UserError(
            f"another {writer} is writing {url}: process {holder['pid']} on {holder['host']}; wait until that process "
            f"has ended, or stop it (if it was killed, its lock expires {LEASE_S:.0f} s after the last renewal)"
        )
    mine = uuid.uuid4().hex
    _write(fs, path, mine)
    time.sleep(_SETTLE_S)
    if (_read(fs, path) or {}).get("id") != mine:
        raise UserError(
            f"another {writer} that writes {url} was started at the same time; wait until that process has ended, or "
            "stop it"
        )
    stop = threading.Event()
    thread = threading.Thread(target=_renew, args=(fs, path, mine, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(OSError):
            fs.rm_file(path)


def _renew(fs: Any, path: str, mine: str, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        with suppress(OSError):  # retried in a minute; the lease lasts for five
            _write(fs, path, mine)


def _write(fs: Any, path: str, mine: str) -> None:
    fs.pipe_file(path, json_bytes({"id": mine, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}))


def _read(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        lease = json.loads(fs.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None
    return lease if isinstance(lease, dict) and {"id", "host", "pid", "time"} <= lease.keys() else None


def _stale(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return True
    return time.time() - float(holder["time"]) > LEASE_S
