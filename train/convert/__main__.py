"""An LDM checkpoint (MVDream's sd-v2.1-base-4view.pt, isotropic3d.ckpt) -> a model folder of diffusers parts.

    python -m train.convert CHECKPOINT OUT_FOLDER [--head-width 64]

CHECKPOINT is a file or a published name (MVDream/MVDream, pkunliu/Isotropic3D). Widths and depths are read from the
tensors' shapes; the width of an attention head and the camera convention leave no trace in them: they come from the
command line, the published name, or the notes that `train.export` leaves in a file, in this order.
MVDream adds `camera_embed` to the time embedding exactly as diffusers adds a projected class embedding; that renamed,
diffusers' own key conversion applies. Every load is strict, in both directions.
"""

import tyro

from dataset.errors import run_cli
from train.convert.convert import Convert, convert


def main() -> None:
    """Command line."""
    convert(tyro.cli(Convert, prog="python -m train.convert"))


if __name__ == "__main__":
    run_cli(main)
