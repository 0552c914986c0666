"""Pair finished distillations with the objects and views of a shard set that they were made from.

A table of pairs is CSV with the header `run,uid,view`, or a JSON list of objects with these keys. `run` is a folder,
relative to the table's folder. If `view` is missing or empty, the view is found by comparing the run's image with all
views.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.images.decode import BROKEN
from dataset.images.prepare import composite_white, prepare_image
from dataset.images.psnr import psnr_db
from dataset.reading.rendered_object import Place, RenderedObject, view_name, view_number
from distill.evaluate.ground_truth import Alignment, align
from distill.nerf.settings import MarchSettings
from distill.runs.finished import CONFIG
from distill.sds.schedule import BEFORE, CameraSettings
from train.model.multiview import SPEC_FILE, read_spec

Labels = Literal["auto", "relative", "absolute"]
FIELD: Final = "field.safetensors"
MESH: Final = "mesh.glb"
INPUT_IMAGE: Final = "input.png"
_COLUMNS: Final = ("run", "uid", "view")
_MIN_PSNR_DB: Final = 25.0  # smallest PSNR of a run's image and the view it was made from
_MIN_MARGIN_DB: Final = 1.0  # smallest difference to the PSNR of the second most similar view


@dataclass(frozen=True)
class AssetEntry:
    """One row of a table of pairs."""

    run: Path
    uid: str
    view: int | None  # index into ALL_VIEWS; None: to be found


@dataclass(frozen=True)
class Pair:
    """A finished distillation and its object."""

    run: Path
    uid: str
    place: Place
    view: int  # index into ALL_VIEWS: the view it was made from
    alignment: Alignment
    march: MarchSettings
    notes: tuple[str, ...] = ()

    def identity(self, true_mesh: Path | None) -> float:
        """Return 48 bits of a SHA-256 over everything that determines the asset's scores, except the true views."""
        digest = hashlib.sha256(f"{self.view}/{self.alignment}/{self.march}".encode())
        for path in (self.run / FIELD, self.run / MESH, *([] if true_mesh is None else [true_mesh])):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return float(int.from_bytes(digest.digest()[:6], "big"))


def entries_of(runs: Sequence[Path], uids: Sequence[str], views: Sequence[str]) -> list[AssetEntry]:
    """Return the entries given by --run, --uid and --view.

    Raises UserError unless there is one uid per run, and either one view per run or no view.
    """
    if len(uids) != len(runs) or len(views) not in (0, len(runs)):
        raise UserError(
            f"--run has {len(runs)} values, --uid {len(uids)} and --view {len(views)}; give one uid per run, and "
            "either one view per run or no view"
        )
    rows = zip(runs, uids, views or ("",) * len(runs), strict=True)
    return [AssetEntry(run, uid, view_number(view) if view else None) for run, uid, view in rows]


def check_unique(entries: Sequence[AssetEntry]) -> None:
    """Raise UserError if an object occurs twice, since it would count twice in the means."""
    runs: dict[str, Path] = {}
    for entry in entries:
        if entry.uid in runs:
            raise UserError(
                f"{entry.uid} has two assets, {runs[entry.uid]} and {entry.run}; evaluate the second one with "
                "another command and another --out"
            )
        runs[entry.uid] = entry.run


def read_table(path: Path) -> list[AssetEntry]:
    """Read the rows of a table. Raises UserError, naming the row, if one is invalid."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[Any] = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a readable table ({error}); give CSV or JSON with run, uid, view") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(
            f"{path} has no rows; give CSV with the header run,uid,view, or a JSON list of objects with these keys"
        )
    entries = []
    for number, row in enumerate(rows, 1):
        unknown = sorted(map(str, row.keys() - set(_COLUMNS))) if isinstance(row, dict) else ["not an object"]
        values = [] if unknown else [row.get(name) or "" for name in _COLUMNS]
        if unknown or not all(isinstance(value, str) for value in values) or not (values[0] and values[1]):
            more = f" ({', '.join(unknown)})" if unknown else ""
            raise UserError(
                f"{path}: row {number} is invalid{more}; each row needs a run and a uid, and may have a view"
            )
        run, uid, view = values
        entries.append(AssetEntry(path.parent / run, uid, view_number(view) if view else None))
    return entries


def pair_up(entry: AssetEntry, place: Place, truth: RenderedObject, labels: Labels) -> Pair:
    """Check a finished run and align it with its object.

    Args:
        entry: The run, and the view it was made from if known.
        place: The position of its object in the shard set.
        truth: The object in all 32 views.
        labels: The camera labels of the run's model; auto reads them from the model's folder.

    Raises:
        UserError: the run is not finished, its image is not a view of the object, or the camera labels of its model
            are unknown.
    """
    config = _read_config(entry.run)
    view = _find_view(entry, truth)
    camera = truth.views[view]
    absolute = _has_absolute_labels(entry.run, config, labels)
    try:
        cameras = CameraSettings(**{**BEFORE["cameras"], **config["settings"]["cameras"]})
        march = MarchSettings(**{**BEFORE["march"], **config["settings"]["march"]})
        elevation_deg = float(config["elevation_deg"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{entry.run / CONFIG} lacks settings that this version needs ({error}); distill again"
        ) from error
    notes = []
    if abs(elevation_deg - camera.elevation_deg) > 1:
        notes.append(
            f"{entry.uid} was distilled with --elevation-deg {elevation_deg:g}, but the elevation of {view_name(view)} "
            f"is {camera.elevation_deg:.1f}; the scores are not corrected for this difference."
        )
    alignment = align(camera, truth.size, cameras, absolute=absolute)
    return Pair(entry.run, entry.uid, place, view, alignment, march, tuple(notes))


def _read_config(run: Path) -> Mapping[str, Any]:
    """Read config.json of a finished run."""
    missing = [name for name in (CONFIG, FIELD, MESH, INPUT_IMAGE) if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"{run} is not a finished distillation ({', '.join(missing)} missing); repeat its `python -m distill`, or "
            "leave it out"
        )
    try:
        config: dict[str, Any] = json.loads((run / CONFIG).read_text())
        config["mesh"]["faces"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / CONFIG} does not belong to a finished run; repeat its `python -m distill`") from error
    return config


def _has_absolute_labels(run: Path, config: Mapping[str, Any], labels: Labels) -> bool:
    if labels != "auto":
        return labels == "absolute"
    model = Path(str(config.get("model", "")))
    if not (model / SPEC_FILE).is_file():
        raise UserError(
            f"{run}: the model {model} does not exist here, so its camera labels are unknown; give --labels relative "
            "(as in the paper) or --labels absolute"
        )
    return read_spec(model).cameras == "absolute"


def _find_view(entry: AssetEntry, truth: RenderedObject) -> int:
    """Return the view that the run's image shows; if the entry names one, check it."""
    similarity_db = _similarity_db(entry.run / INPUT_IMAGE, truth)
    order = np.argsort(-similarity_db, kind="stable")
    best, second = (int(i) for i in order[:2])
    nearest = f"nearest is {view_name(best)} at {similarity_db[best]:.1f} dB; at least {_MIN_PSNR_DB:g} are required"
    if entry.view is not None:
        if similarity_db[entry.view] < _MIN_PSNR_DB:
            raise UserError(
                f"{entry.run}: its image is not {view_name(entry.view)} of {entry.uid} "
                f"({similarity_db[entry.view]:.1f} dB; {nearest}); give the right uid and view"
            )
        return entry.view
    if similarity_db[best] < _MIN_PSNR_DB:
        raise UserError(f"{entry.run}: its image is not a view of {entry.uid} ({nearest}); give the right uid")
    if similarity_db[best] - similarity_db[second] < _MIN_MARGIN_DB:
        raise UserError(
            f"{entry.run}: its image may be {view_name(best)} or {view_name(second)} of {entry.uid}, which look the "
            "same; choose one with --view"
        )
    return best


def _similarity_db(path: Path, truth: RenderedObject) -> NDArray[np.float64]:
    """Return the PSNR [f] between a run's image and each view.

    Views are prepared like the image; empty views have -inf.
    """
    try:
        with Image.open(path) as image:
            given = np.asarray(image.convert("RGBA").resize((image.width, image.width)))
    except BROKEN as error:
        raise UserError(f"{path} is not a readable image ({type(error).__name__}); distill again") from error
    similarity_db = np.full(len(truth.images), -np.inf)
    for number, view in enumerate(truth.images):
        try:
            prepared = prepare_image(Image.fromarray(view), given.shape[0])
        except UserError:  # the object is not visible in this view, so the run was not made from it
            continue
        similarity_db[number] = psnr_db(prepared.rgb, composite_white(given))
    return similarity_db
