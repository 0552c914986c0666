"""Accept the old names of renamed command-line flags, for one release."""

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


def rename_old_flags(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Return a copy of the command line `argv` with new names in place of old flags. Call this before parsing.

    Old flags are recognized as `--old VALUE` and `--old=VALUE`, with hyphens or underscores between words. Arguments
    after a bare `--` are left unchanged. For each old flag, one notice is printed to stderr.

    Args:
        argv: The arguments, without the program's name.
        renamed: Old name -> new name of each flag. Both names begin with `--`. For an old flag without a value, the new
            name may include one: `--new=VALUE`.
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
