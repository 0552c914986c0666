"""Allow one writer per set: a kernel lock on this machine and, for a remote set, a lease stored in the set.

The lease is a file that its owner rewrites every minute. Another process takes a lease over when it was not renewed for
LEASE_S seconds, or immediately when its owner was a process of this machine that no longer exists.
"""

import fcntl
import json
import os
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
from dataset.io.files import check_reachable, json_bytes

LEASE_NAME: Final = "lease.json"
LOCK_NAME: Final = "lock"
LEASE_S: Final = 300.0
RENEW_S: Final = 60.0
_SETTLE_S: Final = 1.0  # after writing a lease, wait this long and check that no other writer replaced it


@contextmanager
def owned(fs: Any, root: str, folder: Path | None, url: str, writer: str = "rendering") -> Iterator[None]:
    """Lock the set at `root` during the `with` block.

    Args:
        fs: File system of the set.
        root: Folder of the set on `fs`.
        folder: Staging folder on this machine, or the set itself if it is local. None: use only the lease.
        url: URL of the set, for messages.
        writer: A noun for the process that locks the set, for messages.

    Raises:
        UserError: Another writer has locked the set, or the lock cannot be written.
    """
    with _flock(folder / LOCK_NAME, url, writer) if folder is not None else nullcontext():
        if isinstance(fs, LocalFileSystem):
            yield
        else:
            with _lease(fs, f"{root}/{LEASE_NAME}", url, writer):
                yield


@contextmanager
def owned_out(fs: Any, root: str, out: str, writer: str) -> Iterator[None]:
    """Create the folder of the set at the URL `out` and lock the set. Raises UserError when this fails."""
    check_reachable(fs, root, out)
    folder = Path(root) if isinstance(fs, LocalFileSystem) else None
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; check the path and permissions") from error
    with owned(fs, root, folder, out, writer):
        yield


@contextmanager
def _flock(path: Path, url: str, writer: str) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; check the path and permissions") from error
    try:
        if not _locked(descriptor, path):
            raise UserError(f"another {writer} is writing {url}; wait for it or stop it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    """Lock the open file. Return whether that succeeded and the file still exists at `path`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def _lease(fs: Any, path: str, url: str, writer: str) -> Iterator[None]:
    holder = _read(fs, path)
    if holder is not None and not _stale(holder):
        raise UserError(
            f"another {writer} is writing {url}: process {holder['pid']} on {holder['host']}; wait for it or stop it "
            f"(its lease expires {LEASE_S:.0f} s after the last renewal)"
        )
    mine = uuid.uuid4().hex
    _write(fs, path, mine)
    time.sleep(_SETTLE_S)
    if (_read(fs, path) or {}).get("id") != mine:
        raise UserError(f"another {writer} of {url} was started at the same time; wait for it or stop it")
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
