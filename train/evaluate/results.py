"""The record of an evaluation: one line of JSON per scored ring, from which the same command resumes.

settings.json     what was asked of each method: a repeated command must ask for the same
results.jsonl     method, uid, seed, and each metric's 16 numbers
pictures/METHOD/  the ring behind each line, as UID.SEED.webp; pictures/truth/ and pictures/reference/ beside them
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError
from dataset.io.files import write_json_atomic

SETTINGS_FILE: Final = "settings.json"
RESULTS_FILE: Final = "results.jsonl"
PICTURES: Final = "pictures"
TRUTH: Final = "truth"  # folders beside the methods' in pictures/
REFERENCE: Final = "reference"

Key = tuple[str, str, int]  # method, uid, seed
Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Method:
    """A row of the tables: a model as it is used, or a baseline. `settings` decide its numbers."""

    key: str  # a file name
    title: str
    settings: Mapping[str, Any]
    seeds: int = 1


@dataclass
class Record:
    """What was scored so far, in a folder. Use `open_record`."""

    folder: Path
    found: dict[Key, Scores] = field(default_factory=dict)

    def add(self, key: Key, scores: Scores) -> None:
        """Append a line."""
        method, uid, seed = key
        rounded = {name: [_number(value) for value in values] for name, values in scores.items()}
        line = json.dumps({"method": method, "uid": uid, "seed": seed, "scores": rounded}, allow_nan=False)
        with (self.folder / RESULTS_FILE).open("a") as file:
            file.write(line + "\n")
        self.found[key] = _numbers(rounded)

    def picture(self, folder: str, uid: str, seed: int = 0) -> Path:
        """Where a ring's picture is."""
        return self.folder / PICTURES / folder / f"{uid}.{seed}.webp"


def open_record(folder: Path, common: Mapping[str, Any], methods: Sequence[Method]) -> Record:
    """The folder's record. Raises UserError when it was made with other settings; methods may come to it.

    A last line that was cut off by a kill is taken back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS_FILE
    asked = json.loads(json.dumps({"common": dict(common), "methods": {m.key: dict(m.settings) for m in methods}}))
    if path.is_file():
        before = json.loads(path.read_text())
        for where, now, was in (
            ("", asked["common"], before["common"]),
            *((f"{key} ", asked["methods"][key], before["methods"].get(key)) for key in asked["methods"]),
        ):
            changed = [] if was is None else sorted(n for n in now.keys() | was.keys() if now.get(n) != was.get(n))
            if changed:
                told = ", ".join(f"{where}{name} was {was.get(name)}, now {now.get(name)}" for name in changed[:3])
                raise UserError(f"{folder}: holds another evaluation ({told}); give another --out")
        asked["methods"] = {**before["methods"], **asked["methods"]}
    write_json_atomic(LocalFileSystem(), str(path.absolute()), asked)
    return Record(folder, dict(_lines(folder / RESULTS_FILE)))


def _lines(path: Path) -> Iterable[tuple[Key, Scores]]:
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            yield (row["method"], row["uid"], row["seed"]), _numbers(row["scores"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: line {number} is no result ({error}); remove the line") from error


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _numbers(scores: Mapping[str, Sequence[float | None]]) -> Scores:
    return {name: [math.nan if v is None else float(v) for v in values] for name, values in scores.items()}
