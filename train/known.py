"""Write the table by which a model recognizes images of unknown objects: `python -m train.known SHARDS --model FOLDER`.

The table is the subfolder `known/` of the model folder; `train.model.known` describes it. It is made from the training
objects of SHARDS and calibrated on the validation objects. Test objects are not used. `--photos` and `--unknown` add
images of other origin to the calibration: without them, the threshold only suits renders.
"""

import csv
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from dataset.errors import UserError, run_cli
from dataset.format.schema import VIEWS_PER_SET
from dataset.images.decode import image_files
from dataset.images.prepare import prepare_image
from dataset.io.option_checks import check_number
from dataset.io.options import HiddenDefault
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.reading.latent_set import open_views
from dataset.reading.shard_set import ShardSet
from train.components.known_objects import (
    NEIGHBORS,
    Distances,
    Floats,
    choose_threshold,
    cross_validated_warnings,
    fit_projection,
    select_representatives,
    separation,
    share_above,
)
from train.data.images import to_tensor
from train.data.splits import split_set
from train.data.training_set import require_images
from train.device import pick_device
from train.model.fingerprint import image_encoder_sha256
from train.model.image_encoder import ImageEncoder
from train.model.known import KNOWN_FOLDER, KnownObjects, remove_known, write_known
from train.model.multiview import read_image_encoder, read_spec

logger = logging.getLogger(__name__)

LABELS_FILE: Final = "labels.csv"  # of a folder of photographs
VALIDATION: Final = "renders of validation objects"
PHOTOS: Final = "photographs of known kinds"
_PROCEDURAL: Final = re.compile(r"procedural-([a-z]+)-\d{6}")
_READERS: Final = 4


@dataclass(frozen=True)
class KnownArgs:
    """Write the table by which a model recognizes images that are unlike its training data, into MODEL/known.

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
    views: int = 4
    """Number of views per object, 1 to 16, evenly spaced around it."""
    max_false_share: float = 0.1
    """Largest share of images of known kinds that are warned about, 0 to 1."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings [n, c] of views, and the uid of the object of each view."""

    embeddings: Tensor
    uids: tuple[str, ...]


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
    device = pick_device(args.device)
    calibration = read_calibration(args.photos, args.unknown, args.labels)
    training, validation = split_set(require_images(open_views(args.shards), "the table of known objects"), "on")
    known = make_known(
        args.model,
        require_images(training, "the table"),
        require_images(validation, "the table") if validation is not None else None,
        calibration,
        views=args.views,
        max_false_share=args.max_false_share,
        device=device,
    )
    write_known(known, args.model)
    size = sum(path.stat().st_size for path in (args.model / KNOWN_FOLDER).iterdir())
    print(report(known.statistics))
    print(f"wrote {args.model / KNOWN_FOLDER}: {len(known.representatives)} embeddings, {size / 1e6:.2f} MB")


def make_known(
    folder: Path,
    training: ShardSet,
    validation: ShardSet | None,
    calibration: Calibration,
    *,
    views: int = 4,
    max_false_share: float = 0.1,
    device: torch.device,
) -> KnownObjects:
    """Make the table of known objects of a model.

    Args:
        folder: Model folder.
        training: Objects that the model was trained on.
        validation: Other objects of the same origin; None: there are none, and `calibration` must have known images.
        calibration: Images to choose the threshold, in addition to views of the validation objects, and labels.
        views: Number of views per object, evenly spaced.
        max_false_share: Largest share (0 to 1) of the images of known kinds above the threshold.
        device: Device of the image encoder.

    Raises:
        UserError: The model has no image encoder, an image cannot be read, or there are no images of known kinds.
    """
    size, image_encoder = read_spec(folder).image_size, read_image_encoder(folder)
    if image_encoder is None:
        raise UserError(f"{folder}: the model has no image encoder, whose embeddings are needed; give another --model")
    if validation is None and not calibration.known:
        raise UserError(
            "no images of known kinds to choose the threshold from; give a set with validation objects (20 or more "
            "objects), or photographs with --photos"
        )
    sha256 = image_encoder_sha256(image_encoder)
    nn.Module.to(image_encoder, device)
    seen = embed_objects(training, image_encoder, views, device, "training objects")
    table = make_table(seen, [kind_of(uid, calibration.labels) for uid in seen.uids], sha256)
    known: dict[str, Floats] = {}
    if validation is not None:
        held_out = embed_objects(validation, image_encoder, views, device, "validation objects")
        known[VALIDATION] = _numpy(table.distances(held_out.embeddings))
    if calibration.known:
        photos = embed_files(calibration.known, image_encoder, size, device, "photographs")
        known[PHOTOS] = _numpy(table.distances(photos))
    unknown = np.empty(0)
    if calibration.unknown:
        others = embed_files(calibration.unknown, image_encoder, size, device, "unknown images")
        unknown = _numpy(table.distances(others))
    distances = Distances(known, unknown)
    threshold = choose_threshold(distances, max_false_share)
    objects = {"training_objects": len(training), "views_per_object": views, "max_false_share": max_false_share}
    statistics = {**objects, **describe(distances, threshold, max_false_share)}
    return KnownObjects(**{**vars(table), "threshold": threshold, "statistics": statistics})


def add_known(
    folder: Path, training: ShardSet, validation: ShardSet | None, calibration: Calibration, device: torch.device
) -> None:
    """Write the table into a model folder, or remove an old one if there are no images to choose a threshold from.

    The arguments are those of `make_known`.
    """
    if validation is None and not calibration.known:
        logger.info("note: no table of known objects, because there are no validation objects to calibrate it")
        remove_known(folder)
        return
    known = make_known(folder, training, validation, calibration, device=device)
    write_known(known, folder)
    print(report(known.statistics))


def make_table(seen: Embedded, kinds: Sequence[str | None], sha256: str) -> KnownObjects:
    """Return a table with the threshold 0.

    Args:
        seen: Views of training objects.
        kinds: Kind of the object of each view; None if it is not known.
        sha256: The `image_encoder_sha256` of the image encoder.
    """
    groups = [uid if kind is None else kind for uid, kind in zip(seen.uids, kinds, strict=True)]
    mean, projection = fit_projection(seen.embeddings, groups)
    names = tuple(sorted({kind for kind in kinds if kind is not None}))
    whole = KnownObjects(mean, projection, torch.empty(0), torch.empty(0), names, NEIGHBORS, 0.0, sha256)
    directions = whole.project(seen.embeddings)
    chosen = select_representatives(directions, kinds)
    numbers = [-1 if (kind := kinds[row]) is None else names.index(kind) for row in chosen]
    return KnownObjects(
        mean, projection, directions[chosen].half().float(), torch.tensor(numbers), names, NEIGHBORS, 0.0, sha256
    )


def kind_of(uid: str, labels: Mapping[str, str]) -> str | None:
    """Return the kind of an object: its label, or the kind in the uid of a procedural object; None if neither exists.

    Args:
        uid: The uid of the object.
        labels: Kinds by uid.
    """
    if uid in labels:
        return labels[uid]
    match = _PROCEDURAL.fullmatch(uid)
    return match[1] if match else None


@torch.no_grad()
def embed_objects(
    shards: ShardSet, image_encoder: ImageEncoder, views: int, device: torch.device, what: str
) -> Embedded:
    """Embed views of every object of a set. Object number i of the set is seen from other azimuths than number i + 1.

    Args:
        shards: The objects.
        image_encoder: Image encoder on `device`.
        views: Number of random views per object, evenly spaced.
        device: Device of the image encoder.
        what: Description of the progress bar.
    """
    places = [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    step = VIEWS_PER_SET / views

    def load(number: int) -> Tensor:
        azimuths = [int(number + step * view) % VIEWS_PER_SET for view in range(views)]
        return to_tensor(shards.views(*places[number], [("random", azimuth) for azimuth in azimuths]))

    embeddings = []
    with (
        ProgressBar(total=len(places), unit="object", desc=what) as bar,
        ThreadPoolExecutor(_READERS, thread_name_prefix="views") as pool,
    ):
        for images in map_ahead(pool, load, range(len(places)), 2 * _READERS):
            embeddings.append(image_encoder(images.to(device)).cpu())
            bar.update()
    uids = tuple(shards.uid(*place) for place in places for _ in range(views))
    return Embedded(torch.cat(embeddings), uids)


@torch.no_grad()
def embed_files(
    files: Sequence[Path], image_encoder: ImageEncoder, size: int, device: torch.device, what: str
) -> Tensor:
    """Return the embeddings [n, c] of n image files, which are prepared as for distillation.

    Args:
        files: The image files.
        image_encoder: Image encoder on `device`.
        size: Height and width in pixels of the model's images.
        device: Device of the image encoder.
        what: Description of the progress bar.
    """
    embeddings = []
    for path in ProgressBar(files, unit="image", desc=what):
        rgb = torch.from_numpy(prepare_image(path, size).rgb).permute(2, 0, 1)[None]
        embeddings.append(image_encoder(rgb.to(device)).cpu())
    return torch.cat(embeddings)


def read_calibration(photos: Path | None, unknown: Sequence[Path], labels: Path | None) -> Calibration:
    """Return the image files of --photos and --unknown, and the kinds of objects in the file of --labels.

    Raises:
        UserError: A folder has no images, or a CSV file is missing or malformed.
    """
    known: tuple[Path, ...] = ()
    others = image_files(unknown)
    if photos is not None:
        rows = _read_csv(photos / LABELS_FILE, ("file", "known"))
        known = tuple(photos / row["file"] for row in rows if row["known"] == "yes")
        others += tuple(photos / row["file"] for row in rows if row["known"] == "no")
    rows = _read_csv(labels, ("uid", "label")) if labels is not None else []
    return Calibration(known, others, {row["uid"]: row["label"] for row in rows if row["label"]})


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file ({error}); give another file") from error
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        raise UserError(f"{path}: needs the columns {', '.join(columns)} and at least one row; correct the file")
    return rows


def describe(distances: Distances, threshold: float, max_false_share: float) -> dict[str, Any]:
    """Return what a threshold does to known and unknown images, for known.json and for `report`.

    The arguments are those of `choose_threshold`, and the threshold.
    """
    groups = {**distances.known, **({"unknown": distances.unknown} if len(distances.unknown) else {})}
    unseen = cross_validated_warnings(distances, max_false_share)
    rows = {
        name: {
            "images": len(group),
            "warned": int((group > threshold).sum()),
            "warned_share": round(share_above(group, threshold), 4),
            "warned_cross_validated": unseen[name],
            "median_distance": round(float(np.median(group)), 4),
        }
        for name, group in groups.items()
    }
    area = separation(distances)
    photos = separation(Distances({PHOTOS: distances.known[PHOTOS]}, distances.unknown)) if PHOTOS in groups else None
    return {
        "groups": rows,
        "roc_area": None if area is None else round(area, 4),
        "roc_area_photographs": None if photos is None else round(photos, 4),
    }


def report(statistics: Mapping[str, Any]) -> str:
    """Return lines of text on the `statistics` of a table: warnings per group of images, and the ROC areas."""
    lines = []
    for name, row in statistics["groups"].items():
        held_out = f"{row['warned_cross_validated']} with thresholds chosen without them"
        title = "unknown images (to be warned about)" if name == "unknown" else f"{name} (not to be warned about)"
        lines.append(f"{title}: {row['warned']} of {row['images']} warned ({row['warned_share']:.1%}); {held_out}")
    for key, name in (("roc_area", "all images"), ("roc_area_photographs", "photographs of known kinds only")):
        if statistics[key] is not None:
            lines.append(f"area under the ROC curve, known against unknown, {name}: {statistics[key]:.3f}")
    return "\n".join(lines)


def _numpy(distances: Tensor) -> Floats:
    return distances.double().numpy()


if __name__ == "__main__":
    run_cli(lambda: run(parse(sys.argv[1:])))
