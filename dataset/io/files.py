"""What fsspec does otherwise than we need."""

import os
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError


def exists(fs: Any, path: str) -> bool:
    """Whether there is a file or folder. Raises UserError where this machine's file system refuses to say.

    fsspec's own takes everything that is raised meanwhile for a no: a folder that may not be read, and Ctrl-C.
    """
    if not isinstance(fs, LocalFileSystem):
        return bool(fs.exists(path))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL, which no path holds
        return False
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and permissions") from error
    return True
