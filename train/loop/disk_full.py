"""Continue training when the disk is full, or stop with a UserError that names the file that was not written."""

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
    """Return whether `error` says that a file was not written because the disk is full or a quota is used up.

    safetensors reports the operating system's error number only in its error message, from which the number is read.
    """
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    number = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return number is not None and int(number[1]) in _DISK_FULL


def warn_not_written(what: str, error: BaseException, more: str = "") -> None:
    """Log that a file was not written because the disk is full, and that training continues.

    Args:
        what: Description of the file for the log: its path and its contents.
        error: The error that writing the file raised.
        more: Text to append to "training continues".
    """
    logger.warning(
        "NOT WRITTEN, because the disk is full: %s (%s); training continues%s; free some space",
        what,
        one_line(error),
        more,
    )


@contextmanager
def continue_without(what: str) -> Iterator[None]:
    """Context for writing an optional file: if the disk is full, log that `what` was not written, and continue.

    Other errors are raised. `what` describes the file for the log: its path and its contents.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        warn_not_written(what, error)


@contextmanager
def require_disk_space(what: str) -> Iterator[None]:
    """Context for writing a required file: raise a UserError that names `what` when the disk is full.

    Other errors are raised unchanged. `what` describes the file for the error message: its path and its contents.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"{what} could not be written, because the disk is full ({one_line(error)}); free some space and "
            "repeat the command, which resumes from the last checkpoint"
        ) from error
