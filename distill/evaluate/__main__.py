"""Compare assets, the fields and meshes of finished distillations, with their original objects in a shard set.

    python -m distill.evaluate --model data/model --shards data/shards --max-objects 20      # distills 20 objects first
    python -m distill.evaluate --run out/cat out/mug --uid procedural-cat-000001 procedural-mug-000017 --shards ...
    python -m distill.evaluate --table pairs.csv --shards data/shards      # CSV with the columns run, uid and view

Each asset is aligned with its object by the known camera of the asset's input image, without a search
(`distill.evaluate.ground_truth`). The command writes `evaluation.json`, `evaluation.md`, `evaluation.html` (with
images) and `results.jsonl`, which has one line per measured asset, to the folder OUT given by --out. If the command is
repeated, assets in `results.jsonl` are not measured again. With --model, the run folders of the distillations are
OUT/runs/MODEL/UID, and interrupted distillations are resumed.
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
    """Return the options in `argv`, the command line without the program name.

    Options that were renamed can also be given under their old names.
    """
    return tyro.cli(AssetEvaluationArgs, prog="python -m distill.evaluate", args=rename_old_flags(argv, RENAMED))


def main() -> int:
    """Evaluate the assets given on the command line. Return the exit status of `evaluate_assets`."""
    return evaluate_assets(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    run_cli(main)
