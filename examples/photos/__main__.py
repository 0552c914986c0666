"""Extract the labelled cut-out images of Debian's package `tuxpaint-stamps-default` (GPL-2), an evaluation set.

    apt-get download tuxpaint-stamps-default
    python -m examples.photos tuxpaint-stamps-default_*.deb --out data/photos

labels.csv beside this file lists the images of single objects: the file in the package, its label (kind of object),
whether the kind is `known` (the bundled model is trained on it: yes, no, or near for a relative of a known kind), and
the style (photo or drawing).
"""

import csv
import io
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import tyro
from PIL import Image

from dataset.errors import UserError, one_line, run_cli
from dataset.io.files import write_file_atomic
from dataset.reading.csv_table import read_csv_table
from dataset.reading.labels import LABELS_FILE, PHOTO_COLUMNS, check_known
from examples.debian_package import package_files
from render.model_files.errors import ModelError
from render.model_files.image_header import check_image_size

logger = logging.getLogger(__name__)
LABELS: Final = Path(__file__).with_name(LABELS_FILE)
_STAMPS: Final = "stamps"  # the folder of the images in the package


@dataclass(frozen=True)
class Photos:
    """Extract the labelled cut-out images of Debian's package `tuxpaint-stamps-default` for evaluation.

    Writes the images and a labels.csv (file, label, known, style). Files that exist already are replaced.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The .deb, or the folder /usr/share/tuxpaint/stamps if the package is installed."""
    out: Path = Path("data/photos")
    """Output folder."""
    labels: Path = LABELS
    """CSV file with the columns file, label, known and style. Files are relative to the package's folder stamps/."""
    min_px: int = 150
    """Smallest width or height, whichever is larger, of the visible part of an image."""


def run(command: Photos) -> None:
    """Extract the labelled images that are large enough. Raises UserError for bad input."""
    labels = read_stamp_labels(command.labels)
    if command.out.resolve().is_relative_to(command.source.resolve()):
        raise UserError(
            f"--out {command.out} is the source folder {command.source} or is inside of it; choose a folder outside"
        )
    written: list[dict[str, str]] = []
    unlabelled: list[str] = []
    small: list[str] = []
    for path, data in package_files(command.source, ".png"):
        file = _stamp_name(path)
        if visible_px(data, file) < command.min_px:
            small += [file] if file in labels else []
        elif file not in labels:
            unlabelled.append(file)
        else:
            name = file.replace("/", "-")
            write_file_atomic(command.out / name, data)
            written.append({**labels[file], "file": name})
    _report_left_out(command, labels, written, unlabelled, small)
    written.sort(key=lambda row: row["file"])
    write_file_atomic(command.out / LABELS_FILE, _csv_bytes(written))
    counts = Counter(row["known"] for row in written)
    kinds = len({row["label"] for row in written if row["known"] == "yes"})
    print(
        f"{command.out}: {len(written)} images; {counts['yes']} of {kinds} known kinds, {counts['no']} of unknown "
        f"kinds, {counts['near']} of relatives of known kinds"
    )


def read_stamp_labels(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the table of labelled stamps as file in the package -> column -> text.

    Raises UserError for an unusable table.
    """
    rows = read_csv_table(path, PHOTO_COLUMNS, f"give --labels a CSV file with the columns {', '.join(PHOTO_COLUMNS)}")
    for number, row in rows:
        check_known(f"{path}, line {number}", row["known"])
    return {row["file"]: {column: row[column] for column in PHOTO_COLUMNS} for _, row in rows}


def visible_px(data: bytes, name: str) -> int:
    """Return the width or height, whichever is larger, of the box around the visible pixels of an image.

    Returns 0 if no pixel of the image is fully transparent.

    Args:
        data: The bytes of the image file.
        name: Name of the image, for the error message.

    Raises UserError when the image cannot be decoded.
    """
    try:
        check_image_size(name, data)
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("RGBA", "LA") and "transparency" not in image.info:
                return 0
            alpha = image.convert("RGBA").getchannel("A")
    except (OSError, SyntaxError, ValueError, ModelError, Image.DecompressionBombError) as error:
        raise UserError(f"the image {name} cannot be read ({one_line(error)}); download the package again") from error
    left, top, right, bottom = alpha.getbbox() or (0, 0, 0, 0)
    is_cut_out = alpha.getextrema()[0] == 0
    return max(right - left, bottom - top) if is_cut_out else 0


def _stamp_name(path: PurePosixPath) -> str:
    """Return the path of an image relative to the folder stamps/, if that is in the path."""
    parts = path.parts
    return "/".join(parts[parts.index(_STAMPS) + 1 :] if _STAMPS in parts else parts)


def _report_left_out(
    command: Photos,
    labels: dict[str, dict[str, str]],
    written: list[dict[str, str]],
    unlabelled: list[str],
    small: list[str],
) -> None:
    if not written:
        raise UserError(
            f"{command.source} contains none of the images that {command.labels} lists, or only images below "
            f"{command.min_px} px (--min-px); give the .deb file of tuxpaint-stamps-default or its folder stamps/"
        )
    if unlabelled:
        folders = Counter(file.rpartition("/")[0] for file in unlabelled)
        counted = ", ".join(f"{folder} ({n})" for folder, n in sorted(folders.items()))
        print(f"skipped {len(unlabelled)} images without a label: {counted}")
    if small:
        print(f"skipped {len(small)} images below {command.min_px} px or without transparency: {', '.join(small)}")
    if missing := len(labels) - len(written) - len(small):
        logger.warning("%d labelled images are not in %s; it is another version", missing, command.source)


def _csv_bytes(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, PHOTO_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Photos, prog="python -m examples.photos")))
