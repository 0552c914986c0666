"""The memory of the machine or of the container."""

import os
from pathlib import Path

from train.data.memory import memory_bytes


def test_a_container_has_less_memory_than_the_machine(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [tmp_path / name for name in ("absent", "max", "memory")]
    limits[1].write_text("max\n")
    assert memory_bytes(limits) == machine
    limits[2].write_text(f"{machine // 2}\n")
    assert memory_bytes(limits) == machine // 2
    limits[2].write_text(f"{2 * machine}\n")
    assert memory_bytes(limits) == machine
