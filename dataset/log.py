"""Configure logging for commands: messages go to stderr and do not break a progress bar."""

import logging
import sys
from typing import Final

LOGGERS: Final = ("__main__", "dataset", "render", "train", "distill", "benchmarks", "examples")


class ProgressSafeHandler(logging.Handler):
    """Logging handler that writes records to the current `sys.stderr`, above a tqdm bar if one is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message of one record. Messages of level WARNING and above begin with the name of the level."""
        try:
            text = self.format(record)
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: {text}"
            tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
            if tqdm is None:
                print(text, file=sys.stderr, flush=True)
            else:
                tqdm.write(text, file=sys.stderr)
                sys.stderr.flush()
        except (TypeError, ValueError, OSError):  # a message that cannot be formatted, a closed stream
            self.handleError(record)


def configure_logging(level: int = logging.INFO, *, propagate: bool = True) -> None:
    """Send the log messages of all packages of this project to stderr. A second call only changes the two settings.

    Command lines and worker processes call this; library code only calls `logging.getLogger(__name__)`.

    Args:
        level: Lowest level of the messages that are shown, such as `logging.INFO`.
        propagate: Whether messages also reach handlers of the root logger, which may show them a second time.
    """
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = propagate
        if not any(isinstance(handler, ProgressSafeHandler) for handler in logger.handlers):
            logger.addHandler(ProgressSafeHandler())
