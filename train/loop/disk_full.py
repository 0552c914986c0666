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

    An error of safetensors contains the number of the system's error only in the error message.
    """
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    number = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return number is not None and int(number[1]) in _DISK_FULL


def warn_not_written(what: str, error: BaseException, more: str = "") -> None:
    """Log that a file was not written because the disk is full, and that training continues.

    Args:
        what: Path and contents of what was not written.
        error: The error of the write.
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
    """Context for optional writes: if the disk is full, log that `what` was not written, and continue.

    Other errors are raised. `what` is the path and the contents of what is written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        warn_not_written(what, error)


@contextmanager
def require_disk_space(what: str) -> Iterator[None]:
    """Context for required writes: raise UserError, naming `what`, when the disk is full. Other errors are unchanged.

    `what` is the path and the contents of what is written.
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
