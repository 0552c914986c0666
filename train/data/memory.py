"""The memory of this machine."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_LIMITS: Final = (  # of a container's cgroup, versions 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes(limits: Sequence[Path] = _LIMITS) -> int:
    """Return the bytes of memory of this machine, or of the container if one of the files `limits` states fewer."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        with suppress(OSError, ValueError):  # no such file, or the limit is "max"
            size = min(size, int(path.read_text()))
    return size
