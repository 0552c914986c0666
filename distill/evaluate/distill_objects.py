"""Distill objects of a shard set, each from one of its views, with the functions that `python -m distill` uses."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from dataset.format.schema import ALL_VIEWS, VIEWS_PER_SET
from dataset.io.files import write_file_atomic
from dataset.reading.rendered_object import Place, view_name
from dataset.reading.shard_set import ShardSet
from distill.mesh.formats import png
from distill.runs.job import load_run_model
from distill.runs.plan import PlannedInput, SharedOptions, describe_images, plan_jobs
from distill.runs.sequential import log_outcome, outcome_table, run_sequentially
from train.device import pick_device
from train.evaluate.novel_views import reference_index
from train.model.multiview import read_spec

REFERENCE_IMAGES: Final = "references"  # folder of the images that are distilled, in --out

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectDistillation:
    """Settings that are the same for all objects that one evaluation distills."""

    options: SharedOptions
    model: Path
    """The folder of the model `options.model`."""
    seed: int
    device: str
    with_reference: bool = False
    """Whether the model is conditioned on the images themselves."""


def reference_view(uid: str) -> int:
    """Return the index into ALL_VIEWS of the view from which the object `uid` is distilled by default.

    This view is the one that `train.evaluate` uses as the reference view of the object.
    """
    return VIEWS_PER_SET + reference_index(uid)


def distill_all(
    settings: ObjectDistillation,
    shards: ShardSet,
    objects: Mapping[str, Place],
    views: Mapping[str, int],
    *,
    images: Mapping[str, Path],
    out: Path,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Distill each object from one image. Finished runs are skipped, and interrupted runs are resumed.

    The elevation of the camera of each image is read from the shard set. If the model is conditioned on the image in
    addition to the embedding of the image, the azimuth is read from the shard set too, as it is for the L2 loss at the
    view of the image if the camera labels of the model are absolute.

    Args:
        settings: Settings that all runs share.
        shards: The shard set that contains the objects.
        objects: The objects to distill: for each uid, the pair (index of its shard, index of its sample in the shard).
        views: For each uid, the index into ALL_VIEWS of the view that the object is distilled from.
        images: For each uid, the image file of this view.
        out: Folder that receives a run folder UID for each object.

    Returns:
        Two dictionaries with uids as keys: the run folders of the objects whose runs are finished, and the error
        messages of the objects whose runs failed.

    Raises:
        UserError: the model or the settings are invalid.
        KeyboardInterrupt: a run was stopped.
    """
    inputs, absolute = [], read_spec(settings.model).cameras == "absolute"
    for uid, place in objects.items():
        elevation_deg, azimuth_deg = map(float, shards.angles_deg(*place, [ALL_VIEWS[views[uid]]])[0])
        azimuth = azimuth_deg if settings.with_reference else None
        loss_azimuth = azimuth_deg if absolute and settings.options.reference_weight else 0.0
        inputs.append(PlannedInput(uid, images[uid], settings.seed, out / uid, elevation_deg, azimuth, loss_azimuth))
    jobs, outcomes = plan_jobs(settings.options, settings.model, inputs)
    for line in describe_images(jobs):
        logger.info("%s", line)
    device = pick_device(settings.device)
    for outcome in run_sequentially(jobs, cache(lambda: load_run_model(jobs[0].model, device)), device):
        outcomes.append(outcome)
        log_outcome(outcome, out / outcome.name)
    statuses = {outcome.status for outcome in outcomes}
    if statuses & {"failed", "stopped"}:
        logger.info("%s", outcome_table(outcomes))
    if "stopped" in statuses:
        raise KeyboardInterrupt
    failed = {outcome.name: outcome.reason for outcome in outcomes if outcome.status == "failed"}
    return {uid: out / uid for uid in objects if uid not in failed}, failed


def write_reference_images(
    shards: ShardSet, objects: Mapping[str, Place], views: Mapping[str, int], out: Path
) -> dict[str, Path]:
    """Write one PNG file per object: the view from which the object is distilled. Existing files are kept.

    Args:
        shards: The shard set that contains the objects.
        objects: The objects: for each uid, the pair (index of its shard, index of its sample in the shard).
        views: For each uid, the index into ALL_VIEWS of the view to write.
        out: Output folder of the evaluation. The path of each file in this folder is references/VIEW/UID.png.

    Returns:
        The path of each PNG file, by uid.
    """
    return {uid: _write_image(shards, place, views[uid], out) for uid, place in objects.items()}


def _write_image(shards: ShardSet, place: Place, view: int, out: Path) -> Path:
    path = out / REFERENCE_IMAGES / view_name(view) / f"{shards.uid(*place)}.png"
    if not path.is_file():
        write_file_atomic(path, png(shards.views(*place, [ALL_VIEWS[view]])[0]))
    return path
