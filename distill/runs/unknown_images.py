"""Warn about images that are unlike anything the model was trained on, before their runs start."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from distill.runs.finished import CONFIG
from distill.runs.job import Job
from distill.sds.checkpoint import CHECKPOINT
from train.model.recognition.recognize import unknown_warnings

logger = logging.getLogger(__name__)


def with_unknown_warnings(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs, with a warning in each unfinished job whose image is unlike the model's training images.

    Each warning is logged once per image, but not if all runs with the image are being resumed and stored the warning
    when they started.

    Args:
        jobs: Jobs with the same model.

    Raises:
        UserError: the model's table of known objects is damaged, or belongs to another image encoder.
    """
    images = {job.image: job.prepared.rgb for job in jobs if job.needs_model}
    if not images:
        return list(jobs)
    found = unknown_warnings(jobs[0].model, [(str(image), rgb) for image, rgb in images.items()])
    warnings = {image: warning for image, warning in zip(images, found, strict=True) if warning is not None}
    changed = [
        replace(job, warnings=(*job.warnings, warnings[job.image]))
        if job.image in warnings and job.needs_model
        else job
        for job in jobs
    ]
    for image, warning in warnings.items():
        if not all(_is_stored(job) for job in changed if job.image == image and job.needs_model):
            logger.warning("%s", warning)
    return changed


def _is_stored(job: Job) -> bool:
    """Return whether the job resumes a run whose config.json has the job's warnings already."""
    if not (job.out / CHECKPOINT).is_file():
        return False
    try:
        config = json.loads((job.out / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return bool(config.get("warnings") == list(job.warnings))
