"""Convert the options of a command to jobs: prepare the images, find the model and make the request of each run."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.images.background import Background, check_threshold
from dataset.images.prepare import Prepared, prepare_image
from dataset.io.option_checks import check_number, check_seed
from distill.config import DistillArgs, DistillRequest, Preset
from distill.mesh.export import FACE_LIMIT, FEWEST_FACES, TEXTURE_SIZES, Format
from distill.quality import QUALITIES, QualityName, TextureChoice
from distill.runs.job import Job
from distill.runs.sequential import RunOutcome
from distill.sds.schedule import PRESETS, DistillSettings
from distill.sds.texture_settings import texture_settings
from train.convert.resolve import model_folder
from train.layers.compile import CompileChoice
from train.model.multiview import read_spec
from train.model.recognition.table import KNOWN_FOLDER
from train.model.reference import check_reference_options

LARGEST_TINY: Final = 128  # image size up to which a model gets the preset `tiny`


@dataclass(frozen=True)
class PlannedInput:
    """The inputs of one run: its name, image, seed, run folder and the camera that took the image."""

    name: str
    image: Path
    seed: int
    out: Path
    elevation_deg: float
    reference_azimuth_deg: float | None = None
    """As in DistillRequest."""
    loss_azimuth_deg: float = 0.0
    """As in DistillRequest."""


@dataclass(frozen=True)
class SharedOptions:
    """Options that are the same for all runs of a command. None selects the default of the preset or of the model."""

    model: Path
    preset: Preset | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    reference_weight: float = 0.0
    preview_every: int | None = None
    formats: tuple[Format, ...] = ("glb",)
    compile: CompileChoice = "auto"
    background: Background = "auto"
    background_threshold: float | None = None
    quality: QualityName = "normal"
    texture: TextureChoice | None = None
    """None: that of the quality."""
    faces: int | None = None
    texture_size: int | None = None


def plan_command(args: DistillArgs) -> tuple[list[Job], list[RunOutcome]]:
    """Make the jobs of all runs of a command.

    Returns:
        The jobs, and a failed outcome for each run whose image cannot be used. If the command has a single run, the
        second list is empty, since an error is raised instead.

    Raises:
        UserError: an option is invalid, or the command has a single run and its image cannot be used.
    """
    _check_numbers(args)
    azimuth_deg = args.azimuth_deg if args.with_reference else None
    loss_azimuth_deg = args.azimuth_deg if args.reference_loss_weight else 0.0
    inputs = [
        PlannedInput(name, image, seed, run_folder(args, name), args.elevation_deg, azimuth_deg, loss_azimuth_deg)
        for image, seed, name in run_names(args)
    ]
    model = model_folder(args.model)
    read_spec(model)
    check_reference_options(
        model,
        with_reference=args.with_reference,
        azimuth_deg=args.azimuth_deg,
        with_reference_loss=args.reference_loss_weight > 0,
    )
    options = SharedOptions(
        model=args.model,
        preset=args.preset,
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        reference_weight=args.reference_loss_weight,
        preview_every=args.preview_every,
        formats=args.formats,
        compile=args.compile,
        texture=args.texture,
        quality=args.quality,
        background=args.background,
        background_threshold=args.background_threshold,
        faces=args.faces,
        texture_size=args.texture_size,
    )
    jobs, refused = plan_jobs(options, model, inputs)
    if args.is_single and refused:
        raise UserError(refused[0].reason)
    return jobs, refused


def _check_numbers(args: DistillArgs) -> None:
    check_number("--elevation-deg", args.elevation_deg, -90, 90)
    check_number("--azimuth-deg", args.azimuth_deg)
    check_number("--guidance-scale", args.guidance_scale)
    check_number("--reference-loss-weight", args.reference_loss_weight, 0)
    check_number("--steps", args.steps, 1)
    check_number("--preview-every", args.preview_every, 1)
    check_number("--num-seeds", args.num_seeds, 1)
    check_number("--faces", args.faces, FEWEST_FACES, FACE_LIMIT)
    check_number("--texture-size", args.texture_size, *TEXTURE_SIZES)
    check_threshold(args.background, args.background_threshold)
    check_seed("--seed", args.seed)
    check_seed("--seed + --num-seeds - 1", args.seed + args.num_seeds - 1)


def plan_jobs(
    options: SharedOptions, model: Path, inputs: Sequence[PlannedInput]
) -> tuple[list[Job], list[RunOutcome]]:
    """Make the jobs of several runs that have the same options.

    Args:
        options: Options that all runs share.
        model: The folder of the model that `options.model` names.
        inputs: The image, seed, run folder and camera of each run.

    Returns:
        The jobs, and a failed outcome for each run whose image cannot be used.

    Raises:
        UserError: the model folder or the settings are invalid.
    """
    spec = read_spec(model)
    preset = options.preset or default_preset(spec.image_size)
    settings = _settings(options, preset, spec.image_size)
    images = {each: _prepared(each, spec.image_size, options) for each in dict.fromkeys(run.image for run in inputs)}
    digest = model_digest(model)
    scale = spec.guidance_scale if options.guidance_scale is None else options.guidance_scale
    jobs, refused = [], []
    for run in inputs:
        prepared = images[run.image]
        if isinstance(prepared, UserError):
            refused.append(RunOutcome(run.name, "failed", reason=str(prepared)))
            continue
        request = DistillRequest(
            image_sha256=hashlib.sha256(prepared.rgba.tobytes()).hexdigest(),
            model_sha256=digest,
            preset=preset,
            elevation_deg=run.elevation_deg,
            guidance_scale=scale,
            settings=replace(settings, seed=run.seed),
            reference_azimuth_deg=run.reference_azimuth_deg,
            loss_azimuth_deg=run.loss_azimuth_deg,
        )
        jobs.append(
            Job(
                name=run.name,
                image=run.image,
                prepared=prepared,
                out=run.out,
                model=model,
                model_name=str(options.model),
                request=request,
                formats=tuple(dict.fromkeys(("glb", *options.formats))),
                faces=options.faces,
                texture_size=options.texture_size,
                background=options.background,
                background_threshold=options.background_threshold,
                compile=options.compile,
            )
        )
    return jobs, refused


def describe_images(jobs: Iterable[Job]) -> list[str]:
    """Return lines of text, for the user, about the input images of jobs.

    The lines of an image are notices about its content, then a line on how it was cropped and scaled for the model.
    """
    lines = []
    for image, prepared in {job.image: job.prepared for job in jobs}.items():
        lines += [f"note: {notice}" for notice in prepared.notices]
        lines.append(f"{image}: {prepared.framing}")
    return lines


def run_names(args: DistillArgs) -> list[tuple[Path, int, str]]:
    """Return (image, seed, name) of every run of a command.

    Raises:
        UserError: the command has no run, or two runs would have the same name and therefore the same folder.
    """
    if not args.image or args.num_seeds < 1:
        raise UserError(
            f"the command has no run: it has {len(args.image)} images and --num-seeds {args.num_seeds}; give at least "
            "one image, and a --num-seeds of at least 1"
        )
    if args.is_single:
        return [(args.image[0], args.seed, args.image[0].stem)]
    for image in args.image:
        same = [other for other in args.image if other.stem.casefold() == image.stem.casefold()]
        if len(same) > 1:
            raise UserError(
                f"the images {' and '.join(map(str, same))} would share the run folder {image.stem}-seed-{args.seed}; "
                "give each image once, rename one of them, or distill them with two commands, each with its own --out"
            )
    seeds = range(args.seed, args.seed + args.num_seeds)
    return [(image, seed, f"{image.stem}-seed-{seed}") for image in args.image for seed in seeds]


def run_folder(args: DistillArgs, name: str) -> Path:
    """Return the folder of the run called `name`.

    This is --out if the command has a single run, otherwise the folder `name` in --out.
    """
    if args.is_single:
        return args.out or Path("out") / name
    return (args.out or Path("out")) / name


def default_preset(image_size: int) -> Preset:
    """Return the preset that is used without --preset, for a model whose images have an edge of `image_size` pixels."""
    return "tiny" if image_size <= LARGEST_TINY else "paper"


def model_digest(folder: Path) -> str:
    """Return a SHA-256 (hexadecimal) of the weights and the table of known objects in a model folder."""
    parts = ("unet", "vae", "image_tower", "image_encoder", KNOWN_FOLDER)
    paths = [(part, path) for part in parts for path in sorted((folder / part).glob("*"))]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashing does not hold the GIL
        for (part, path), of_file in zip(paths, pool.map(_file_digest, [path for _, path in paths]), strict=True):
            digest.update(f"{part}/{path.name}".encode() + of_file)
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def preset_settings(preset: Preset, image_size: int, texture: TextureChoice = "auto") -> DistillSettings:
    """Return the settings of a preset for a model whose images have an edge of `image_size` pixels.

    Args:
        preset: The preset.
        image_size: Edge of the model's images in pixels.
        texture: Whether there is a texture phase; auto: only with the preset tiny.
    """
    textured = texture == "on" or (texture == "auto" and preset == "tiny")
    return replace(PRESETS[preset], texture=texture_settings(image_size) if textured else None)


def _settings(options: SharedOptions, preset: Preset, image_size: int) -> DistillSettings:
    quality = QUALITIES[options.quality]
    settings = preset_settings(preset, image_size, options.texture or quality.texture)
    return replace(
        settings,
        steps=quality.steps(settings.steps) if options.steps is None else options.steps,
        preview_every=settings.preview_every if options.preview_every is None else options.preview_every,
        reference_weight=options.reference_weight,
    )


def _prepared(image: Path, size: int, options: SharedOptions) -> Prepared | UserError:
    """Prepare an image for the model at an edge of `size` pixels; return the error if the image cannot be used."""
    try:
        return prepare_image(
            image, size, background=options.background, background_threshold=options.background_threshold
        )
    except UserError as error:
        return error
