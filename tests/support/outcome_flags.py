"""Rewrite the outcome tables of a shard set with given quality flags."""

from pathlib import Path

from dataset.format.outcomes import OUTCOMES_FOLDER, dump_outcomes, read_outcomes
from dataset.io.files import url_to_fs


def write_flags(folder: Path, flags: dict[int, tuple[str, ...]]) -> None:
    rows = read_outcomes(*url_to_fs(folder))
    for shard in {row.shard for row in rows}:
        changed = []
        for row in rows:
            if row.shard == shard:
                changed.append(type(row)(**{**vars(row), "flags": flags.get(row.position, ())}))
        (folder / OUTCOMES_FOLDER / f"{shard}.parquet").write_bytes(dump_outcomes(changed))
