"""One writer a set: a lock of the kernel's on this machine, and a lease in the set when it is not a local folder.

The lease is an object that its owner rewrites every minute. Another machine's is respected until it has been silent for
LEASE_S; one of a process of this machine that is gone is taken over at once.
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
_SETTLE_S: Final = 1.0  # two that began at once both wait this long, then see who wrote last


@contextmanager
def owned(fs: Any, root: str, folder: Path | None, url: str, writer: str = "rendering") -> Iterator[None]:
    """Own the set at `root` while the block runs. Raises UserError when another `writer` (a noun) does.

    `folder` is where it is staged on this machine, the set's own where it is local; None: the lease alone.
    """
    with _flock(folder / LOCK_NAME, url, writer) if folder is not None else nullcontext():
        if isinstance(fs, LocalFileSystem):
            yield
        else:
            with _lease(fs, f"{root}/{LEASE_NAME}", url, writer):
                yield


@contextmanager
def owned_out(fs: Any, root: str, out: str, writer: str) -> Iterator[None]:
    """Own the set at the URL `out`, staged nowhere else; its folder is made. Raises UserError when it cannot be."""
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
    """Whether the open file is now ours alone, and still the one at `path` (its last owner may have removed it)."""
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
            f"(a lease that is not renewed for {LEASE_S:.0f} s is taken over)"
        )
    mine = uuid.uuid4().hex
    _write(fs, path, mine)
    time.sleep(_SETTLE_S)
    if (_read(fs, path) or {}).get("id") != mine:
        raise UserError(f"another {writer} began to write {url} at the same moment; wait for it or stop it")
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
        with suppress(OSError):  # the next minute is soon enough; the lease lasts for five
            _write(fs, path, mine)


def _write(fs: Any, path: str, mine: str) -> None:
    fs.pipe_file(path, json_bytes({"id": mine, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}))


def _read(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(fs.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and {"id", "host", "pid", "time"} <= found.keys() else None


def _stale(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return True
    return time.time() - float(holder["time"]) > LEASE_S
