"""Find out from which object of a shard set, and from which view of this object, each finished run was distilled.

A table that lists runs and their objects is a CSV file with the header `run,uid,view`, or a JSON list of objects with
these keys. `run` is the run folder, relative to the folder of the table. If `view` is missing or empty, the view is
found by comparing the image of the run with all 32 views of the object.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError, one_line
from dataset.images.decode import BROKEN
from dataset.images.prepare import composite_white, prepare_image
from dataset.images.psnr import psnr_db
from dataset.reading.csv_table import read_csv_table
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
_REQUIRED: Final = ("run", "uid")  # columns of a table of runs
_OPTIONAL: Final = ("view",)
_TABLE_REMEDY: Final = "give a CSV file with the header run,uid,view, or a JSON list of objects with these keys"
_MIN_PSNR_DB: Final = 25.0  # smallest PSNR of a run's image and the view it was made from
_MIN_MARGIN_DB: Final = 1.0  # smallest difference to the PSNR of the second most similar view


@dataclass(frozen=True)
class AssetEntry:
    """One row of a table of runs: a run folder, the uid of its object and, if known, the view that was distilled."""

    run: Path
    uid: str
    view: int | None  # index into ALL_VIEWS; None: to be found


@dataclass(frozen=True)
class Pair:
    """A finished run and the object that was distilled, with all values that are needed to compare the two."""

    run: Path
    uid: str
    place: Place
    view: int  # index into ALL_VIEWS: the view it was made from
    alignment: Alignment
    march: MarchSettings
    notes: tuple[str, ...] = ()

    def identity(self, true_mesh: Path | None) -> float:
        """Return a hash of all inputs that affect the scores of the asset, except the true views.

        The hash is the first 48 bits of a SHA-256. It is a float, so that it can be stored among the scores; 48 bits
        fit into a float without rounding.

        Args:
            true_mesh: The file of the object's true mesh, or None if the asset is scored without a true mesh.
        """
        digest = hashlib.sha256(f"{self.view}/{self.alignment}/{self.march}".encode())
        for path in (self.run / FIELD, self.run / MESH, *([] if true_mesh is None else [true_mesh])):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return float(int.from_bytes(digest.digest()[:6], "big"))


def entries_of(runs: Sequence[Path], uids: Sequence[str], views: Sequence[str]) -> list[AssetEntry]:
    """Return one entry for each run folder given with --run.

    Args:
        runs: The run folders.
        uids: The values of --uid: the uid of each run's object.
        views: The values of --view: the name of the view that was distilled in each run, such as fixed_00. Empty if
            --view is not given.

    Raises:
        UserError: the number of uids or views does not match the number of runs, or a view does not exist.
    """
    if len(uids) != len(runs) or len(views) not in (0, len(runs)):
        raise UserError(
            f"--run has {len(runs)} values, --uid has {len(uids)} and --view has {len(views)}; give one uid per "
            "run, and either one view per run or no view"
        )
    rows = zip(runs, uids, views or ("",) * len(runs), strict=True)
    return [AssetEntry(run, uid, view_number(view) if view else None) for run, uid, view in rows]


def check_unique(entries: Sequence[AssetEntry]) -> None:
    """Raise UserError if two entries have the same object, since this object would count twice in the means."""
    runs: dict[str, Path] = {}
    for entry in entries:
        if entry.uid in runs:
            raise UserError(
                f"the object {entry.uid} is given for two runs, {runs[entry.uid]} and {entry.run}; evaluate the "
                "second run with another command and another --out"
            )
        runs[entry.uid] = entry.run


def read_table(path: Path) -> list[AssetEntry]:
    """Read a table of runs: a CSV file with the header run,uid,view, or a JSON list of objects with these keys.

    Raises:
        UserError: the file cannot be read, has no rows, or has an invalid row. The message contains the line of this
            row in a CSV file, and its number in a JSON list.
    """
    if path.suffix == ".json":
        rows = _json_rows(path)
    else:
        table = read_csv_table(path, _REQUIRED, _TABLE_REMEDY, optional=_OPTIONAL)
        rows = [(f"{path}, line {line}", row) for line, row in table]
    return [_entry(path.parent, place, row) for place, row in rows]


def _json_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return each row of a JSON list as the pair (its place for messages, the row)."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable table ({one_line(error)}); {_TABLE_REMEDY}") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"the table {path} has no rows; {_TABLE_REMEDY}")
    places = [f"{path}, row {number} (counted from 1)" for number in range(1, len(rows) + 1)]
    return [(place, _json_row(place, row)) for place, row in zip(places, rows, strict=True)]


def _json_row(place: str, row: Any) -> dict[str, str]:
    if not isinstance(row, dict):
        raise UserError(f"{place}: not a JSON object; {_TABLE_REMEDY}")
    columns = (*_REQUIRED, *_OPTIONAL)
    if unknown := sorted(row.keys() - set(columns)):
        keys, them = ("keys", "them") if len(unknown) > 1 else ("key", "it")
        raise UserError(
            f"{place}: unknown {keys} {', '.join(map(repr, unknown))}; rename or remove {them} (a row may have the "
            f"keys {', '.join(columns)})"
        )
    values = {name: "" if row.get(name) is None else row[name] for name in columns}
    if not all(isinstance(value, str) for value in values.values()) or not all(values[name] for name in _REQUIRED):
        raise UserError(
            f"{place}: run or uid is missing, or a value is not text; give a run and a uid in each row, and "
            "optionally a view"
        )
    return values


def _entry(folder: Path, place: str, row: Mapping[str, str]) -> AssetEntry:
    """Return the entry of a row. `folder` is the folder of the table; `place` is the place of the row, for messages."""
    view = row.get("view")
    try:
        return AssetEntry(folder / row["run"], row["uid"], view_number(view) if view else None)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def pair_up(entry: AssetEntry, place: Place, truth: RenderedObject, labels: Labels) -> Pair:
    """Check that a run is finished and that its input image shows a given object, and align its asset with the object.

    Args:
        entry: The run folder and, if known, the view that was distilled.
        place: The object, as the pair (index of its shard in the shard set, index of its sample in the shard).
        truth: The object in all 32 views.
        labels: Type of the camera labels of the model that the run used: "relative" or "absolute". "auto": read the
            type from the model folder.

    Raises:
        UserError: the run is not finished, its image is not a view of the object, or the camera labels of its model are
            unknown.
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
            f"{entry.run / CONFIG} lacks a setting that this version needs, or has an invalid or unknown one "
            f"({error}); repeat the distillation with this version"
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
    """Read config.json of a finished run. Raises UserError if the run is not finished."""
    missing = [name for name in (CONFIG, FIELD, MESH, INPUT_IMAGE) if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"{run} is not the folder of a finished distillation (missing files: {', '.join(missing)}); repeat the "
            "`python -m distill` command of this run, or leave the run out"
        )
    try:
        config: dict[str, Any] = json.loads((run / CONFIG).read_text())
        config["mesh"]["faces"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{run / CONFIG} does not belong to a finished run (the data of the mesh are missing); repeat the "
            "`python -m distill` command of this run"
        ) from error
    return config


def _has_absolute_labels(run: Path, config: Mapping[str, Any], labels: Labels) -> bool:
    if labels != "auto":
        return labels == "absolute"
    model = Path(str(config.get("model", "")))
    if not (model / SPEC_FILE).is_file():
        raise UserError(
            f"the model {model} of the run {run} does not exist on this machine, so the camera labels of the model are "
            "unknown; give --labels relative (as in the paper) or --labels absolute"
        )
    return read_spec(model).cameras == "absolute"


def _find_view(entry: AssetEntry, truth: RenderedObject) -> int:
    """Return the index into ALL_VIEWS of the view that the run's image shows. A view in the entry is checked."""
    similarity_db = _similarity_db(entry.run / INPUT_IMAGE, truth)
    order = np.argsort(-similarity_db, kind="stable")
    best, second = (int(i) for i in order[:2])
    nearest = f"{view_name(best)} is the most similar view, with a PSNR of {similarity_db[best]:.1f} dB"
    if entry.view is not None:
        if similarity_db[entry.view] < _MIN_PSNR_DB:
            raise UserError(
                f"the input image of the run {entry.run} is not {view_name(entry.view)} of the object {entry.uid}: the "
                f"PSNR between them is {similarity_db[entry.view]:.1f} dB, and {_MIN_PSNR_DB:g} dB are required "
                f"({nearest}); give the right uid and view for this run"
            )
        return entry.view
    if similarity_db[best] < _MIN_PSNR_DB:
        raise UserError(
            f"the input image of the run {entry.run} is not a view of the object {entry.uid}: {nearest}, but "
            f"{_MIN_PSNR_DB:g} dB are required; give the right uid for this run"
        )
    if similarity_db[best] - similarity_db[second] < _MIN_MARGIN_DB:
        raise UserError(
            f"the input image of the run {entry.run} may be {view_name(best)} or {view_name(second)} of the object "
            f"{entry.uid}, since these two views look the same; choose one of them with --view"
        )
    return best


def _similarity_db(path: Path, truth: RenderedObject) -> NDArray[np.float64]:
    """Return the PSNR [f] in dB between the image of a run, at `path`, and each view of the object.

    Views are prepared like the input image of a run. Views in which the object is not visible have -inf.
    """
    try:
        with Image.open(path) as image:
            given = np.asarray(image.convert("RGBA").resize((image.width, image.width)))
    except BROKEN as error:
        raise UserError(
            f"{path} is not a readable image ({type(error).__name__}); repeat the `python -m distill` command of this "
            "run"
        ) from error
    similarity_db = np.full(len(truth.images), -np.inf)
    for number, view in enumerate(truth.images):
        try:
            prepared = prepare_image(Image.fromarray(view), given.shape[0])
        except UserError:  # the object is not visible in this view, so the run was not made from it
            continue
        similarity_db[number] = psnr_db(prepared.rgb, composite_white(given))
    return similarity_db
