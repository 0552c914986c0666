"""Report bad input: one message that names the value and the remedy, and exit status 2."""

import sys
from collections.abc import Callable

from dataset.log import configure_logging


class UserError(ValueError):
    """Bad input by the user. The message is complete: what was wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """An error's text on one line of at most 200 characters, for use in a message."""
    return " ".join(str(error).split())[:200]


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a command line and exit: 2 and one line on bad input, 130 on Ctrl-C, else what `main` returns (None is 0).

    Messages of all packages go to stderr meanwhile (`configure_logging`).
    """
    configure_logging()
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        status = 130
    sys.exit(status)
