"""What an evaluation says of itself: its protocol beside the published one, and whether a model saw the objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset.reading.filters import TEST_SHARE, Split
from train.data.splits import MIN_OBJECTS
from train.evaluate.metrics import SAME_DB
from train.evaluate.novel_views import GROUPS, VIEWS_A_GROUP
from train.loop.run_config import CONFIG_FILE


def protocol(size: int, seeds: int) -> list[str]:
    """How the numbers are made; `size` is the pixels of a picture."""
    return [
        "From one view of the random set (which one depends on the object's uid alone) the model draws the 16 views of "
        "the fixed set: elevation 30, every 22.5 degrees, at the truth's cameras.",
        "As in SyncDreamer's evaluation (Liu et al. 2023, its eval_nvs.py): 16 views on white; PSNR over the whole "
        "picture, SSIM with an 11-pixel Gaussian window, the means over views and objects.",
        f"Otherwise than there: this set's objects at {size} pixels (theirs: 30 objects of Google Scanned Objects at "
        f"256); a ring is drawn as {GROUPS} groups of {VIEWS_A_GROUP} orthogonal views, as in training, not all 16 at "
        f"once; seeds an object: {seeds}; SSIM's data range is 1 (there: the pictures' own) and its mean leaves out "
        "the 5 pixels at the border, as scikit-image does.",
        "In the box: the bounding box of the true alpha; SSIM there is the mean of its map in the box.",
        "Pose: the nearest of the object's own 16 true views, by mean squared difference or by cosine of embeddings, "
        "should be the asked one; objects that look alike from several sides cannot reach 100 %.",
        "Front/back: of the views within 45 degrees of front or back, how many are nearer to the true view from the "
        f"other side than to the asked one; only where these two true views differ (PSNR below {SAME_DB:g} dB).",
        "Embeddings are of each model's own tower; baselines are seen by the first model's. Numbers by embedding of "
        "models with different towers do not compare.",
        "Nearest training object: of all random views of the training objects the one with the largest cosine to the "
        "reference's embedding decides; its object's true views at the same cameras stand for the answer.",
    ]


def training_notes(name: str, folder: Path, split: Split) -> Iterator[str]:
    """What a model's folder says of whether it saw the objects of a split; nothing when it did not see them."""
    if split == "all":
        yield f"{name}: all objects are measured, those too that it may have been trained on."
        return
    for config, path in _configs(folder):
        if config is None:
            yield f"{name}: {path} is not there to say on which objects it was trained."
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
                f"{name}: {path.parent} was trained without leaving these out ({objects} objects, --validation "
                f"{recipe.get('validation')}, --test-share {share:g}): what it saw among them is no test."
            )


def _configs(folder: Path) -> Iterator[tuple[dict[str, Any] | None, Path]]:
    """config.json of a run and of the runs that it started from, as far as they are there."""
    seen: set[Path] = set()
    at: Path | None = folder
    while at is not None and at not in seen:
        seen.add(at)
        path = at / CONFIG_FILE
        config: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        yield config, path
        base = None if config is None else config.get("base")
        at = None if base is None else Path(base)
