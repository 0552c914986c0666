"""Continue training when the disk is full, and log which file was not written."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from safetensors import SafetensorError

from dataset.errors import UserError, one_line

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file size limit

logger = logging.getLogger(__name__)


def is_disk_full(error: BaseException) -> bool:
    """Return whether a write failed because the disk is full. safetensors states the error number only in its
    message."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    number = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return number is not None and int(number[1]) in _DISK_FULL


def warn_not_written(what: str, error: BaseException, more: str = "") -> None:
    """Log that the disk is full and that training continues without this file."""
    logger.warning(
        "NOT WRITTEN, because the disk is full: %s (%s); training continues%s; free some space",
        what,
        one_line(error),
        more,
    )


@contextmanager
def continue_without(what: str) -> Iterator[None]:
    """Context that logs a write failure caused by a full disk and continues. Other errors are raised."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        warn_not_written(what, error)


@contextmanager
def require_disk_space(what: str) -> Iterator[None]:
    """Context for required writes. Raises UserError when the disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"{what} could not be written, because the disk is full ({one_line(error)}); free some space and "
            "repeat the command, which resumes from the last checkpoint"
        ) from error
