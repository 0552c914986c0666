"""A full disk does not end a run: the file that was not written is reported, and training continues."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from safetensors import SafetensorError
from tqdm import tqdm

from dataset.errors import UserError, one_line

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file size limit


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room. safetensors gives the system's error number in its text alone."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    found = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return found is not None and int(found[1]) in _NO_ROOM


def warn_not_written(what: str, error: BaseException, more: str = "") -> None:
    """The one loud line about a full disk."""
    tqdm.write(f"NOT WRITTEN: {what}: no space ({one_line(error)}); training continues{more}; free some space")


@contextmanager
def continue_without(what: str) -> Iterator[None]:
    """Writing inside may run out of room: that is said, and passed over. Any other error is raised."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        warn_not_written(what, error)


@contextmanager
def require_disk_space(what: str) -> Iterator[None]:
    """What is written inside is needed: when there is no space for it, a UserError says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"{what} could not be written: no space ({one_line(error)}); free some space and repeat the command, "
            "it resumes from the last checkpoint"
        ) from error
