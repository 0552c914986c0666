"""Accept renamed command-line flags under their old names, for one release."""

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


def rename_old_flags(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Replace renamed flags in a command line, before it is parsed.

    Both forms are replaced, `--old VALUE` and `--old=VALUE`, and a flag may be written with underscores instead of
    hyphens. Arguments after a bare `--` are left unchanged. A notice on stderr names each old flag once.

    Args:
        argv: The arguments, without the program's name.
        renamed: New name of each old flag, both with their leading hyphens.

    Returns:
        The arguments with the new names.
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
