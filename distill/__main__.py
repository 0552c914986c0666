"""Distill images into textured 3D models: `python -m distill --image IMG ... --model MODEL --out OUT`."""

import json
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Final

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.images.background import RENAMED as RENAMED_BACKGROUND
from dataset.images.decode import image_files
from dataset.io.old_flags import rename_old_flags
from distill.config import DistillArgs
from distill.runs.job import Job, load_run_model, run_job
from distill.runs.plan import describe_images, plan_command, run_folder, run_names
from distill.runs.sequential import RunOutcome, log_outcome, outcome_table, run_sequentially
from distill.runs.unknown_images import with_unknown_warnings
from distill.sds.checkpoint import CHECKPOINT
from train.device import pick_device

logger = logging.getLogger(__name__)

RENAMED: Final = {
    "--seeds": "--num-seeds",
    "--reference-weight": "--reference-loss-weight",
    **RENAMED_BACKGROUND,
}


def parse_args(argv: Sequence[str]) -> DistillArgs:
    """Return the options in `argv`, the command line without the program name.

    Options that were renamed can also be given under their old names.
    """
    return tyro.cli(DistillArgs, prog="python -m distill", args=rename_old_flags(argv, RENAMED))


def main(args: DistillArgs) -> int:
    """Distill all images of the command. Return the exit status: 1 if one of several runs failed, otherwise 0.

    Raises:
        UserError: an option is invalid, or the command has a single run and this run failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM stopped the runs, after each started run wrote a checkpoint.
    """
    args = replace(args, image=image_files(args.image))
    jobs, refused = plan_command(args)
    if args.dry_run:
        configs = [job.config for job in jobs] + [{"name": bad.name, "error": bad.reason} for bad in refused]
        print(json.dumps(configs[0] if args.is_single else configs, indent=2))
        return 1 if refused else 0
    for line in describe_images(jobs):
        logger.info("%s", line)
    workers = _workers(args)
    jobs = with_unknown_warnings(jobs)
    with _sigterm_as_ctrl_c():
        if args.is_single and args.address is None:
            return _run_one(jobs[0], args.device)
        return _run_many(jobs, refused, args, workers)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_one(job: Job, device: str) -> int:
    if (faces := job.finished_faces) is not None:
        print(f"{job.out} is already finished ({faces} faces); remove its mesh.glb to run it again")
        return 0
    torch_device = pick_device(device)
    try:
        faces = run_job(job, lambda: load_run_model(job.model, torch_device), torch_device)
    except KeyboardInterrupt:
        if (job.out / CHECKPOINT).exists():
            logger.info("stopped; the state is saved in %s; run the same command to resume", job.out / CHECKPOINT)
        raise
    print(f"{job.out / 'mesh.glb'}: {faces} faces; also turntable.mp4, views.png and field.safetensors in {job.out}")
    return 0


def _run_many(jobs: list[Job], refused: list[RunOutcome], args: DistillArgs, workers: int | None) -> int:
    ended = {bad.name: bad for bad in refused}
    for outcome in _outcomes(jobs, args, workers) if jobs else ():
        ended[outcome.name] = outcome
        log_outcome(outcome, run_folder(args, outcome.name))
    order = [name for _, _, name in run_names(args)]
    print(outcome_table([ended[name] for name in order]))
    statuses = Counter(outcome.status for outcome in ended.values())
    if statuses["stopped"]:
        raise KeyboardInterrupt
    return 1 if statuses["failed"] else 0


def _outcomes(jobs: list[Job], args: DistillArgs, workers: int | None) -> Iterator[RunOutcome]:
    if args.address is not None or min(workers or 1, len(jobs)) > 1:
        from distill.runs.ray_workers import on_workers

        return on_workers(jobs, args.device, workers, args.address)
    device = pick_device(args.device)
    return run_sequentially(jobs, cache(lambda: load_run_model(jobs[0].model, device)), device)


def _workers(args: DistillArgs) -> int | None:
    """Return the number of runs to execute at the same time; None to use all GPUs of the cluster of --address."""
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers is {args.workers}, but at least 1 worker is needed; give a larger number")
    if args.address is not None:
        return args.workers
    device = pick_device(args.device)
    if args.workers and args.workers > 1 and device.index is not None:
        raise UserError(
            f"--device {device} selects a single GPU, but --workers {args.workers} needs several; give --device cuda "
            "to use one GPU per worker, or leave out --workers"
        )
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    return args.workers or gpus


if __name__ == "__main__":
    run_cli(lambda: main(parse_args(sys.argv[1:])))
