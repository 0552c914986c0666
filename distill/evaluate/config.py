"""The options of `python -m distill.evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dataset.errors import UserError
from dataset.io.option_checks import check_number, check_seed, part_slice
from dataset.io.options import HiddenDefault
from dataset.reading.rendered_object import view_number
from distill.config import Preset
from distill.evaluate.pairing import Labels
from train.model.ddim import ddim_timesteps

SUPERVISION_WEIGHT: Final = 1000.0  # default of --supervision-weight


@dataclass(frozen=True)
class AssetEvaluationArgs:
    """Compare distilled assets with their original objects in a shard set.

    The report is written as JSON, as Markdown and as an HTML page with images.
    """

    shards: str = "data/shards"
    """Shard set with the true views: a folder or an fsspec URL."""
    run: HiddenDefault[tuple[Path, ...]] = ()
    """Folders of finished distillations; requires --uid."""
    uid: HiddenDefault[tuple[str, ...]] = ()
    """The uid of each run's object, in the order of --run."""
    view: HiddenDefault[tuple[str, ...]] = ()
    """The view that each run was made from: fixed_00 to fixed_15 or random_00 to random_15. If omitted, the view is
    found by comparing the run's image with all views. With --model: one view to distill every object from; if omitted,
    the view that train.evaluate uses as the object's reference."""
    table: HiddenDefault[Path | None] = None
    """File that lists runs, uids and views, instead of --run, --uid and --view: CSV with the header run,uid,view, or a
    JSON list of objects with these keys. Run folders are relative to the folder of this file."""
    model: HiddenDefault[tuple[Path, ...]] = ()
    """Models with which to distill objects of the set: model folders, checkpoint files or Hub names.
    Each is compared with the first."""
    split: Literal["test", "validation", "all"] = "test"
    """With --model: the split to evaluate. Objects are assigned to splits by a hash of the uid; those of test are never
    trained on."""
    max_objects: HiddenDefault[int | None] = None
    """With --model: maximum number of objects, spread evenly over the split. Default: all."""
    preset: HiddenDefault[Preset | None] = None
    """With --model: the preset, as in python -m distill."""
    steps: HiddenDefault[int | None] = None
    """With --model: number of distillation steps, as in python -m distill."""
    seed: int = 0
    """With --model: the random seed, as in python -m distill."""
    guidance_scale: HiddenDefault[float | None] = None
    """With --model: classifier-free guidance scale, as in python -m distill."""
    compare_reference: Literal["without", "with", "both"] = "without"
    """With --model: whether to condition the model on the image itself, in addition to its embedding. with: yes, like
    --with-reference of python -m distill. without: no, as in the paper. both: compare both ways."""
    channels_model: HiddenDefault[Path | None] = None
    """A model trained with --reference-mode channels. Compares the four settings of the paper's Fig. 8: --model and
    this model, each without and with an L2 loss between the image and the rendered reference view."""
    supervision_weight: float = SUPERVISION_WEIGHT
    """With --channels-model: weight of the L2 loss, as --reference-loss-weight of python -m distill."""
    consistency: bool = False
    """With --model: also measure multi-view consistency. A field is fitted to views sampled by the model and rendered
    from the same cameras. The renders are compared with the sampled views."""
    ddim_steps: int = 50
    """With --consistency: number of DDIM steps to sample the views."""
    labels: Labels = "auto"
    """Camera labels of the models that the runs used. They determine the alignment. auto: read them from the model
    folders."""
    meshes: HiddenDefault[Path | None] = None
    """Folder of the 3D files that the set was rendered from, UID.glb. Adds Chamfer distance, F-score and volume IoU."""
    perceptual: HiddenDefault[Path | None] = None
    """Weights of SqueezeNet, from python -m train.evaluate.perceptual.squeezenet. Adds a perceptual distance."""
    part: HiddenDefault[str | None] = None
    """With --model: I/N: only distill every N-th object from the I-th, without a report. N processes on one GPU, each
    with another I and the same --out, share the work; then the same command without this option writes the report."""
    out: Path = Path("data/asset-evaluation")
    """Output folder. If it contains an evaluation with the same settings, that evaluation is resumed."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print what would be evaluated and exit."""

    @property
    def view_of_all(self) -> int | None:
        """Index into ALL_VIEWS of the view given by --view, from which every object is distilled (with --model).

        Without --view it is None. Each object is then distilled from the view that `reference_view` selects.
        """
        return view_number(self.view[0]) if self.view else None


def check_args(args: AssetEvaluationArgs) -> None:
    """Check the options of the command.

    Raises:
        UserError: an option is invalid, or cannot be combined with another option of the command.
    """
    sources = [name for name in ("run", "table", "model") if getattr(args, name)]
    if len(sources) != 1:
        given = " and ".join(f"--{source}" for source in sources) or "none of these options"
        raise UserError(f"give exactly one of --run (with --uid), --table and --model; the command has {given}")
    if args.model and (args.uid or len(args.view) > 1):
        raise UserError(
            "with --model, objects are selected by --split and --max-objects, and all are distilled from the same "
            "view; leave out --uid, and give at most one --view"
        )
    if args.table and (args.uid or args.view):
        raise UserError("the file of --table already contains the uids and views; leave out --uid and --view")
    if args.compare_reference != "without" and not args.model:
        raise UserError(
            "--compare-reference applies only to distillations of this command; give --model, or leave out "
            "--compare-reference"
        )
    if args.channels_model and (len(args.model) != 1 or args.compare_reference != "without"):
        raise UserError(
            "--channels-model compares one model of --model with a model that reads the reference image as channels; "
            "give exactly one --model, and leave out --compare-reference"
        )
    if args.supervision_weight != SUPERVISION_WEIGHT and not args.channels_model:
        raise UserError(
            "--supervision-weight applies only to the comparison of --channels-model; give --channels-model too, or "
            "leave out --supervision-weight"
        )
    if args.part is not None and not args.model:
        raise UserError("--part shares the distillations among several processes; give --model, or leave out --part")
    part_slice(args.part)  # raises UserError for an invalid part
    if args.consistency and not args.model:
        raise UserError("--consistency measures views that a model samples; give --model, or leave out --consistency")
    ddim_timesteps(args.ddim_steps)  # raises UserError for an invalid number of steps
    check_number("--max-objects", args.max_objects, 1)
    check_number("--steps", args.steps, 1)
    check_number("--guidance-scale", args.guidance_scale)
    check_number("--supervision-weight", args.supervision_weight, 0)
    check_seed("--seed", args.seed)
    if args.perceptual is not None and not args.perceptual.is_file():
        raise UserError(
            f"--perceptual {args.perceptual} is not a file; write it with python -m "
            "train.evaluate.perceptual.squeezenet"
        )
    if args.meshes is not None and not args.meshes.is_dir():
        raise UserError(
            f"--meshes {args.meshes} is not a folder; give the folder with the original 3D file UID.glb of each object"
        )
    for name in args.view:
        view_number(name)
