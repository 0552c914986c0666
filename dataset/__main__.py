"""`python -m dataset verify|info|preview|report|copy SHARDS`: check, describe, preview or copy a shard set."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from fsspec.implementations.local import LocalFileSystem

from dataset.check.info import format_info, info
from dataset.check.verify import verify
from dataset.copy.copy_set import OBJECTS_PER_SHARD, copy_sets
from dataset.errors import run_cli
from dataset.format.shards import read_index
from dataset.io.files import url_to_fs
from dataset.io.old_flags import rename_old_flags
from dataset.io.options import HiddenDefault
from dataset.reading.filters import Filters
from dataset.report.contact_sheet import preview
from dataset.report.page import write_report

Shards = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]


@dataclass(frozen=True)
class VerifyCommand:
    """List every member that is truncated, missing, unexpected or corrupt. The exit status is 1 if there are any."""

    shards: Shards
    """Shard set or latent set (train.encode): a folder or an fsspec URL such as s3://bucket/set."""

    def run(self) -> int:
        problems = verify(self.shards, progress=True)
        for problem in problems:
            print(problem)
        if problems:
            print(f"{len(problems)} problems in {self.shards}")
            return 1
        index = read_index(self.shards)
        print(f"{self.shards} is sound: {index.objects} objects, {index.views} views in {len(index.shards)} shards")
        return 0


@dataclass(frozen=True)
class InfoCommand:
    """Print statistics: objects, sizes, rates, failures by reason, flags, licenses, sources, lights and clipped views.

    The exit status is 2 if the manifest, the outcome tables and the shards disagree.
    """

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""
    quick: bool = False
    """Skip statistics that need every object's metadata: coverage, clipped views, resolutions, environment lights."""

    def run(self) -> int:
        print(format_info(info(self.shards, quick=self.quick, progress=True)))
        return 0


@dataclass(frozen=True)
class PreviewCommand:
    """Write a contact sheet (PNG): one row per object, fixed views on the left, random views on the right."""

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""
    out: HiddenDefault[Annotated[Path | None, tyro.conf.arg(metavar="PATH")]] = None
    """Output file. Default: preview.png in the set's folder; for a remote set, in the current folder."""
    objects: int = 12
    """Number of objects, spread evenly over the set."""
    views_per_set: int = 4
    """Number of views from each of the two view sets, 1 to 16."""

    def run(self) -> int:
        out = self.out or _beside(self.shards, "preview.png")
        shown = preview(self.shards, out, objects=self.objects, views_per_set=self.views_per_set)
        print(f"{out}: {shown} objects")
        return 0


@dataclass(frozen=True)
class ReportCommand:
    """Write one self-contained HTML page: counts, rates, failures with their stderr, and turntables of objects."""

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""
    out: HiddenDefault[Annotated[Path | None, tyro.conf.arg(metavar="FILE")]] = None
    """Output file. Default: report.html in the set's folder; for a remote set, in the current folder."""
    max_objects: int = 1000
    """Number of objects with images, spread evenly over the set (about 7 kB each). Failed objects are always listed."""

    def run(self) -> int:
        out = self.out or _beside(self.shards, "report.html")
        report = write_report(self.shards, out, max_objects=self.max_objects, progress=True)
        statuses = report.about.outcomes.statuses
        print(f"{out}: {len(report.tiles)} of {report.about.requested} objects, {statuses['failed']} failed")
        return 0


@dataclass(frozen=True)
class CopyCommand:
    """Copy one or several rendered sets into one set, optionally at a lower resolution. Repeat the command to resume.

    Objects keep the order of the sets and of each set's manifest. With filters, only objects that pass are copied;
    without, the outcome rows of failed and skipped objects are copied too.
    """

    sets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SET...", help_behavior_hint="")]
    """Complete shard sets: folders or fsspec URLs such as s3://bucket/set. A uid may occur in one set only."""
    out: Annotated[str, tyro.conf.arg(metavar="OUT")]
    """Shard set to write: a folder or an fsspec URL."""
    resolution: HiddenDefault[int | None] = None
    """Pixels per side; must divide each set's resolution. Blocks of pixels are averaged in premultiplied alpha, and
    intrinsics are scaled. Sets of this resolution are copied byte for byte. Default: copy all sets byte for byte, if
    they have the same resolution."""
    objects_per_shard: int = OBJECTS_PER_SHARD
    """Objects per shard, including failed ones."""
    filters: Annotated[Filters, tyro.conf.arg(name="")] = field(default_factory=Filters)
    """Conditions that objects must meet to be copied."""
    workers: HiddenDefault[int | None] = None
    """Number of processes. Default: one per CPU. The output does not depend on it."""

    def run(self) -> int:
        index = copy_sets(
            self.sets,
            self.out,
            resolution=self.resolution,
            objects_per_shard=self.objects_per_shard,
            filters=self.filters,
            workers=self.workers,
            progress=True,
        )
        print(
            f"{self.out}: {index.objects} objects, {index.views} views in {len(index.shards)} shards, "
            f"{index.bytes / 1e6:.1f} MB"
        )
        return 0


def _beside(shards: str, name: str) -> Path:
    """Return a path in the set's folder; for a remote set, in the current folder."""
    fs, root = url_to_fs(shards)
    return Path(root) / name if isinstance(fs, LocalFileSystem) else Path(name)


def main() -> int:
    """Parse the command line and run one of the five commands."""
    command: VerifyCommand | InfoCommand | PreviewCommand | ReportCommand | CopyCommand = tyro.cli(
        Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
        | Annotated[InfoCommand, tyro.conf.subcommand("info")]
        | Annotated[PreviewCommand, tyro.conf.subcommand("preview")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")]
        | Annotated[CopyCommand, tyro.conf.subcommand("copy")],
        prog="python -m dataset",
        args=rename_old_flags(sys.argv[1:], {"--licences": "--licenses"}),
        description="Check, describe, preview, report on or copy shard sets.",
    )
    return command.run()


if __name__ == "__main__":
    run_cli(main)
