"""Distill images into textured 3D models: `python -m distill --image IMG ... --model MODEL --out OUT`."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import tyro

from dataset.errors import UserError, run_cli
from distill.config import DistillArgs
from distill.runs.job import Job, finished_faces, load, run
from distill.runs.plan import describe_images, plan_command, run_folder, run_names
from distill.runs.sequential import Outcome, in_turn, say, table
from distill.sds.checkpoint import CHECKPOINT
from train.device import pick_device


def main(args: DistillArgs) -> int:
    """Run the command line."""
    jobs, refused = plan_command(args)
    if args.dry_run:
        configs = [job.config for job in jobs] + [{"name": bad.name, "error": bad.reason} for bad in refused]
        print(json.dumps(configs[0] if args.is_single else configs, indent=2))
        return 1 if refused else 0
    for line in describe_images(jobs):
        print(line)
    workers = _workers(args)
    with _sigterm_is_ctrl_c():
        if args.is_single and args.address is None:
            return _run_one(jobs[0], args.device)
        return _run_many(jobs, refused, args, workers)


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_one(job: Job, device: str) -> int:
    if (faces := finished_faces(job)) is not None:
        print(f"{job.out} is finished ({faces} faces): nothing to do; remove its mesh.glb to have it made again")
        return 0
    where = pick_device(device)
    try:
        faces = run(job, lambda: load(job.model, where), where)
    except KeyboardInterrupt:
        if (job.out / CHECKPOINT).exists():
            print(f"\nstopped; {job.out / CHECKPOINT} holds the state run the same command to resume from there")
        raise
    print(f"{job.out / 'mesh.glb'}: {faces} faces; also turntable.mp4, views.png and field.safetensors in {job.out}")
    return 0


def _run_many(jobs: list[Job], refused: list[Outcome], args: DistillArgs, workers: int | None) -> int:
    ended = {bad.name: bad for bad in refused}
    for outcome in _outcomes(jobs, args, workers) if jobs else ():
        ended[outcome.name] = outcome
        say(outcome, run_folder(args, outcome.name))
    order = [name for _, _, name in run_names(args)]
    print(table([ended[name] for name in order]))
    statuses = Counter(outcome.status for outcome in ended.values())
    if statuses["stopped"]:
        raise KeyboardInterrupt
    return 1 if statuses["failed"] else 0


def _outcomes(jobs: list[Job], args: DistillArgs, workers: int | None) -> Iterator[Outcome]:
    if args.address is not None or min(workers or 1, len(jobs)) > 1:
        from distill.runs.ray_workers import on_workers

        return on_workers(jobs, args.device, workers, args.address)
    device = pick_device(args.device)
    return in_turn(jobs, cache(lambda: load(jobs[0].model, device)), device)


def _workers(args: DistillArgs) -> int | None:
    """How many runs at the same time; None where it is the cluster's to say."""
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers is {args.workers}; at least 1")
    if args.address is not None:
        return args.workers
    device = pick_device(args.device)
    if args.workers and args.workers > 1 and device.index is not None:
        raise UserError(f"--device {device} is one GPU, for {args.workers} workers; --device cuda gives each its own")
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    return args.workers or gpus


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(DistillArgs, prog="python -m distill")))
