"""Compare the novel views of models and of baselines with the true views of a shard set.

    python -m train.evaluate --model data/stage1 data/model --shards data/shards --out data/evaluation

From one view of each object to evaluate (--split), each model samples a ring: 16 views at the cameras of the object's
fixed views. The command writes `evaluation.json`, `evaluation.md`, `evaluation.html` (which shows the scored images)
and `results.jsonl` (one line per scored ring). A repeated command resumes from `results.jsonl`.
"""

import sys
from collections.abc import Sequence
from typing import Final

import tyro

from dataset.errors import run_cli
from dataset.io.old_flags import rename_old_flags
from train.evaluate.evaluate import NovelViewArgs, evaluate_novel_views

RENAMED: Final = {
    "--seeds": "--num-seeds",
    "--objects": "--max-objects",
    "--steps": "--ddim-steps",
    "--reference": "--compare-reference",
}


def parse_args(argv: Sequence[str]) -> NovelViewArgs:
    """Parse a command line without the program's name. Options that were renamed keep working under their old names."""
    return tyro.cli(NovelViewArgs, prog="python -m train.evaluate", args=rename_old_flags(argv, RENAMED))


def main() -> None:
    """Run `python -m train.evaluate` with the arguments of the command line."""
    evaluate_novel_views(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    run_cli(main)
