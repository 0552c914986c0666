"""Entry point of `ray submit` for distillation: runs the checkout that `file_mounts` put on the head node.

    ray submit cluster/train.yaml cluster/distill_job.py -- --image cat.png dog.png --num-seeds 4 \\
        --model /mnt/shared/stage2 --out /mnt/shared/assets --device cuda

`ray submit` copies only this file and runs it as `python ~/distill_job.py ...` in the home folder with the first
`python` on PATH. This script therefore imports only the standard library. It adds `--address auto` to the arguments,
unless --address is given.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

MOUNT: Final = "~/isotropic3d"  # where the file_mounts of cluster/train.yaml put the checkout, on every node


def checkout(given: str) -> Path:
    """Return the absolute path of the folder `given`; exit with an error if it is not a checkout of this project."""
    root = Path(given).expanduser().resolve()
    if not (root / "distill" / "runs" / "ray_workers.py").is_file():
        sys.exit(
            f"error: {root} contains no checkout of this project; run `ray up`, which mounts one at {MOUNT}, or give "
            "the folder of one with --root"
        )
    return root


def main(arguments: list[str]) -> None:
    """Replace this process with `python -m distill`, run in the root folder of the checkout.

    Args:
        arguments: The command line without the program's name. `--root FOLDER` names the checkout (default: MOUNT); all
            other arguments are passed on to `python -m distill`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--root", default=MOUNT)
    known, rest = parser.parse_known_args(arguments)
    root = checkout(known.root)
    own = root / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    os.chdir(root)
    given = any(word == "--help" or word.partition("=")[0] == "--address" for word in rest)
    where = [] if given else ["--address", "auto"]
    os.execv(python, [python, "-m", "distill", *rest, *where])


if __name__ == "__main__":
    main(sys.argv[1:])
