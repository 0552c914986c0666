"""A micro run with two Ray workers, in a new process: python -m tests.support.train_ray SHARDS OUT BASE."""

import sys
from dataclasses import replace
from pathlib import Path

from dataset.errors import run_cli
from tests.support.train_micro import micro_run
from train.launch import Launch, start

STEPS = 40


def main() -> None:
    """See the top of this file."""
    shards, out, base = map(Path, sys.argv[1:])
    run = micro_run(shards, out, STEPS, base=base)
    recipe = replace(run.recipe, log_every=2, checkpoint_every=4, picture_every=1000)
    start(replace(run, recipe=recipe), Launch(workers=2))


if __name__ == "__main__":
    run_cli(main)
