"""Check whether Blender can run on this machine.

`python -m render.system_check` prints the result and, if a package is missing, the command that installs it.
"""

import ctypes
import logging
import sys
from importlib.util import find_spec
from typing import Final

from dataset.errors import run_cli

logger = logging.getLogger(__name__)
# library that `import bpy` loads -> the Debian package that contains it
SYSTEM_LIBRARIES: Final = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
}


def missing_packages() -> list[str]:
    """Return the names of the Debian packages to install before Blender can run.

    Each of them contains a library that Blender needs and that this machine cannot load. The list is empty on systems
    other than Linux, where the wheels of bpy contain the libraries.
    """
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for library, package in SYSTEM_LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def find_problem() -> str | None:
    """Return why rendering is not possible on this machine and what to do; None if it is possible.

    Does not import bpy.
    """
    if find_spec("bpy") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        if version == "3.11":
            return "the package bpy (Blender) is not installed; run `make setup`"
        return (
            f"this is Python {version}; Blender's bpy 4.5 LTS requires Python 3.11. "
            "Training and distillation work without it. To render, "
            "remove .venv and run `make setup PYTHON=/path/to/python3.11`"
        )
    if packages := missing_packages():
        return f"Blender lacks system libraries; run: apt-get install -y {' '.join(packages)}"
    return None


def main() -> int:
    """Print whether rendering is possible on this machine. Return the exit status: 0 if it is, otherwise 1."""
    problem = find_problem()
    if problem:
        logger.info("render: not available: %s", problem)
        return 1
    print("render: ready")
    return 0


if __name__ == "__main__":
    run_cli(main)
