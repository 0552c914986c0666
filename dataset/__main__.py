"""`python -m dataset verify|info|preview|report|curate|copy|export|import`: check, show, score and convert sets."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from fsspec.implementations.local import LocalFileSystem

from dataset.check.info import format_info, info
from dataset.check.verify import verify
from dataset.copy.copy_set import OBJECTS_PER_SHARD, copy_sets
from dataset.curate.curate_set import curate_set
from dataset.errors import run_cli
from dataset.export.export_set import LAYOUTS, export_set
from dataset.format.manifest import UNKNOWN
from dataset.format.schema import MAX_VIEWS
from dataset.format.shards import read_index
from dataset.importing.import_set import import_set, views_text
from dataset.importing.settings import ImportSettings, parse_scale
from dataset.io.files import url_to_fs
from dataset.io.old_flags import rename_old_flags
from dataset.io.options import HiddenDefault
from dataset.reading.filters import Filters
from dataset.report.contact_sheet import preview
from dataset.report.page import write_report

Shards = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]


@dataclass(frozen=True)
class VerifyCommand:
    """List every truncated, missing, unexpected or corrupt file of a set. Exit with status 1 if there are any."""

    shards: Shards
    """Shard set, or latent set written by train.encode, to check: a folder or an fsspec URL such as s3://bucket/set."""

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
    """Print statistics of a shard set: counts, sizes, rates, failure reasons, flags, licenses, environment lights.

    Exit with status 2 if the manifest, the outcome tables and the shards do not list the same objects.
    """

    shards: Shards
    """Shard set to describe: a folder or an fsspec URL such as s3://bucket/set."""
    quick: bool = False
    """Skip the statistics that require reading metadata: coverage, clipped views, resolutions, lights."""

    def run(self) -> int:
        print(format_info(info(self.shards, quick=self.quick, progress=True)))
        return 0


@dataclass(frozen=True)
class PreviewCommand:
    """Write a contact sheet (PNG), one row per object: views at the fixed elevation, then at random elevations."""

    shards: Shards
    """Shard set to preview: a folder or an fsspec URL such as s3://bucket/set."""
    out: HiddenDefault[Annotated[Path | None, tyro.conf.arg(metavar="PATH")]] = None
    """Write the PNG to this file.
    Default: preview.png, or passes.png with --passes, in the set's folder or, for a remote set, in the current
    folder.
    """
    objects: int = 12
    """Show this many objects, spread evenly over the set."""
    views_per_set: int = 4
    """Show this many views (1 to 100) at the fixed elevation, and as many at random elevations."""
    passes: bool = False
    """Show the first view of each object and all its passes (depth, normals, ...) instead."""

    def run(self) -> int:
        out = self.out or _beside(self.shards, "passes.png" if self.passes else "preview.png")
        shown = preview(self.shards, out, objects=self.objects, views_per_set=self.views_per_set, passes=self.passes)
        print(f"{out}: {shown} objects")
        return 0


@dataclass(frozen=True)
class ReportCommand:
    """Write a self-contained HTML report of a shard set: counts, rates, failures with their stderr, turntables."""

    shards: Shards
    """Shard set to report on: a folder or an fsspec URL such as s3://bucket/set."""
    out: HiddenDefault[Annotated[Path | None, tyro.conf.arg(metavar="FILE")]] = None
    """Write the page to this file.
    Default: report.html in the set's folder or, for a remote set, in the current folder.
    """
    max_objects: int = 1000
    """Show images of this many objects, spread evenly over the set (about 7 kB each).
    Failed objects are always listed.
    """

    def run(self) -> int:
        out = self.out or _beside(self.shards, "report.html")
        report = write_report(self.shards, out, max_objects=self.max_objects, progress=True)
        statuses = report.about.outcomes.statuses
        print(f"{out}: {len(report.tiles)} of {report.about.requested} objects, {statuses['failed']} failed")
        return 0


@dataclass(frozen=True)
class CurateCommand:
    """Score the objects of a shard set for filtering: coverage, contrast, texture, flatness, symmetry, near-duplicates.

    The scores are written into the folder `curation` of the set; the shards are not changed. The option --where of
    copy, export and training selects objects by them, and `report` shows them. Repeat the command to resume. Exit with
    status 1 if images are damaged.
    """

    shards: Shards
    """Complete shard set to score: a folder or an fsspec URL such as s3://bucket/set."""
    workers: HiddenDefault[int | None] = None
    """Number of worker processes, which does not affect the output. Default: one per CPU."""

    def run(self) -> int:
        result = curate_set(self.shards, workers=self.workers, progress=True)
        print(
            f"{self.shards}: {result.objects} objects, {result.scored} of them scored now; {result.empty} empty, "
            f"{result.flat} flat, {result.duplicates} near-duplicates in {result.clusters} clusters"
        )
        if result.damaged:
            print(
                f"{result.damaged} damaged objects without scores; `python -m dataset verify {self.shards}` says more"
            )
            return 1
        return 0


@dataclass(frozen=True)
class CopyCommand:
    """Copy one or more shard sets into a new set, optionally at a lower resolution. Repeat the command to resume.

    Objects are copied in the order of the sets on the command line and, within a set, of its manifest. With filters,
    only rendered objects that pass the filters are copied. Without filters, the outcome rows of failed and skipped
    objects are copied too.
    """

    sets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SET...", help_behavior_hint="")]
    """Complete shard sets to copy: folders or fsspec URLs. No two sets may contain the same uid."""
    out: Annotated[str, tyro.conf.arg(metavar="OUT")]
    """Write the new set to this folder or fsspec URL."""
    resolution: HiddenDefault[int | None] = None
    """Downscale the images to this many pixels per side, a divisor of each set's resolution.
    Blocks of pixels are averaged in premultiplied alpha, and the camera intrinsics are scaled.
    Sets that already have this resolution are copied byte for byte.
    Default: copy byte for byte; all sets must then have the same resolution.
    """
    objects_per_shard: int = OBJECTS_PER_SHARD
    """Number of objects per shard, including failed objects."""
    filters: Annotated[Filters, tyro.conf.arg(name="")] = field(default_factory=Filters)
    """Conditions that objects must meet to be copied."""
    workers: HiddenDefault[int | None] = None
    """Number of worker processes, which does not affect the output. Default: one per CPU."""

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


@dataclass(frozen=True)
class ExportCommand:
    """Write the objects of a shard set in the file layout of another program. Repeat the command to resume.

    nerf: a folder with transforms.json per object, for nerfstudio and instant-ngp.
    colmap: a COLMAP text model per object, for 3D Gaussian Splatting and others.
    zero123, syncdreamer: the folders that the training code of Zero123 and SyncDreamer reads.
    """

    shards: Shards
    """Complete shard set to export: a folder or an fsspec URL such as s3://bucket/set."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write: new, empty, or that of the same export."""
    layout: Literal["nerf", "syncdreamer", "zero123", "colmap"]
    """File layout."""
    filters: Annotated[Filters, tyro.conf.arg(name="")] = field(default_factory=Filters)
    """Conditions that objects must meet to be exported."""
    workers: HiddenDefault[int | None] = None
    """Number of threads, which does not affect the output. Default: one per CPU."""

    def run(self) -> int:
        layout = LAYOUTS[self.layout]
        result = export_set(self.shards, self.out, layout, filters=self.filters, workers=self.workers, progress=True)
        print(f"{self.out}: {result.objects} objects in the layout {layout.name}, {result.written} of them new")
        if layout.notice:
            print(f"note: {layout.notice}")
        return 0


@dataclass(frozen=True)
class ImportCommand:
    """Make a shard set of posed images that another program rendered. Repeat the command to resume.

    nerf: transforms.json of nerfstudio and instant-ngp, or transforms_train.json, _val and _test of Blender.
    folder: images with a cameras.json, which is described in docs/dataset.md.

    An object that cannot be imported becomes a failed row of the outcome tables; the exit status is then 1.
    """

    layout: tyro.conf.Positional[Literal["nerf", "folder"]]
    """File layout of the source."""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of one object, or of one folder per object, whose name becomes its uid."""
    shards: Shards
    """Set to write: a folder, or an fsspec URL such as s3://bucket/set."""
    convention: HiddenDefault[Literal["opengl", "opencv"] | None] = None
    """Camera axes of the matrices of the layout folder; required if it has matrices.
    opengl: x right, y up, z backwards. opencv: x right, y down, z forwards.
    """
    up: Literal["z", "y"] = "z"
    """World axis that points up in the matrices of the layout folder."""
    resolution: HiddenDefault[int | None] = None
    """Reduce the images to this many pixels per side (8 to 2048), by averaging areas.
    Images that are not square are first padded with transparent pixels.
    Default: the longer side of the first object's images.
    """
    scale: Annotated[str, tyro.conf.arg(metavar="auto|FLOAT")] = "1"
    """Multiply the positions of the cameras by this factor.
    auto: for each object, such that the images show as much of the world at the origin as those of `make render`.
    """
    center: bool = False
    """Move the point that the cameras of an object look at to the origin. Otherwise, the object must be there."""
    opaque: bool = False
    """Also accept images without transparent pixels, and store them as they are. The background should be white."""
    max_views: int = MAX_VIEWS
    """Keep at most this many views of an object (1 to 100) besides the 16 fixed ones, spread evenly over the source."""
    license: str = UNKNOWN
    """License of all objects, such as CC-BY-4.0."""
    creator: str = UNKNOWN
    """Author of all objects."""
    objects_per_shard: int = OBJECTS_PER_SHARD
    """Number of objects per shard, including failed objects."""
    workers: HiddenDefault[int | None] = None
    """Number of worker processes, which does not affect the output. Default: one per CPU."""

    def run(self) -> int:
        settings = ImportSettings(
            layout=self.layout,
            convention=self.convention,
            up=self.up,
            resolution=self.resolution,
            scale=parse_scale(self.scale),
            center=self.center,
            opaque=self.opaque,
            max_views=self.max_views,
            license=self.license,
            creator=self.creator,
        )
        summary = import_set(
            self.source,
            self.shards,
            settings,
            objects_per_shard=self.objects_per_shard,
            workers=self.workers,
            progress=True,
        )
        index = summary.index
        print(
            f"{self.shards}: {index.objects} objects, {index.views} views in {len(index.shards)} shards, "
            f"{index.bytes / 1e6:.1f} MB; failed {len(summary.failed)}"
        )
        if summary.left_out:
            print(f"{summary.left_out} views were left out (--max-views {self.max_views})")
        print(views_text(summary))
        return 1 if summary.failed else 0


Command = (
    VerifyCommand
    | InfoCommand
    | PreviewCommand
    | ReportCommand
    | CurateCommand
    | CopyCommand
    | ExportCommand
    | ImportCommand
)


def _beside(shards: str, name: str) -> Path:
    """Return the path of the file `name` in the folder of the set `shards`; for a remote set, in the current folder."""
    fs, root = url_to_fs(shards)
    return Path(root) / name if isinstance(fs, LocalFileSystem) else Path(name)


def main() -> int:
    """Parse the command line, run the command, and return its exit status."""
    command: Command = tyro.cli(
        Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
        | Annotated[InfoCommand, tyro.conf.subcommand("info")]
        | Annotated[PreviewCommand, tyro.conf.subcommand("preview")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")]
        | Annotated[CurateCommand, tyro.conf.subcommand("curate")]
        | Annotated[CopyCommand, tyro.conf.subcommand("copy")]
        | Annotated[ExportCommand, tyro.conf.subcommand("export")]
        | Annotated[ImportCommand, tyro.conf.subcommand("import")],
        prog="python -m dataset",
        args=rename_old_flags(sys.argv[1:], {"--licences": "--licenses"}),
        description="Check, describe, preview, report on, score, copy, export or import shard sets.",
    )
    return command.run()


if __name__ == "__main__":
    run_cli(main)
