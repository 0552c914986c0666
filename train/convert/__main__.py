"""Convert an LDM checkpoint, such as MVDream's or Isotropic3D's, to a model folder in diffusers format.

    python -m train.convert CHECKPOINT OUT_FOLDER [--head-width 64]

CHECKPOINT is a file or the name of an official checkpoint (MVDream/MVDream, pkunliu/Isotropic3D). Numbers of channels
and blocks are inferred from the shapes of the tensors. The width of attention heads and the camera convention cannot be
inferred; they are taken from the command line, from the known settings of an official checkpoint, or from the notes
that `train.export` stored in the file, in this order of precedence.

MVDream adds `camera_embed` to the time embedding in the same way as diffusers adds a projected class embedding. The
keys of `camera_embed` are renamed by this package, the other keys by diffusers. Missing and unexpected keys are errors.
"""

import sys
from collections.abc import Sequence
from typing import Final

import tyro

from dataset.errors import run_cli
from dataset.io.old_flags import rename_old_flags
from train.convert.convert import ConvertArgs, convert

RENAMED: Final = {"--image-tower": "--image-encoder"}  # old name -> new name; the old ones will be removed


def parse(argv: Sequence[str]) -> ConvertArgs:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    return tyro.cli(ConvertArgs, prog="python -m train.convert", args=rename_old_flags(argv, RENAMED))


def main() -> None:
    """Run `python -m train.convert` with the arguments of the command line."""
    convert(parse(sys.argv[1:]))


if __name__ == "__main__":
    run_cli(main)
