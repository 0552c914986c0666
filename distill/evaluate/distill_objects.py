"""Objects of a shard set distilled from one view each, by the functions behind `python -m distill`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dataset.format.schema import VIEWS_PER_SET
from dataset.io.files import write_file_atomic
from dataset.reading.shard_set import ShardSet
from distill.evaluate.ground_truth import VIEWS, Place, view_name
from distill.mesh.formats import png
from distill.runs.job import load_run_model
from distill.runs.plan import PlannedInput, SharedOptions, describe_images, plan_jobs
from distill.runs.sequential import log_outcome, outcome_table, run_sequentially
from train.device import pick_device
from train.evaluate.novel_views import reference_index

REFERENCES = "references"  # folder of the pictures that are distilled, within --out


@dataclass(frozen=True)
class ObjectDistillation:
    """How the objects are distilled."""

    options: SharedOptions
    model: Path
    """The model folder behind `options.model`."""
    seed: int
    device: str
    with_reference: bool = False
    """Whether the model is conditioned on the images themselves."""


def reference_view(uid: str) -> int:
    """The view (of asset_truth.VIEWS) that is distilled when nothing else is asked: `train.evaluate`'s reference."""
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
    """Distill each object from its image; finished runs are skipped and interrupted ones resumed.

    The elevation of each view, and its azimuth if the model is conditioned on the image, come from the shard set.

    Args:
        settings: What all runs have in common.
        shards: The shard set that holds the objects.
        objects: Position of each object, by uid.
        views: The view each object is distilled from, by uid.
        images: That view as a file, by uid.
        out: Folder that receives a run folder per uid.

    Returns:
        The folders of the finished runs by uid, and why others failed by uid.

    Raises:
        UserError: the model or the settings are invalid.
        KeyboardInterrupt: a run was stopped.
    """
    inputs = []
    for uid, place in objects.items():
        elevation_deg, azimuth_deg = map(float, shards.angles_deg(*place, [VIEWS[views[uid]]])[0])
        azimuth = azimuth_deg if settings.with_reference else None
        inputs.append(PlannedInput(uid, images[uid], settings.seed, out / uid, elevation_deg, azimuth))
    jobs, ended = plan_jobs(settings.options, settings.model, inputs)
    for line in describe_images(jobs):
        print(line)
    device = pick_device(settings.device)
    for outcome in run_sequentially(jobs, cache(lambda: load_run_model(jobs[0].model, device)), device):
        ended.append(outcome)
        log_outcome(outcome, out / outcome.name)
    statuses = {outcome.status for outcome in ended}
    if statuses & {"failed", "stopped"}:
        print(outcome_table(ended))
    if "stopped" in statuses:
        raise KeyboardInterrupt
    failed = {outcome.name: outcome.reason for outcome in ended if outcome.status == "failed"}
    return {uid: out / uid for uid in objects if uid not in failed}, failed


def write_reference_images(
    shards: ShardSet, objects: Mapping[str, Place], views: Mapping[str, int], out: Path
) -> dict[str, Path]:
    """Write the view of each object as a PNG file, unless it exists; the files by uid."""
    return {uid: _write_image(shards, place, views[uid], out) for uid, place in objects.items()}


def _write_image(shards: ShardSet, place: Place, view: int, out: Path) -> Path:
    path = out / REFERENCES / view_name(view) / f"{shards.uid(*place)}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = png(shards.views(*place, [VIEWS[view]])[0])
        write_file_atomic(path, data)
    return path
