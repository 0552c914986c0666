"""`python -m train.tiny_model` with a recipe that takes seconds: `python -m tests.support.tiny_model_micro ARGS`."""

import sys
from dataclasses import replace

import torch

from dataset.errors import run_cli
from dataset.images.prepare import OBJECT_FILL
from tests.support.train_micro import MICRO
from train import part_process
from train.device import pick_device
from train.tiny_model import build, parse

STEPS = {name: replace(getattr(MICRO, name), steps=2) for name in ("stage1", "stage2")}
RECIPE = replace(
    MICRO,
    **STEPS,
    autoencoder=replace(MICRO.autoencoder, decoder_schedule=replace(MICRO.autoencoder.schedule, steps=2)),
    tower=replace(MICRO.tower, object_fill=OBJECT_FILL),
    tower_training=replace(MICRO.tower_training, contrast_weight=0.0, novel_view_weight=10.0, mirror=True),
    cameras="absolute",
    average_decay=0.5,
    validate_every=2,
)


def main() -> None:
    part_process.end_with_parent()
    torch.set_num_threads(1)
    part_process.MODULE = "tests.support.tiny_model_micro"  # type: ignore[misc]
    args = parse(sys.argv[1:])
    build(args, RECIPE, pick_device(args.device))


if __name__ == "__main__":
    run_cli(main)
