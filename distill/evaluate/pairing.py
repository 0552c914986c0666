"""Which asset belongs to which object: finished distillations and the views of a shard set that they were made from.

A table of them is CSV with the head `run,uid,view`, or JSON, a list of objects with these keys. `run` is a folder,
relative to the table's own; `view` may be left out (or empty): it is found by the picture.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from dataset.errors import UserError
from dataset.images.decode import BROKEN
from dataset.images.prepare import composite_white, prepare_image
from distill.evaluate.ground_truth import VIEWS, Alignment, Place, TrueObject, align, view_name, view_number
from distill.nerf.settings import MarchSettings
from distill.runs.finished import CONFIG
from distill.sds.schedule import CameraSettings
from train.evaluate.metrics import psnr_db
from train.model.multiview import SPEC_FILE, read_spec

Labels = Literal["auto", "relative", "absolute"]
FIELD: Final = "field.safetensors"
MESH: Final = "mesh.glb"
_COLUMNS: Final = ("run", "uid", "view")
_SAME_DB: Final = 25.0  # a run's picture is that of a view if they are at least this near
_CLEARLY_DB: Final = 1.0  # and the next view is at least this much further off


@dataclass(frozen=True)
class Asked:
    """A row of the table."""

    run: Path
    uid: str
    view: int | None  # of asset_truth.VIEWS; None: to be found


@dataclass(frozen=True)
class Pair:
    """A finished distillation and its object."""

    run: Path
    uid: str
    place: Place
    view: int  # of asset_truth.VIEWS: what it was made from
    alignment: Alignment
    march: MarchSettings
    notes: tuple[str, ...] = ()

    def identity(self, true_mesh: Path | None) -> float:
        """48 bits of the sha256 of all that decides this asset's scores beside an object of a set."""
        digest = hashlib.sha256(f"{self.view}/{self.alignment}/{self.march}".encode())
        for path in (self.run / FIELD, self.run / MESH, *([] if true_mesh is None else [true_mesh])):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return float(int.from_bytes(digest.digest()[:6], "big"))


def asked_for(runs: Sequence[Path], uids: Sequence[str], views: Sequence[str]) -> list[Asked]:
    """What a command line names. Raises UserError where it is not a uid, and a view or none at all, for each run."""
    if len(uids) != len(runs) or len(views) not in (0, len(runs)):
        raise UserError(
            f"{len(runs)} --run, {len(uids)} --uid and {len(views)} --view; give a uid, and a view or none at all, for "
            "each run"
        )
    rows = zip(runs, uids, views or ("",) * len(runs), strict=True)
    return [Asked(run, uid, view_number(view) if view else None) for run, uid, view in rows]


def once_each(asked: Sequence[Asked]) -> None:
    """Raises UserError where an object comes twice: it would count double."""
    seen: dict[str, Path] = {}
    for row in asked:
        if row.uid in seen:
            raise UserError(
                f"{row.uid} has two assets, {seen[row.uid]} and {row.run}; measure the second one with another --out"
            )
        seen[row.uid] = row.run


def read_table(path: Path) -> list[Asked]:
    """The rows of a table. Raises UserError, which names the row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[Any] = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: no readable table ({error}); give CSV or JSON with run, uid, view") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: holds no row; give CSV with the head run,uid,view, or JSON, a list of such objects")
    found = []
    for number, row in enumerate(rows, 1):
        unknown = sorted(map(str, row.keys() - set(_COLUMNS))) if isinstance(row, dict) else ["no object"]
        values = [] if unknown else [row.get(name) or "" for name in _COLUMNS]
        if unknown or not all(isinstance(value, str) for value in values) or not (values[0] and values[1]):
            more = f" ({', '.join(unknown)})" if unknown else ""
            raise UserError(f"{path}: row {number} is not run, uid and view{more}; run and uid are needed in each")
        run, uid, view = values
        found.append(Asked(path.parent / run, uid, view_number(view) if view else None))
    return found


def pair_up(asked: Asked, place: Place, truth: TrueObject, labels: Labels) -> Pair:
    """Check a run and find how it lies in its object's world.

    Raises UserError where the run is not finished, where its picture is no view of the object, and where it cannot be
    told which kind of camera labels its model has.
    """
    config = _finished(asked.run)
    view = _view(asked, truth)
    shown = truth.views[view]
    absolute = _absolute(asked.run, config, labels)
    try:
        cameras = CameraSettings(**config["settings"]["cameras"])
        march = MarchSettings(**config["settings"]["march"])
        elevation_deg = float(config["elevation_deg"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{asked.run / CONFIG}: lacks settings of this program ({error}); distill again") from error
    notes = []
    if abs(elevation_deg - shown.elevation_deg) > 1:
        notes.append(
            f"{asked.uid}: was distilled as if seen from elevation {elevation_deg:g}; {view_name(view)} stands at "
            f"{shown.elevation_deg:.1f} (--elevation-deg of distill), and the numbers take it as it is."
        )
    alignment = align(shown, truth.size, cameras, absolute=absolute)
    return Pair(asked.run, asked.uid, place, view, alignment, march, tuple(notes))


def _finished(run: Path) -> Mapping[str, Any]:
    """A finished run's config.json."""
    missing = [name for name in (CONFIG, FIELD, MESH, "input.png") if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"{run}: is no finished distillation ({', '.join(missing)} missing); repeat its `python -m distill`, or "
            "leave it out"
        )
    try:
        config: dict[str, Any] = json.loads((run / CONFIG).read_text())
        config["mesh"]["faces"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / CONFIG}: is not that of a finished run; repeat its `python -m distill`") from error
    return config


def _absolute(run: Path, config: Mapping[str, Any], labels: Labels) -> bool:
    if labels != "auto":
        return labels == "absolute"
    model = Path(str(config.get("model", "")))
    if not (model / SPEC_FILE).is_file():
        raise UserError(
            f"{run}: its model {model} is not here to say what its camera labels are; give --labels relative (the "
            "paper's) or absolute"
        )
    return read_spec(model).cameras == "absolute"


def _view(asked: Asked, truth: TrueObject) -> int:
    """The view that the run's picture shows; the one that is named is checked."""
    near = _likeness(asked.run / "input.png", truth)
    order = np.argsort(-near, kind="stable")
    best, second = (int(i) for i in order[:2])
    told = f"nearest is {view_name(best)} at {near[best]:.1f} dB; views count from {_SAME_DB:g}"
    if asked.view is not None:
        if near[asked.view] < _SAME_DB:
            raise UserError(
                f"{asked.run}: its picture is not {view_name(asked.view)} of {asked.uid} ({near[asked.view]:.1f} dB; "
                f"{told}); name the right uid and view"
            )
        return asked.view
    if near[best] < _SAME_DB:
        raise UserError(f"{asked.run}: its picture is no view of {asked.uid} ({told}); name the right uid")
    if near[best] - near[second] < _CLEARLY_DB:
        raise UserError(
            f"{asked.run}: its picture may be {view_name(best)} or {view_name(second)} of {asked.uid}, which look the "
            "same; name one with --view"
        )
    return best


def _likeness(picture: Path, truth: TrueObject) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Decibels [f] between a run's picture and each view, prepared as a run prepares it; 100 where they are equal."""
    try:
        with Image.open(picture) as image:
            given = np.asarray(image.convert("RGBA").resize((image.width, image.width)))
    except BROKEN as error:
        raise UserError(f"{picture}: not a readable picture ({type(error).__name__}); distill again") from error
    near = np.full(len(VIEWS), -np.inf)
    for number, view in enumerate(truth.pictures):
        try:
            prepared = prepare_image(Image.fromarray(view), given.shape[0])
        except UserError:  # nothing is seen from there: this run was not made from it
            continue
        near[number] = psnr_db(prepared.rgb, composite_white(given))
    return near
