"""Compare distilled assets with the objects of a shard set that they were made from.

    python -m distill.evaluate --model data/model --shards data/shards --max-objects 20      # distills them first
    python -m distill.evaluate --run out/cat out/mug --uid procedural-cat-000001 procedural-mug-000017 --shards ...
    python -m distill.evaluate --table pairs.csv --shards data/shards                        # run,uid,view

Each asset is aligned with its object by the known camera of its input image, without a search
(`distill.evaluate.ground_truth`). The command writes `evaluation.json`, `evaluation.md`, `evaluation.html` (with
images) and `results.jsonl`, which has one line per measured asset. The same command resumes from `results.jsonl`. With
--model, the distillations are in `runs/MODEL/UID` and are resumed too.
"""

import sys
from collections.abc import Sequence
from typing import Final

import tyro

from dataset.errors import run_cli
from dataset.io.old_flags import rename_old_flags
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.evaluate import evaluate_assets

RENAMED: Final = {
    "--objects": "--max-objects",
    "--reference": "--compare-reference",
    "--sampling-steps": "--ddim-steps",
}


def parse_args(argv: Sequence[str]) -> AssetEvaluationArgs:
    """Parse a command line. Flags that were renamed keep working under their old names."""
    return tyro.cli(AssetEvaluationArgs, prog="python -m distill.evaluate", args=rename_old_flags(argv, RENAMED))


def main() -> int:
    """Run the command line."""
    return evaluate_assets(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    run_cli(main)
