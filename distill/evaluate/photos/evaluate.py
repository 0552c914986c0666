"""Evaluate real images: sample, distill, render, let the judge name all of these, and write the results."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch

from dataset.errors import UserError
from dataset.io.lock import locked_folder
from dataset.io.option_checks import part_slice
from dataset.reading.labels import read_object_labels
from distill.evaluate.photos.class_bank import FittedRules, fit_rules, open_bank, select_renders
from distill.evaluate.photos.config import PhotoEvaluationArgs, check_args
from distill.evaluate.photos.images import LabelledImage, read_images, select_images
from distill.evaluate.photos.judge import Judge, load_judge, weights_file
from distill.evaluate.photos.report import ASSET, INPUT, SAMPLES, ImageResult, Naming, Stage, write_photo_report
from distill.evaluate.photos.rules import RuleName, ranking
from distill.evaluate.photos.views import SamplingSettings, read_strip, render_all, sample_all, write_strip
from distill.runs.job import Job, load_run_model
from distill.runs.plan import PlannedInput, SharedOptions, describe_images, plan_jobs
from distill.runs.sequential import RunOutcome, log_outcome, run_sequentially
from train.convert.resolve import file_sha256, model_folder
from train.device import pick_device
from train.evaluate.selection import open_images
from train.model.multiview import MultiViewModel, read_spec

RUNS: Final = "runs"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Views:
    """The PNG files of an image, by stage; a stage is missing if it failed or was not asked for."""

    image: LabelledImage
    files: Mapping[Stage, Path]
    failure: str = ""


def evaluate_photos(args: PhotoEvaluationArgs) -> tuple[int, str]:
    """Evaluate labelled images and write the results.

    Returns:
        The exit status, 1 if an image could not be used or distilled, otherwise 0, and a text for the command to print.

    Raises:
        UserError: an option is invalid, or a file cannot be read.
        KeyboardInterrupt: a distillation was stopped. A repeated command resumes it.
    """
    check_args(args)
    sets = [open_images(url) for url in args.shards]
    renders = select_renders(sets, read_object_labels(args.labels), args.objects_per_kind)
    kinds = {each.kind for each in renders}
    matching = select_images(read_images(args.images), args.files)
    images = [each for each in matching if each.label in kinds][: args.max_images]
    left_out = [each for each in matching if each.label not in kinds]
    if not images:
        raise UserError(
            f"the judge knows none of the kinds of the {len(left_out)} images, such as {left_out[0].label}; give "
            "--shards with objects of these kinds"
        )
    images = images[part_slice(args.part)]
    if args.part and not images:
        return 0, f"part {args.part} has no image"
    if args.dry_run:
        lines = [f"would evaluate: {each.path} ({each.label})" for each in images]
        return 0, "\n".join([*lines, f"{len(images)} images; the judge knows {len(kinds)} kinds"])
    if args.part:
        results = _make_views(args, images, pick_device(args.device))
        done = sum(not each.failure for each in results)
        return int(done < len(results)), f"part {args.part}: {done} of {len(results)} images are done"
    weights = args.judge_weights or weights_file(args.judge)
    device = pick_device(args.device)
    with locked_folder(args.out, "evaluation"):
        judge = load_judge(args.judge, weights, device)
        bank = open_bank(judge, renders, args.views_per_object, args.out, file_sha256(weights))
        rules = fit_rules(bank, device)
        named = _named(judge, rules, bank.renders.kinds, _make_views(args, images, device))
        text = write_photo_report(args, named, rules, left_out, objects=bank.objects, renders=len(bank.uids))
    return 1 if any(each.failure for each in named) else 0, text


def _make_views(args: PhotoEvaluationArgs, images: Sequence[LabelledImage], device: torch.device) -> list[_Views]:
    folder = model_folder(args.model)
    options = SharedOptions(args.model, args.preset, args.steps, args.guidance_scale)
    names = {f"{image.name}-seed-{args.seed}": image for image in images}  # as `python -m distill` names its runs
    inputs = [
        PlannedInput(name, image.path, args.seed, args.out / RUNS / name, args.elevation_deg)
        for name, image in names.items()
    ]
    jobs, outcomes = plan_jobs(options, folder, inputs)
    for line in describe_images(jobs):
        logger.debug("%s", line)
    loaded = cache(lambda: load_run_model(folder, device))
    sampled = sample_all(jobs, loaded, SamplingSettings(args.ddim_steps, device), args.out / SAMPLES)
    rendered: Mapping[str, Path] = {}
    if not args.samples_only:
        for outcome in _distilled(jobs, loaded, args, device):
            outcomes.append(outcome)
            log_outcome(outcome, args.out / RUNS / outcome.name)
        if any(outcome.status == "stopped" for outcome in outcomes):
            raise KeyboardInterrupt
        failed = {outcome.name for outcome in outcomes if outcome.status == "failed"}
        finished = [job for job in jobs if job.name not in failed]
        rendered = render_all(finished, read_spec(folder).image_size, device, args.out / ASSET)
    for job in jobs:
        rgb = np.rint(job.prepared.rgb * 255).astype(np.uint8)
        write_strip(args.out / INPUT / f"{job.name}.png", rgb[None])
    reasons = {outcome.name: outcome.reason for outcome in outcomes if outcome.status == "failed"}
    stages: dict[Stage, Mapping[str, Path]] = {
        INPUT: {job.name: args.out / INPUT / f"{job.name}.png" for job in jobs},
        SAMPLES: sampled,
        ASSET: rendered,
    }
    return [
        _Views(image, {stage: files[name] for stage, files in stages.items() if name in files}, reasons.get(name, ""))
        for name, image in names.items()
    ]


def _distilled(
    jobs: Sequence[Job], loaded: Callable[[], MultiViewModel], args: PhotoEvaluationArgs, device: torch.device
) -> Iterator[RunOutcome]:
    if min(args.workers or 1, len(jobs)) > 1:
        from distill.runs.ray_workers import on_workers

        return on_workers(jobs, args.device, args.workers, None)
    return run_sequentially(jobs, loaded, device)


def _named(judge: Judge, rules: FittedRules, kinds: Sequence[str], views: Sequence[_Views]) -> list[ImageResult]:
    """Let the judge name the views of each image by every rule. It receives pixels only."""
    results = []
    for each in views:
        namings: dict[tuple[Stage, RuleName], Naming] = {}
        for stage, path in each.files.items():
            features = judge.features(read_strip(path).astype(np.float32) / 255)
            for rule, score in rules.scores.items():
                order = [kinds[i] for i in ranking(score, features)]
                namings[stage, rule] = Naming(tuple(order[:3]), order.index(each.image.label) + 1)
        results.append(ImageResult(each.image, each.files, namings, each.failure))
    return results
