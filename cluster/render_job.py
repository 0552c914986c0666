"""Entry point of `ray submit` for rendering: runs the checkout that `file_mounts` put on the head node.

    ray submit cluster/render.yaml cluster/render_job.py -- --source objaverse:lvis --shards s3://bucket/lvis

`ray submit` copies only this file and runs it as `python ~/render_job.py ...` in the home folder with the first
`python` on PATH. This script therefore imports only the standard library. It starts `python -m cluster.driver` with the
Python in the checkout's .venv.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

MOUNT: Final = "~/isotropic3d"  # where the file_mounts of cluster/*.yaml put the checkout, on every node


def checkout(given: str) -> Path:
    """Return the absolute path of the folder `given`; exit with an error if it is not a checkout of this project."""
    root = Path(given).expanduser().resolve()
    if not (root / "cluster" / "driver.py").is_file():
        sys.exit(
            f"error: {root} contains no checkout of this project; run `ray up`, which mounts one at {MOUNT}, or give "
            "the folder of one with --root"
        )
    return root


def interpreter(root: Path) -> str:
    """Return the path of the Python in `root`/.venv. If there is no .venv, return the path of the running Python."""
    own = root / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def main(arguments: list[str]) -> None:
    """Replace this process with `python -m cluster.driver`, run in the root folder of the checkout.

    Args:
        arguments: The command line without the program's name. `--root FOLDER` names the checkout (default: MOUNT); all
            other arguments are passed on to `python -m cluster.driver`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--root", default=MOUNT)
    known, rest = parser.parse_known_args(arguments)
    root = checkout(known.root)
    python = interpreter(root)
    os.chdir(root)  # so that relative paths, such as --shards data/x, mean the checkout on the head node
    os.execv(python, [python, "-m", "cluster.driver", *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
