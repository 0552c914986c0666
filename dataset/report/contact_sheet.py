"""Write a contact sheet of a shard set: some views of some objects, in one PNG file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.format.schema import MAX_VIEWS, VIEW_SETS, Meta, ViewKey
from dataset.images.prepare import contact_sheet
from dataset.reading.shard_set import ShardSet


def preview(url: str | Path, out: Path, *, objects: int = 12, views_per_set: int = 4) -> int:
    """Write a contact sheet of the set at `url`: one row of views per object, on white. Return the number of rows.

    A row shows the object's uid, views of the view set "fixed", and views of the view set "random". Objects are spread
    evenly over the shard set, and views are spread evenly over each view set. A repeated call therefore shows the same
    objects and views.

    Args:
        url: Folder or fsspec URL of the shard set.
        out: Path of the PNG file to write.
        objects: Largest number of objects to show.
        views_per_set: Number of views to show of each view set, 1 to 100; fewer if the set has fewer.

    Raises:
        UserError: The set is empty, `objects` or `views_per_set` is out of range, or `out` cannot be written.
    """
    if objects < 1 or not 1 <= views_per_set <= MAX_VIEWS:
        raise UserError(
            f"--objects is {objects} and --views-per-set is {views_per_set}; --objects must be at least 1, and "
            f"--views-per-set 1 to {MAX_VIEWS}"
        )
    shards = ShardSet(url)
    if not len(shards):
        raise UserError(
            f"the set {url} contains no rendered objects; run `python -m dataset info {url}` to see why they failed"
        )
    places = _spread(shards.samples_per_shard, objects)
    wanted = [_shown(shards.meta(*place), views_per_set) for place in places]
    columns = max(map(len, wanted))
    views: list[NDArray[np.uint8]] = []
    for place, keys in zip(places, wanted, strict=True):
        row = list(shards.views(*place, keys))
        # Objects of imported sets differ in their views.
        views += [*row, *[np.zeros_like(row[0])] * (columns - len(row))]
    captions = [text for place in places for text in (shards.uid(*place), *[""] * (columns - 1))]
    _save(contact_sheet(views, columns, captions=captions), out)
    return len(places)


def _shown(meta: Meta, views_per_set: int) -> list[ViewKey]:
    """Return at most `views_per_set` views of each view set of an object, spread evenly over the view set."""
    counts = {view_set: len(meta.views[view_set]) for view_set in VIEW_SETS}
    return [
        (view_set, i * counts[view_set] // min(views_per_set, counts[view_set]))
        for view_set in VIEW_SETS
        for i in range(min(views_per_set, counts[view_set]))
    ]


def _spread(samples_per_shard: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    """Return (shard, sample) of `count` objects that are spread evenly over the set, starting with the first object."""
    ends = np.cumsum(samples_per_shard)
    total = int(ends[-1])
    chosen = [i * total // min(count, total) for i in range(min(count, total))]
    shards = [int(np.searchsorted(ends, i, side="right")) for i in chosen]
    return [(s, i - int(ends[s]) + samples_per_shard[s]) for s, i in zip(shards, chosen, strict=True)]


def _save(sheet: Image.Image, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; check the path and permissions") from error
