"""Create temporary folders, and remove temporary folders that killed processes left behind."""

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "isotropic3d-"
_NAME: Final = re.compile(rf"{PREFIX}(\d+)-[0-9a-f]{{8}}")


class ScratchFolder:
    """A new folder at `path` in the system's folder for temporary files. Call `close` to remove the new folder.

    The name of the folder contains the process id, and the process locks the folder, so that `remove_stale_folders` can
    tell whether the folder is in use.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.path.mkdir(mode=0o700)
        self._descriptor: int | None = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the folder and its contents. A second call does nothing."""
        if self._descriptor is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield the path of a new temporary folder, which is removed at the end of the `with` block."""
    folder = ScratchFolder()
    try:
        yield folder.path
    finally:
        folder.close()


def remove_stale_folders() -> int:
    """Remove this user's temporary folders whose process no longer exists. Return the number of removed folders."""
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        name = _NAME.fullmatch(path.name)
        with suppress(OSError):  # removed meanwhile by another process
            if name and path.lstat().st_uid == os.getuid() and not _exists(int(name[1])) and not _is_locked(path):
                shutil.rmtree(path)
                removed += 1
    return removed


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_locked(path: Path) -> bool:
    """Return whether a process, perhaps in another container that shares the folder, locks the folder `path`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
