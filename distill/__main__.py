"""Pictures in, textured 3D models out: `python -m distill --image IMG ... --model MODEL --out OUT`."""

import hashlib
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.images.prepare import Prepared, prepare_image
from distill.mesh.export import Format
from distill.runs.job import Job, Preset, finished_faces, load, run
from distill.runs.sequential import Outcome, in_turn, say, table
from distill.sds.checkpoint import CHECKPOINT
from distill.sds.schedule import PRESETS
from train.convert.resolve import model_folder
from train.device import pick_device
from train.layers.compile import CompileChoice
from train.model.multiview import EMBEDDED_MODEL, read_spec
from train.model.reference import check_reference_options

LARGEST_TINY: Final = 64  # image size up to which a model gets the preset `tiny`


@dataclass(frozen=True)
class Args:
    """Distil pictures into textured meshes. The same command resumes what was interrupted and skips what is finished.

    A run's folder gets mesh.glb, turntable.mp4, views.png, field.safetensors, config.json, input.png, previews/ and a
    checkpoint. Several pictures or seeds are several runs: one that fails does not stop the others, a table at the end
    says how each ended, and the exit status is 1 if any failed. They run one after the other on one GPU or a CPU, and
    side by side where there are more GPUs or --workers.
    """

    image: tuple[Path, ...]
    """The picture, or several: each best an RGBA cut-out of one object, or one on white, seen from its front."""
    model: Path = EMBEDDED_MODEL
    """A model folder, as training or train.convert writes it, a checkpoint file, or a Hub name."""
    out: Path | None = None
    """The folder of a run, out/NAME when left out; of several, where each gets NAME-seed-K, out when left out."""
    preset: Preset | None = None
    """The settings to start from; left out, tiny for models of 64-pixel pictures and paper for larger ones."""
    steps: int | None = None
    """Number of steps, with which all schedules stretch; left out, the preset's."""
    seed: int = 0
    """Everything random follows from it."""
    seeds: int = 1
    """How many seeds to run for every picture: SEED, SEED + 1, and so on."""
    elevation_deg: float = 15.0
    """How far from above the pictures were taken; 15 is the middle of the training views' -10 to 40."""
    guidance_scale: float | None = None
    """Classifier-free guidance: how far to go beyond the unconditional prediction; left out, the model's."""
    with_reference: bool = False
    """Show the model the picture itself as stage 2 did, a clean frame beside the views; without, as in the paper, its
    embedding alone is the guide."""
    azimuth_deg: float = 0.0
    """With --with-reference, for models with absolute camera labels: how far around the object's front, in degrees
    towards its left (Blender's +x is 90), the picture was taken."""
    reference_weight: float = 0.0
    """Weight of an L2 loss on colour and mask at the reference view (0: none, as in the paper)."""
    formats: tuple[Format, ...] = ("glb",)
    """Files to write: glb always; obj adds NAME.obj, .mtl and .png; ply coloured vertices; points a point cloud."""
    compile: CompileChoice = "auto"
    """Compile the networks, whole or blocks: minutes at the start, twice as fast after. auto: whole on a GPU for runs
    of 3,000 steps or more, none otherwise."""
    remove_background: bool = False
    """Cut the object out with rembg (an optional extra)."""
    preview_every: int | None = None
    """Steps between previews, sheets of four views in previews/; left out, the preset's."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    workers: int | None = None
    """Runs at the same time, each in a process of its own; left out, one a GPU, and one on a CPU."""
    address: str | None = None
    """A Ray cluster to run on, such as auto, that shares the storage of MODEL and OUT; left out, this machine."""
    dry_run: bool = False
    """Print the settings of the run as JSON, or of several as a list, and stop."""


def main(args: Args) -> int:
    """Run the command line."""
    jobs, refused = plan_jobs(args)
    if args.dry_run:
        configs = [job.config for job in jobs] + [{"name": bad.name, "error": bad.reason} for bad in refused]
        print(json.dumps(configs[0] if _is_one(args) else configs, indent=2))
        return 1 if refused else 0
    workers = _workers(args)
    with _sigterm_is_ctrl_c():
        if _is_one(args) and args.address is None:
            return _run_one(jobs[0], args.device)
        return _run_many(jobs, refused, args, workers)


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_one(args: Args) -> bool:
    return len(args.image) == 1 and args.seeds == 1


def _run_one(job: Job, device: str) -> int:
    if (faces := finished_faces(job)) is not None:
        print(f"{job.out} is finished ({faces} faces): nothing to do; remove its mesh.glb to have it made again")
        return 0
    where = pick_device(device)
    try:
        faces = run(job, lambda: load(job.model, where), where)
    except KeyboardInterrupt:
        if (job.out / CHECKPOINT).exists():
            print(f"\nstopped; {job.out / CHECKPOINT} holds the state and the same command goes on from there")
        raise
    print(f"{job.out / 'mesh.glb'}: {faces} faces; also turntable.mp4, views.png and field.safetensors in {job.out}")
    return 0


def _run_many(jobs: list[Job], refused: list[Outcome], args: Args, workers: int | None) -> int:
    ended = {bad.name: bad for bad in refused}
    for outcome in _outcomes(jobs, args, workers) if jobs else ():
        ended[outcome.name] = outcome
        say(outcome, _folder(args, outcome.name))
    order = [name for _, _, name in _names(args)]
    print(table([ended[name] for name in order]))
    statuses = Counter(outcome.status for outcome in ended.values())
    if statuses["stopped"]:
        raise KeyboardInterrupt
    return 1 if statuses["failed"] else 0


def _outcomes(jobs: list[Job], args: Args, workers: int | None) -> Iterator[Outcome]:
    if args.address is not None or min(workers or 1, len(jobs)) > 1:
        from distill.runs.ray_workers import on_workers

        return on_workers(jobs, args.device, workers, args.address)
    device = pick_device(args.device)
    return in_turn(jobs, cache(lambda: load(jobs[0].model, device)), device)


def _workers(args: Args) -> int | None:
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


def plan_jobs(args: Args) -> tuple[list[Job], list[Outcome]]:
    """The runs, and those of several whose picture cannot be used. What holds for all is a UserError."""
    if not -90 <= args.elevation_deg <= 90:
        raise UserError(f"--elevation-deg is {args.elevation_deg}; it lies between -90 and 90")
    if args.preview_every is not None and args.preview_every < 1:
        raise UserError(f"--preview-every is {args.preview_every}; at least 1 step")
    named = _names(args)
    model = model_folder(args.model)
    spec = read_spec(model)
    check_reference_options(model, with_reference=args.with_reference, azimuth_deg=args.azimuth_deg)
    preset: Preset = args.preset or ("tiny" if spec.image_size <= LARGEST_TINY else "paper")
    settings = PRESETS[preset]
    settings = replace(
        settings,
        seed=args.seed,
        steps=settings.steps if args.steps is None else args.steps,
        preview_every=settings.preview_every if args.preview_every is None else args.preview_every,
        reference_weight=args.reference_weight,
    )
    pictures = {image: _prepared(args, image, spec.image_size) for image in args.image}
    digest = _folder_digest(model)
    scale = spec.guidance_scale if args.guidance_scale is None else args.guidance_scale
    jobs, refused = [], []
    for image, seed, name in named:
        picture = pictures[image]
        if isinstance(picture, UserError):
            refused.append(Outcome(name, "failed", reason=str(picture)))
            continue
        jobs.append(
            Job(
                name=name,
                image=image,
                prepared=picture,
                image_sha256=hashlib.sha256(picture.rgba.tobytes()).hexdigest(),
                out=_folder(args, name),
                model=model,
                model_name=str(args.model),
                model_sha256=digest,
                preset=preset,
                settings=replace(settings, seed=seed),
                elevation_deg=args.elevation_deg,
                guidance_scale=scale,
                formats=args.formats,
                compile=args.compile,
                shown_from_deg=args.azimuth_deg if args.with_reference else None,
            )
        )
    return jobs, refused


def _names(args: Args) -> list[tuple[Path, int, str]]:
    """(picture, seed, name) of every run. Raises UserError where two runs would share a name, hence a folder."""
    if not args.image or args.seeds < 1:
        raise UserError(f"--image names at least one picture, and --seeds ({args.seeds}) is at least 1")
    if _is_one(args):
        return [(args.image[0], args.seed, args.image[0].stem)]
    for image in args.image:
        same = [other for other in args.image if other.stem.casefold() == image.stem.casefold()]
        if len(same) > 1:
            raise UserError(
                f"{' and '.join(map(str, same))} would share the folder {image.stem}-seed-{args.seed}: name each once, "
                "rename one, or run them in two commands with another --out each"
            )
    seeds = range(args.seed, args.seed + args.seeds)
    return [(image, seed, f"{image.stem}-seed-{seed}") for image in args.image for seed in seeds]


def _folder(args: Args, name: str) -> Path:
    if _is_one(args):
        return args.out or Path("out") / name
    return (args.out or Path("out")) / name


def _prepared(args: Args, image: Path, size: int) -> Prepared | UserError:
    """The picture, of which is said what the model will see; among several one that cannot be used is told later."""
    try:
        prepared = prepare_image(image, size, remove_background=args.remove_background)
    except UserError as error:
        if _is_one(args):
            raise
        return error
    if not args.dry_run:
        for notice in prepared.notices:
            print(f"note: {notice}")
        print(f"{image}: {prepared.framing}")
    return prepared


def _folder_digest(folder: Path) -> str:
    """SHA-256 of the digests of a model's files: another model under the same name must not continue a run."""
    digest = hashlib.sha256()
    for part in ("unet", "vae", "image_tower", "image_encoder"):
        for path in sorted((folder / part).glob("*")):
            with path.open("rb") as file:
                digest.update(f"{part}/{path.name}".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(Args, prog="python -m distill")))
