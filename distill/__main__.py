"""Distill images into textured 3D models: `python -m distill --image IMG ... --model MODEL --out OUT`."""

import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.images.background import RENAMED as RENAMED_BACKGROUND
from dataset.images.decode import image_files
from dataset.io.old_flags import rename_old_flags
from distill.config import DistillArgs
from distill.runs.job import Job, load_run_model, run_job
from distill.runs.plan import describe_images, plan_command, run_folder
from distill.runs.report import CommandReport
from distill.runs.sequential import RunOutcome, RunStatus, log_outcome, outcome_table, run_sequentially
from distill.runs.unknown_images import with_unknown_warnings
from distill.sds.checkpoint import CHECKPOINT
from distill.view.browser import open_in_browser
from distill.view.files import write_pages
from train.device import pick_device

logger = logging.getLogger(__name__)

PAGE: Final = "page.html"
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
    report = CommandReport(args)
    try:
        status = _distill(args, report)
    except KeyboardInterrupt:
        _print_json(report, "stopped", "interrupted; run the same command again to resume")
        raise
    except Exception as error:
        _print_json(report, "failed", str(error) if isinstance(error, UserError) else repr(error))
        raise
    _print_json(report)
    return status


def _print_json(report: CommandReport, status: RunStatus = "done", reason: str = "") -> None:
    if report.args.json and not report.args.dry_run:
        print(report.line(status, reason), flush=True)


def _say(args: DistillArgs, text: str) -> None:
    """Print a result, or log it if stdout is for the JSON."""
    if args.json:
        logger.info("%s", text)
    else:
        print(text)


def _distill(args: DistillArgs, report: CommandReport) -> int:
    args = replace(args, image=image_files(args.image))
    report.plan(args)
    jobs, refused = plan_command(args)
    if args.dry_run:
        configs = [job.config for job in jobs] + [{"name": bad.name, "error": bad.reason} for bad in refused]
        print(json.dumps(configs[0] if args.is_single else configs, indent=None if args.json else 2))
        return 1 if refused else 0
    for line in describe_images(jobs):
        logger.info("%s", line)
    workers = _workers(args)
    report.jobs = jobs = with_unknown_warnings(jobs)
    for bad in refused:
        report.end(bad)
    with _sigterm_as_ctrl_c():
        if args.is_single and args.address is None:
            status = _run_one(jobs[0], args, report)
        else:
            status = _run_many(jobs, args, report, workers)
    if args.open:
        _open_page(args, report)
    return status


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_one(job: Job, args: DistillArgs, report: CommandReport) -> int:
    if (faces := job.finished_faces) is not None:
        report.end(RunOutcome(job.name, "skipped", faces=faces))
        _say(
            args,
            f"{job.out} is already finished ({faces} faces); remove its mesh.glb to run it again, or give other "
            "--faces, --texture-size or --formats to make only its mesh again",
        )
        return 0
    torch_device, started = pick_device(args.device), time.monotonic()
    try:
        faces = run_job(job, lambda: load_run_model(job.model, torch_device), torch_device)
    except KeyboardInterrupt:
        if (job.out / CHECKPOINT).exists():
            logger.info("stopped; the state is saved in %s; run the same command to resume", job.out / CHECKPOINT)
        raise
    report.end(RunOutcome(job.name, "done", time.monotonic() - started, faces))
    _say(
        args, f"{job.out / 'mesh.glb'}: {faces} faces; also turntable.mp4, views.png and field.safetensors in {job.out}"
    )
    return 0


def _run_many(jobs: Sequence[Job], args: DistillArgs, report: CommandReport, workers: int | None) -> int:
    for outcome in _outcomes(jobs, args, workers) if jobs else ():
        report.end(outcome)
        log_outcome(outcome, run_folder(args, outcome.name))
    _say(args, outcome_table(report.outcomes))
    statuses = Counter(outcome.status for outcome in report.outcomes)
    if statuses["stopped"]:
        raise KeyboardInterrupt
    return 1 if statuses["failed"] else 0


def _open_page(args: DistillArgs, report: CommandReport) -> None:
    """Write the page of the results and open it. A problem with it does not make the command fail."""
    folders = report.finished_folders()
    if not folders:
        return
    page = (folders[0] if args.is_single else args.out or Path("out")) / PAGE
    try:
        write_pages(folders, page)
    except (UserError, OSError) as error:
        logger.warning("the page %s cannot be written: %s", page, error)
        return
    open_in_browser(page.absolute().as_uri())


def _outcomes(jobs: Sequence[Job], args: DistillArgs, workers: int | None) -> Iterator[RunOutcome]:
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
            f"--device {device} selects one GPU, which --workers {args.workers} does not support; give --device cuda "
            f"to use all GPUs, and set CUDA_VISIBLE_DEVICES={device.index} to use only this one"
        )
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    return args.workers or gpus


if __name__ == "__main__":
    run_cli(lambda: main(parse_args(sys.argv[1:])))
