"""`python -m dataset verify|info|preview SHARDS`: check a shard set, describe it, picture it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from fsspec.implementations.local import LocalFileSystem

from dataset.errors import run_cli
from dataset.report import format_info, info, preview
from dataset.shards import open_set, read_index
from dataset.verify import verify

Shards = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]


@dataclass(frozen=True)
class Verify:
    """Find every truncated, missing, foreign or corrupt member, and name it. Exit status 1 if there is any."""

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""

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
class Info:
    """Print counts, sizes, licences, sources, environment lights, failures by reason, clipped views."""

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""

    def run(self) -> int:
        print(format_info(info(self.shards, progress=True)))
        return 0


@dataclass(frozen=True)
class Preview:
    """Write a contact sheet (PNG): a row an object, fixed views on the left, random ones on the right."""

    shards: Shards
    """Shard set: a folder or an fsspec URL such as s3://bucket/set."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where to write it. Default: preview.png in the set's folder; for a remote set, in the current folder."""
    objects: int = 12
    """How many objects, spread evenly over the set."""
    views_per_set: int = 4
    """How many views of each of the two sets, 1 to 16."""

    def run(self) -> int:
        fs, root = open_set(self.shards)
        out = self.out or (Path(root) / "preview.png" if isinstance(fs, LocalFileSystem) else Path("preview.png"))
        shown = preview(self.shards, out, objects=self.objects, views_per_set=self.views_per_set)
        print(f"{out}: {shown} objects")
        return 0


def main() -> int:
    """Parse the command line and run one of the three commands."""
    command: Verify | Info | Preview = tyro.cli(
        Verify | Info | Preview,
        prog="python -m dataset",
        description="Check a shard set, describe it, picture it.",
    )
    return command.run()


if __name__ == "__main__":
    run_cli(main)
