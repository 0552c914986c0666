"""The options of `python -m distill.evaluate.photos`."""

from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from dataset.io.option_checks import check_number, check_seed, part_slice
from dataset.io.options import HiddenDefault
from distill.config import Preset
from distill.evaluate.photos.judge import JudgeName
from train.model.ddim import ddim_timesteps
from train.model.multiview import BUNDLED_MODEL


@dataclass(frozen=True)
class PhotoEvaluationArgs:
    """Measure on labelled images how often sampled views and assets show the right kind of object.

    A network that took no part in training names the object in the image, in views sampled from it, and in renders of
    the asset distilled from it.
    """

    images: Path = Path("data/photos")
    """Folder of images with a labels.csv (columns file, label, known, style), as python -m examples.photos makes it.
    Images of known kinds are evaluated, that is those with `yes` in the column known."""
    shards: tuple[str, ...] = ("data/shards",)
    """Shard sets (folders or fsspec URLs) whose renders teach the judge the kinds. The uids of procedural objects
    contain the kind; --labels gives the kinds of other objects. Objects of unknown kind are left out."""
    labels: HiddenDefault[tuple[Path, ...]] = ()
    """CSV files with the columns uid and label, such as labels.csv of python -m examples.furniture."""
    model: Path = BUNDLED_MODEL
    """Model folder, checkpoint file or Hub name."""
    files: HiddenDefault[tuple[str, ...]] = ()
    """Patterns of file names to evaluate, such as "animals-*". Default: all."""
    max_images: HiddenDefault[int | None] = None
    """Maximum number of images: first one image of each kind, then a second one, and so on. Default: all."""
    samples_only: bool = False
    """Sample views but distill no assets."""
    preset: HiddenDefault[Preset | None] = None
    """As in python -m distill."""
    steps: HiddenDefault[int | None] = None
    """Number of distillation steps, as in python -m distill."""
    seed: int = 0
    """Seed of sampling and of distillation."""
    elevation_deg: float = 15.0
    """Assumed elevation of the camera that took the images, in degrees, as in python -m distill."""
    guidance_scale: HiddenDefault[float | None] = None
    """Classifier-free guidance scale of sampling and of distillation. Default: the model's."""
    ddim_steps: int = 50
    """Number of DDIM steps to sample the views."""
    judge: JudgeName = "lite2"
    """Network that names the images: EfficientNet-Lite2 or -Lite0. Choose the one that the model was not trained
    from."""
    judge_weights: HiddenDefault[Path | None] = None
    """Weights of the judge, the .pth file of its package. Default: the file in the installed package."""
    objects_per_kind: int = 60
    """Maximum number of rendered objects per kind that the judge learns from."""
    views_per_object: int = 4
    """Number of random views of each of these objects, 1 to 16."""
    workers: HiddenDefault[int | None] = None
    """Number of distillations in parallel, as in python -m distill. Default: one."""
    part: HiddenDefault[str | None] = None
    """I/N: only sample and distill every N-th image from the I-th, without a report. N processes on one GPU, each with
    another I and the same --out, share the work; then the same command without this option writes the report."""
    out: Path = Path("data/photo-evaluation")
    """Output folder. The distillations are in its folder runs/, named as by python -m distill with several images, so
    runs that this command finds there finished are not repeated."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print which images would be evaluated and exit."""


def check_args(args: PhotoEvaluationArgs) -> None:
    """Check the options of the command.

    Raises:
        UserError: an option is invalid.
    """
    check_number("--max-images", args.max_images, 1)
    check_number("--steps", args.steps, 1)
    check_number("--elevation-deg", args.elevation_deg, -90, 90)
    check_number("--guidance-scale", args.guidance_scale)
    check_number("--objects-per-kind", args.objects_per_kind, 2)
    check_number("--views-per-object", args.views_per_object, 1, 16)
    check_number("--workers", args.workers, 1)
    part_slice(args.part)  # raises UserError for an invalid part
    check_seed("--seed", args.seed)
    ddim_timesteps(args.ddim_steps)  # raises UserError for an invalid number of steps
    if not args.shards:
        raise UserError("--shards is empty; give at least one shard set with objects of known kinds")
