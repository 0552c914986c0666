"""Export the ground-truth meshes of a shard set as UID.glb, for `python -m distill.evaluate --meshes`.

    python -m render.true_meshes --shards data/procedural --out data/procedural-meshes
    python -m render.true_meshes --shards data/objects --folder data/models --out data/object-meshes

Procedural objects are rebuilt. GLB files of a folder source are copied; a file whose sha256 has changed since rendering
is left out. Meshes that already exist in the output folder are kept.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tyro

from dataset.errors import UserError, run_cli
from dataset.format.manifest import Asset, Manifest
from dataset.format.schema import Meta
from dataset.io.files import url_to_fs
from dataset.io.options import HiddenDefault
from dataset.io.progress import ProgressBar
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split, split_of
from dataset.reading.shard_set import ShardSet
from render.sources.model_file import object_sha256
from render.system_check import find_problem

_NOT_GLB: Final = "not a GLB file"
_NO_FOLDER: Final = "from a folder, but --folder is not set"
_CHANGED: Final = "no longer the file that was rendered"
_OTHER_SOURCE: Final = "neither procedural nor from a folder"


@dataclass(frozen=True)
class TrueMeshes:
    """Export the ground-truth meshes of a shard set into a folder, as GLB files."""

    shards: str
    """Export the meshes of this shard set: a folder or an fsspec URL."""
    out: Path
    """Write the meshes to this folder, one file UID.glb per object."""
    split: Split = "test"
    """Export only the meshes of this split. A hash of the uid assigns each object to a split."""
    folder: HiddenDefault[Path | None] = None
    """Copy the meshes from this folder, the one that was rendered. Required for sets whose source was a folder."""


def run(args: TrueMeshes) -> None:
    """Export the meshes and print a summary.

    Raises UserError when no object is in the split, or when procedural objects cannot be built on this machine.
    """
    shards = ShardSet(args.shards)
    assets = {asset.uid: asset for asset in Manifest(*url_to_fs(args.shards)).assets()}
    places = list(_places(shards, args.split))
    if not places:
        raise UserError(
            f"{args.shards}: none of the {len(shards)} objects is in the {args.split} split; choose another --split"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    without: Counter[str] = Counter()
    for place in ProgressBar(places, desc="meshes", unit="mesh", mininterval=1.0):
        uid = shards.uid(*place)
        path = args.out / f"{uid}.glb"
        if not path.is_file() and (reason := _write(assets[uid], shards.meta(*place), args.folder, path)):
            without[reason] += 1
    print(f"{args.out}: {len(places) - without.total()} of {len(places)} meshes ({args.split} split)")
    for reason, count in without.items():
        print(f"note: {count} left out: {reason}")


def _places(shards: ShardSet, split: Split) -> Iterator[tuple[int, int]]:
    for shard, samples in enumerate(shards.samples_per_shard):
        for sample in range(samples):
            if split in ("all", split_of(shards.uid(shard, sample), VALIDATION_SHARE, TEST_SHARE)):
                yield shard, sample


def _write(asset: Asset, meta: Meta, folder: Path | None, path: Path) -> str:
    """Write an object's mesh to `path`. Return the reason if the mesh is not available, otherwise an empty string."""
    if asset.procedural_index is not None:
        _build()(asset.procedural_index, meta.seed, path)
        return ""
    if asset.file is None:
        return _OTHER_SOURCE
    if not asset.file.lower().endswith(".glb"):
        return _NOT_GLB
    if folder is None:
        return _NO_FOLDER
    source = folder / asset.file
    if not source.is_file() or object_sha256(source.resolve(), folder.resolve()) != meta.asset_sha256:
        return _CHANGED
    temporary = path.with_name(f".{path.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(path)
    return ""


def _build() -> Any:
    """Return `render.blender.procedural_glb.export`. Raises UserError when Blender cannot run on this machine."""
    if (problem := find_problem()) is not None:
        raise UserError(problem)
    from render.blender.procedural_glb import export

    return export


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(TrueMeshes, prog="python -m render.true_meshes")))
