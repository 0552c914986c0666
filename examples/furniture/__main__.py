"""Convert Debian's package `sweethome3d-furniture` into a folder of OBJ files that `python -m render` reads.

apt-get download sweethome3d-furniture
python -m examples.furniture sweethome3d-furniture_*.deb --out data/furniture
python -m render --source folder:data/furniture --shards data/furniture-shards
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dataset.errors import UserError, run_cli
from dataset.reading.labels import LABELS_FILE
from examples.debian_package import package_files
from examples.furniture.convert import MANIFEST_COLUMNS, Options, Result, convert_library, csv_bytes, uids_of
from render.sources.source import MANIFEST_NAME


@dataclass(frozen=True)
class Furniture:
    """Convert Debian's package `sweethome3d-furniture` into a folder of OBJ files for `python -m render`.

    People, doors, windows, stairs and flat objects are skipped. manifest.csv has the license, creator and title of each
    object; labels.csv has its kind. The same input gives the same files. An existing result is replaced.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The .deb, an .sh3f file, or a folder of .sh3f files (/usr/share/sweethome3d/furniture if installed)."""
    out: Path = Path("data/furniture")
    """Output folder."""
    min_flatness: float = 0.04
    """Skip objects whose smallest extent is less than this part of the largest."""
    max_image_px: int = 512
    """Scale images down to at most this width and height."""
    max_model_mb: float | None = None
    """Skip objects with a larger OBJ file, in MB. Default: no limit."""


def run(command: Furniture) -> None:
    """Convert all libraries, first into a temporary folder. Raises UserError for bad input."""
    options = Options(command.min_flatness, command.max_image_px, command.max_model_mb)
    out = command.out.absolute()
    if out.exists() and not ((out / MANIFEST_NAME).is_file() and (out / LABELS_FILE).is_file()):
        raise UserError(
            f"{out} exists and is not a result of this command (manifest.csv or labels.csv is missing); "
            f"choose another --out, or remove {out}"
        )
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        result = Result()
        for name, data in _libraries(command.source):
            convert_library(name, data, partial, options, result)
        _write_tables(partial, result)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise UserError(
            f"cannot write the folder {out} ({error}); check the free disk space and the permissions, then run the "
            "command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _report(command, result)


def _libraries(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.suffix.lower() == ".sh3f" and source.is_file():
        yield source.name, source.read_bytes()
        return
    for path, data in package_files(source, ".sh3f"):
        yield path.name, data


def _write_tables(folder: Path, result: Result) -> None:
    """Write manifest.csv and labels.csv, sorted by uid. Raises UserError when two libraries have the same object."""
    files = [row[0] for row in result.rows]
    if repeated := [file for file, count in Counter(files).items() if count > 1]:
        raise UserError(
            f"the model {repeated[0]} is in more than one .sh3f file; give a folder with one version of each library"
        )
    uids = uids_of(files)
    rows = sorted((uid, *row) for uid, row in zip(uids, result.rows, strict=True))
    labels = sorted(zip(uids, result.labels, strict=True))
    (folder / MANIFEST_NAME).write_bytes(csv_bytes(MANIFEST_COLUMNS, rows))
    (folder / LABELS_FILE).write_bytes(csv_bytes(("uid", "label"), labels))


def _report(command: Furniture, result: Result) -> None:
    for reason, names in sorted(result.skipped.items()):
        counted = ", ".join(name if n == 1 else f"{name} ({n})" for name, n in sorted(Counter(names).items()))
        print(f"skipped {len(names)} ({reason}): {counted}")
    if result.downscaled:
        print(f"scaled down {result.downscaled} images to at most {command.max_image_px} px (--max-image-px)")
    licenses = ", ".join(f"{n} {name}" for name, n in sorted(Counter(row[2] for row in result.rows).items()))
    kinds = len(set(result.labels))
    print(f"{command.out}: {len(result.rows)} objects of {kinds} kinds, {result.total_bytes / 1e6:.0f} MB ({licenses})")


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Furniture, prog="python -m examples.furniture")))
