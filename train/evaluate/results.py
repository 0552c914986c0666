"""The record of an evaluation in its output folder, from which a repeated command resumes.

The record contains one JSON line per scored ring (16 views of an object) or generated asset. Its files are:

settings.json     the settings of each method; a repeated command must have the same settings
results.jsonl     method, uid, seed, and the values of each metric
pictures/METHOD/  the scored images, as UID.SEED.webp; likewise pictures/truth/ and pictures/reference/
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.io.files import json_bytes, write_file_atomic
from dataset.io.resume import differences, settings_differ
from dataset.report.collect import encode_strip

SETTINGS_FILE: Final = "settings.json"
RESULTS_FILE: Final = "results.jsonl"
IMAGES_FOLDER: Final = "pictures"
TRUTH: Final = "truth"  # further folders in IMAGES_FOLDER
REFERENCE: Final = "reference"

Key = tuple[str, str, int]  # method, uid, seed
Scores = Mapping[str, Sequence[float]]  # the values of each metric


@dataclass(frozen=True)
class Method:
    """A method to evaluate: a model with sampling settings, or a baseline. The tables have one row per method.

    `settings` are the values that determine the method's results. `seeds` is the number of results per object.
    """

    key: str  # valid as a file name
    title: str
    settings: Mapping[str, Any]
    seeds: int = 1


@dataclass
class Record:
    """The scores and images of an evaluation in the folder `folder`. Use `open_record` to create a record."""

    folder: Path
    scores: dict[Key, Scores] = field(default_factory=dict)

    def add(self, key: Key, scores: Scores) -> None:
        """Append the scores of one ring of views, or of one asset, to results.jsonl as one line.

        Values are rounded to 6 decimals.

        Args:
            key: Key of the method, uid of the object, and seed.
            scores: Values of each metric, by the metric's name. A ring has one value per view.
        """
        method, uid, seed = key
        rounded = {name: [_rounded(value) for value in values] for name, values in scores.items()}
        line = json.dumps({"method": method, "uid": uid, "seed": seed, "scores": rounded}, allow_nan=False)
        with (self.folder / RESULTS_FILE).open("a") as file:
            file.write(line + "\n")
        self.scores[key] = _parsed(rounded)

    def image_path(self, folder: str, uid: str, seed: int = 0) -> Path:
        """Return the path of the file that contains the images of one object side by side. The file need not exist.

        Args:
            folder: Key of a method, TRUTH (the true views) or REFERENCE (the reference view).
            uid: Uid of the object.
            seed: Seed with which the method made the images; 0 for TRUTH and REFERENCE.
        """
        return self.folder / IMAGES_FOLDER / folder / f"{uid}.{seed}.webp"

    def write_images(self, folder: str, uid: str, images: Sequence[NDArray[np.uint8]], seed: int = 0) -> None:
        """Write the images of one object, side by side, to the path that `image_path` returns.

        `images` are RGBA images, uint8 [h, w, 4]. The other arguments are those of `image_path`.
        """
        path = self.image_path(folder, uid, seed)
        write_file_atomic(path, encode_strip(list(images)))


def opaque(images: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """Convert images [f, h, w, 3] in [0, 1] to a list of f opaque RGBA images uint8 [h, w, 4]."""
    rgb = np.rint(images * 255).astype(np.uint8)
    return list(np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1))


def open_record(folder: Path, common: Mapping[str, Any], methods: Sequence[Method]) -> Record:
    """Open the record of an evaluation in a folder, or create a record if the folder contains none.

    A repeated command may add methods. An incomplete last line of results.jsonl is removed.

    Args:
        folder: The output folder of the evaluation.
        common: Settings that all methods share.
        methods: The methods that this command evaluates.

    Raises:
        UserError: The folder contains an evaluation with other settings, or a line of results.jsonl cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS_FILE
    now = json.loads(json.dumps({"common": dict(common), "methods": {m.key: dict(m.settings) for m in methods}}))
    if path.is_file():
        before = json.loads(path.read_text())
        known = now["methods"].keys() & before["methods"].keys()
        changed = differences(before["common"], now["common"]) | differences(
            {key: before["methods"][key] for key in known}, {key: now["methods"][key] for key in known}
        )
        if changed:
            where = f"The evaluation in {folder}"
            raise UserError(
                settings_differ(where, changed.values(), "Give another --out, or the same settings as before.")
            )
        now["methods"] = {**before["methods"], **now["methods"]}
    write_file_atomic(path, json_bytes(now))
    return Record(folder, dict(_read_lines(folder / RESULTS_FILE)))


def _read_lines(path: Path) -> Iterable[tuple[Key, Scores]]:
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            yield (row["method"], row["uid"], row["seed"]), _parsed(row["scores"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: line {number} is not a valid result ({error}); delete this line and repeat the command"
            ) from error


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _parsed(scores: Mapping[str, Sequence[float | None]]) -> Scores:
    return {name: [math.nan if v is None else float(v) for v in values] for name, values in scores.items()}
