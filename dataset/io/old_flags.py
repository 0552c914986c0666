"""Accept command-line flags that were renamed under their old names, for one release."""

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


def rename_old_flags(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Return the command line `argv` in which renamed flags are replaced by their new names. Call this before parsing.

    Both forms are replaced, `--old VALUE` and `--old=VALUE`, and a flag may be written with underscores instead of
    hyphens. Arguments after a bare `--` are left unchanged. For each old flag, one notice is printed to stderr.

    Args:
        argv: The arguments, without the program's name.
        renamed: New name of each old flag. Both names begin with hyphens.
    """
    arguments, reported = list(argv), set[str]()
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        flag, equals, value = argument.partition("=")
        old = "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag
        if old not in renamed:
            continue
        arguments[index] = renamed[old] + equals + value
        if old not in reported:
            logger.info("note: %s is now %s; use the new name, the old one will be removed", old, renamed[old])
            reported.add(old)
    return arguments
