"""Report bad input: one message that names the value and the remedy, and exit status 2."""

import sys
from collections.abc import Callable

from dataset.log import configure_logging


class UserError(ValueError):
    """Bad input by the user. The message says what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """Return an error's text on one line of at most 200 characters, for use in a message."""
    return " ".join(str(error).split())[:200]


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a command and exit with the status that `main` returns (None is 0), 2 on bad input, or 130 on Ctrl-C.

    Bad input (UserError) is reported as one line. While `main` runs, messages of all packages go to stderr
    (`configure_logging`).
    """
    configure_logging()
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        status = 130
    sys.exit(status)
