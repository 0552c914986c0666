"""Select objects of a set for training or copying, and count the excluded ones.

selection = select("data/shards", Filters(without_flags=("clipped",), split="train"))
print(selection)
shards = ShardSet("data/shards", kept=selection.kept)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import tyro

from dataset.errors import UserError
from dataset.format.manifest import UNKNOWN, Asset
from dataset.format.outcomes import Flag, Outcome
from dataset.format.schema import check_uid
from dataset.io.options import HiddenDefault
from dataset.reading.expression import parse_expression
from dataset.reading.reconcile import Slice, slices
from dataset.reading.scores import Condition
from dataset.reading.shard_set import DamagedMember, Kept

Split = Literal["all", "train", "validation", "test"]
VALIDATION_SHARE: Final = 0.05  # share of the objects, by a hash of their uids
TEST_SHARE: Final = 0.05
_SPLITTER: Final = "isotropic3d split 1"  # changing it would move objects between splits
_SUMMED: Final = 2**64
_FILTERS: Final = ("uids", "split", "license", "flag", "where", "coverage")  # in the order in which they are applied


@dataclass(frozen=True)
class Filters:
    """Conditions for selecting objects. An object is kept if it meets all of them; the defaults keep every object."""

    without_flags: HiddenDefault[tuple[str, ...]] = ()
    """Exclude objects that have any of these quality flags: clipped, near-black, low-coverage, ..."""
    min_coverage: float = 0.0
    """Exclude objects whose mean alpha over the 32 views is below this value, 0 to 1.
    Values above 0 require reading the metadata of all objects.
    """
    max_coverage: float = 1.0
    """Exclude objects whose mean alpha over the 32 views is above this value, 0 to 1."""
    # set.json keeps the field's name
    licences: HiddenDefault[Annotated[tuple[str, ...], tyro.conf.arg(name="licenses")]] = ()
    """Keep only objects with these licenses, named as in the manifest (CC0-1.0, CC-BY-4.0, ...). Default: all."""
    uids: HiddenDefault[Path | None] = None
    """Keep only the objects whose uids are listed in this text file, one per line.
    Empty lines and lines that begin with # are ignored.
    """
    where: HiddenDefault[Annotated[str | None, tyro.conf.arg(metavar="EXPRESSION")]] = None
    """Keep only objects for which this expression is true, such as "texture > 0.1 and not flat".
    Most columns are scores, which `python -m dataset curate` must have computed; docs/dataset.md lists the columns.
    """
    split: Split = "all"
    """Keep only the objects of this split.
    A hash of the uid assigns each object to a split, the same one in every set and for every seed.
    """
    validation_share: float = VALIDATION_SHARE
    """Share of the objects that belong to the validation split, 0 to 1."""
    test_share: float = TEST_SHARE
    """Share of the objects that belong to the test split, 0 to 1."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.without_flags) - set(get_args(Flag))):
            raise UserError(f"unknown quality flag {', '.join(unknown)}; choose from {', '.join(get_args(Flag))}")
        if self.where is not None:
            parse_expression(self.where)
        if not 0 <= self.min_coverage <= self.max_coverage <= 1:
            raise UserError(
                f"the coverage range is {self.min_coverage} to {self.max_coverage}; both numbers must be from 0 to 1, "
                "and the minimum must not exceed the maximum"
            )
        shares = (self.validation_share, self.test_share)
        if not (min(shares) >= 0 and sum(shares) < 1):  # NaN is refused too
            raise UserError(
                f"the shares of the validation and the test split are {shares}; each share must be at least 0 and "
                "their sum below 1"
            )


@dataclass(frozen=True)
class FilterResult:
    """The objects of one set that pass the filters (`kept`), and how many objects each filter excludes (`dropped`).

    An object that fails several filters is counted for the first of these filters only.
    """

    url: str
    kept: Kept
    objects: int  # of the whole set
    dropped: Counter[str] = field(default_factory=Counter)
    missing_uids: int = 0  # of the uid list; not in this set
    licenses: Counter[str] = field(default_factory=Counter)  # of the whole set

    def __len__(self) -> int:
        return sum(len(samples) for samples in self.kept)

    def __str__(self) -> str:
        """Return the number of kept objects and, on one line each, the number of objects that each filter excludes."""
        lines = [f"{self.url}: {len(self)} of {self.objects} objects kept"]
        lines += [f"  {count:8d} left out: {reason}" for reason, count in self.dropped.items()]
        if self.missing_uids:
            lines.append(f"  {self.missing_uids:8d} uids of the list are in no shard of this set")
        return "\n".join(lines)


def split_of(uid: str, validation_share: float, test_share: float) -> Split:
    """Return the split (train, validation or test) of the object `uid`. It depends only on the uid and the two shares.

    `validation_share` is the share of all objects, 0 to 1, that belongs to the validation split. `test_share` is the
    share that belongs to the test split. If a share is increased, objects move from the train split to that split.
    """
    place = int.from_bytes(sha256(f"{_SPLITTER}/{uid}".encode()).digest()[:8], "big") / _SUMMED
    if place < validation_share:
        return "validation"
    return "test" if place >= 1 - test_share else "train"


def read_uids(path: Path) -> frozenset[str]:
    """Read a text file with one uid per line. Empty lines and lines that begin with # are ignored.

    Raises:
        UserError: The file is missing, contains no uid, or contains an invalid uid.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the uids in the file {path} ({error}); give a text file with one uid per line"
        ) from error
    uids = frozenset(check_uid(line) for line in lines if line and not line.startswith("#"))
    if not uids:
        raise UserError(f"the file {path} contains no uids; give a text file with one uid per line")
    return uids


def select(url: str | Path, filters: Filters) -> FilterResult:
    """Return the objects of the shard set at `url` that pass the filters.

    Raises:
        UserError: No object passes the filters, or the set is missing, unfinished or inconsistent.
    """
    selection = apply_filters(url, filters)
    check_not_empty([selection], filters)
    return selection


def check_not_empty(selections: Sequence[FilterResult], filters: Filters) -> None:
    """Check that objects remain after filtering one or more sets. `selections` are the results of `apply_filters`.

    Raises:
        UserError: No object of any set passes the filters, or no object has one of the licenses that `filters` name.
    """
    licenses = Counter({name: n for selection in selections for name, n in selection.licenses.items()})
    if unknown := sorted(set(filters.licences) - licenses.keys()):
        urls = ", ".join(selection.url for selection in selections)
        raise UserError(
            f"in the set {urls}, no object has the license {', '.join(unknown)}; choose from {', '.join(licenses)}"
        )
    if not any(len(selection) for selection in selections):
        counts = "\n".join(map(str, selections))
        raise UserError(f"no objects pass the filters; give filters that keep more objects. {counts}")


def apply_filters(url: str | Path, filters: Filters) -> FilterResult:
    """Return the objects of the shard set at `url` that pass the filters; there may be none.

    This reads the manifest, the outcome tables and the statistics of the set. Filters on coverage also require reading
    the metadata of all objects, and an expression (`where`) the scores.

    Raises:
        UserError: The set is missing, unfinished or inconsistent, or it lacks the scores that `where` uses.
    """
    listed = read_uids(filters.uids) if filters.uids else None
    condition = Condition(filters.where, url) if filters.where is not None else None
    dropped: dict[str, Counter[str]] = {name: Counter() for name in _FILTERS}
    licenses: Counter[str] = Counter()
    kept, objects, listed_here = [], 0, 0
    for part in slices(url):
        samples = []
        for stored in _stored(part):
            licenses[stored.license] += 1
            listed_here += listed is not None and stored.asset.uid in listed
            if failed := next(_failures(filters, listed, condition, stored), None):
                dropped[failed[0]][failed[1]] += 1
            else:
                samples.append(stored.sample)
        objects += len(part.uids)
        kept.append(np.array(samples, np.int32))
    counts = Counter({reason: n for group in dropped.values() for reason, n in sorted(group.items())})
    return FilterResult(str(url), tuple(kept), objects, counts, len(listed) - listed_here if listed else 0, licenses)


@dataclass(frozen=True)
class _Stored:
    """An object that is stored in a shard, with its manifest row (`asset`) and its outcome row (`row`)."""

    part: Slice
    sample: int
    asset: Asset
    row: Outcome

    @property
    def license(self) -> str:
        return self.asset.license or UNKNOWN

    def coverage(self) -> float:
        """Return the mean alpha over all views of the object, 0 to 1. This reads the object's metadata."""
        views = [view for views in self.part.reader.meta(self.part.shard, self.sample).views.values() for view in views]
        return sum(view.alpha_coverage for view in views) / len(views)


def _stored(part: Slice) -> Iterator[_Stored]:
    """Yield the objects that are stored in one shard, in order. `slices` has checked that rows and samples match."""
    rows = ((asset, row) for asset, row in zip(part.assets, part.rows, strict=True) if row.status == "ok")
    return (_Stored(part, sample, asset, row) for sample, (asset, row) in enumerate(rows))


def _failures(
    filters: Filters, listed: frozenset[str] | None, condition: Condition | None, stored: _Stored
) -> Iterator[tuple[str, str]]:
    """Yield (filter, reason) for each filter that the object `stored` fails; the slow coverage filter comes last."""
    if listed is not None and stored.asset.uid not in listed:
        yield "uids", "not in the list of uids"
    if filters.split != "all":
        part = split_of(stored.asset.uid, filters.validation_share, filters.test_share)
        if part != filters.split:
            yield "split", f"in the {part} split"
    if filters.licences and stored.license not in filters.licences:
        yield "license", f"license {stored.license}"
    for flag in filters.without_flags:
        if flag in stored.row.flags:
            yield "flag", f"flag {flag}"
    if condition is not None and (reason := condition.failure(stored.part.shard, stored.asset, stored.row)):
        yield "where", reason
    if filters.min_coverage > 0 or filters.max_coverage < 1:
        yield from _coverage_failures(filters, stored)


def _coverage_failures(filters: Filters, stored: _Stored) -> Iterator[tuple[str, str]]:
    try:
        coverage = stored.coverage()
    except DamagedMember:
        yield "coverage", "metadata damaged, coverage unknown"
        return
    if coverage < filters.min_coverage:
        yield "coverage", f"coverage below {filters.min_coverage:g}"
    if coverage > filters.max_coverage:
        yield "coverage", f"coverage above {filters.max_coverage:g}"
