"""Notes of an evaluation report: how the metrics are measured, and whether a model was trained on the objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset.reading.filters import TEST_SHARE, Split
from train.data.splits import MIN_OBJECTS
from train.evaluate.metrics import MAX_FRONT_BACK_PSNR_DB
from train.evaluate.novel_views import GROUPS_PER_RING, VIEWS_PER_GROUP
from train.loop.run_config import CONFIG_FILE


def protocol(size: int, seeds: int) -> list[str]:
    """Return sentences that describe how the metrics are measured.

    Args:
        size: Height and width of the images in pixels.
        seeds: Number of rings sampled per object.
    """
    return [
        "From one view of the random set (chosen by a hash of the object's uid) the model samples the 16 views of the "
        "fixed set, elevation 30, every 22.5 degrees, at the true cameras.",
        "As in SyncDreamer's evaluation (Liu et al. 2023, its eval_nvs.py): 16 views on white; PSNR over the whole "
        "image, SSIM with an 11-pixel Gaussian window, means over views and objects.",
        f"Differences from that evaluation: the objects of this set at {size} pixels (there: 30 objects of Google "
        f"Scanned Objects at 256); a ring is sampled as {GROUPS_PER_RING} groups of {VIEWS_PER_GROUP} orthogonal "
        f"views, as in training, not all 16 at once; seeds per object: {seeds}; the data range of SSIM is 1 "
        "(there: the images' own range) and its mean excludes the 5 pixels at the border, as in scikit-image.",
        "Box: the bounding box of the true alpha; SSIM there is the mean of its map in the box.",
        "Pose: for each sampled view, the nearest of the object's 16 true views is found, by mean squared "
        "difference or by cosine of embeddings. The metric is the fraction of views for which it is the true "
        "view at the same camera. Objects that look alike from several sides cannot reach 100 %.",
        "Front/back: of the views within 45 degrees of front or back, the fraction that is nearer to the true "
        "view from the opposite side than to the true view at the same camera; only views where these two true "
        f"views differ are counted (PSNR below {MAX_FRONT_BACK_PSNR_DB:g} dB).",
        "Embeddings are computed by each model's own image encoder, for the baselines by the first model's. Embedding "
        "metrics of models with different image encoders are not comparable.",
        "Nearest training object: the training object with the random view whose embedding has the largest cosine with "
        "the reference's embedding; its true views at the same cameras are scored.",
    ]


def training_notes(name: str, folder: Path, split: Split) -> Iterator[str]:
    """Yield a note for each training run that may have trained the model on objects that the evaluation uses.

    A note is also yielded if it is unknown on which objects the model was trained.

    Args:
        name: Short name of the model.
        folder: Model folder. If its config.json names an initial model, the notes also cover the runs that trained the
            initial model.
        split: The split of the evaluated objects.
    """
    if split == "all":
        yield f"{name}: all objects are measured, including those it may have been trained on."
        return
    for config, path in _configs(folder):
        if config is None:
            yield f"{name}: {path} does not exist, so it is unknown which objects the model was trained on."
            continue
        recipe, objects = config.get("recipe", {}), config.get("data", {}).get("objects", 0)
        whole = objects < MIN_OBJECTS and recipe.get("validation") != "on"
        share = recipe.get("test_share", 0.0)
        if (
            whole
            or (split == "test" and share < TEST_SHARE)
            or (split == "validation" and recipe.get("validation") == "off")
        ):
            yield (
                f"{name}: {path.parent} was trained without leaving these objects out ({objects} objects, "
                f"--validation {recipe.get('validation')}, --test-share {share:g}): results on these objects do "
                "not test generalization."
            )


def _configs(folder: Path) -> Iterator[tuple[dict[str, Any] | None, Path]]:
    """Yield (contents, path) of the config.json of a run, of the run that it was initialized from, and so on.

    The contents are None for a folder without config.json, with which the sequence ends.
    """
    seen: set[Path] = set()
    current: Path | None = folder
    while current is not None and current not in seen:
        seen.add(current)
        path = current / CONFIG_FILE
        config: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        yield config, path
        base = None if config is None else config.get("base")
        current = None if base is None else Path(base)
