"""Write a contact sheet of a shard set: some views or passes of some objects, in one PNG file."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.format.schema import MAX_VIEWS, VIEW_SETS, Meta, ViewKey
from dataset.images.prepare import contact_sheet, to_uint8_rgb
from dataset.reading.shard_set import ShardSet
from dataset.report.pass_pictures import pass_picture

_LETTER_PX: Final = 6  # mean width of a letter of a caption


def preview(url: str | Path, out: Path, *, objects: int = 12, views_per_set: int = 4, passes: bool = False) -> int:
    """Write a contact sheet of the set at `url`: one row per object, on white. Return the number of rows.

    A row shows the object's uid, views of the view set "fixed", and views of the view set "random". Objects are spread
    evenly over the shard set, and views are spread evenly over each view set. A repeated call therefore shows the same
    objects and views. With `passes`, a row shows the first view and all its passes instead.

    Args:
        url: Folder or fsspec URL of the shard set.
        out: Path of the PNG file to write.
        objects: Largest number of objects to show.
        views_per_set: Number of views to show of each view set, 1 to 100; fewer if the set has fewer.
        passes: Show the passes of one view.

    Raises:
        UserError: The set is empty or has no passes to show, `objects` or `views_per_set` is out of range, or `out`
            cannot be written.
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
    if passes:
        sheet = pass_sheet(shards, objects)
        if sheet is None:
            raise UserError(f"the set {url} has no passes; render it again with --passes all")
        _save(sheet, out)
        return len(places)
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


def first_view(meta: Meta) -> ViewKey:
    """Return the first view of an object: fixed_00, or random_00 if the object has no fixed views."""
    return ("fixed" if meta.views["fixed"] else "random", 0)


def pass_sheet(shards: ShardSet, objects: int, side: int | None = None) -> Image.Image | None:
    """Return a sheet with a row per object: the first view, then each of its passes. None if no object has passes.

    Args:
        shards: The set. It must not be empty.
        objects: Largest number of objects to show, spread evenly over the set.
        side: Height and width of a picture in pixels. None: as stored.

    Raises:
        UserError: A file is damaged.
    """
    places = _spread(shards.samples_per_shard, objects)
    metas = [shards.meta(*place) for place in places]
    columns = 1 + max(len(meta.passes) for meta in metas)
    if columns == 1:
        return None
    pictures: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for place, meta in zip(places, metas, strict=True):
        wanted = [first_view(meta)]
        row = [to_uint8_rgb(shards.views(*place, wanted)[0])]
        passes = {name: shards.passes(*place, name, wanted)[0] for name in meta.passes}
        covered = passes["mask"] if "mask" in passes else passes["depth"] > 0 if "depth" in passes else None
        row += [pass_picture(name, values, covered) for name, values in passes.items()]
        blank = columns - len(row)
        row += [np.full_like(row[0], 255)] * blank
        pictures += row if side is None else [_resized(picture, side) for picture in row]
        captions += [_cut(meta.uid, pictures[0].shape[1]), *meta.passes, *[""] * blank]
    return contact_sheet(pictures, columns, captions=captions)


def _cut(text: str, width: int) -> str:
    """Cut a text so that it is about `width` pixels wide at most."""
    most = max(4, width // _LETTER_PX)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX))


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
