"""Draw input and result of a fixed choice of evaluated images as one small image, failures included.

    python -m distill.evaluate.photos.choose_sheet data/photo-evaluation data/example-evaluation --out sheet.webp

The rule: the first --rows images of each evaluation, in the order in which the evaluation takes images. This is one
image of each kind in turn, kinds and files ordered by a hash of their names, which does not depend on any result.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import tyro
from PIL import Image

from dataset.errors import UserError, one_line, run_cli
from dataset.io.option_checks import check_number
from distill.evaluate.photos.report import RESULTS, STAGE_TITLES, verdict
from distill.evaluate.photos.sheet import SheetRow, write_sheet

_BYTES_PER_KB: Final = 1000


@dataclass(frozen=True)
class ChooseSheetArgs:
    """Draw input, sampled views and asset of the first images of evaluations as one image."""

    evaluation: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Output folders of python -m distill.evaluate.photos, without --samples-only."""
    out: Path = Path("data/sheet.webp")
    """Image to write: .webp, .jpg or .png."""
    rows: int = 8
    """Number of images of each evaluation."""
    inputs: bool = True
    """Draw the input images. --no-inputs: write only their file names, for a sheet to be published without the images,
    whose licenses may not allow it."""
    max_kb: int = 300
    """Largest size of the file in kB. The quality is reduced until the file fits."""


def choose_sheet(args: ChooseSheetArgs) -> str:
    """Write the sheet. Return a text for the command to print.

    Raises:
        UserError: an option is invalid, a folder contains no evaluation with assets, or the file would be too large.
    """
    check_number("--rows", args.rows, 1)
    check_number("--max-kb", args.max_kb, 1)
    if Image.registered_extensions().get(args.out.suffix.lower()) not in ("WEBP", "JPEG", "PNG"):
        raise UserError(f"--out {args.out} is not the name of an image file; give a name that ends in .webp")
    rows = [row for folder in args.evaluation for row in _first_rows(folder, args.rows, with_names=not args.inputs)]
    write_sheet(rows, args.out, args.max_kb * _BYTES_PER_KB, with_inputs=args.inputs)
    return f"wrote {args.out}: {len(rows)} images, {args.out.stat().st_size / _BYTES_PER_KB:.0f} kB"


def _first_rows(folder: Path, count: int, *, with_names: bool) -> list[SheetRow]:
    path = folder / RESULTS
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
        samples_only = summary["options"]["samples_only"]
        rows = [_row(folder, image, with_name=with_names) for image in summary["images"][:count]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the result of an evaluation of images ({one_line(error)}); give the --out folder of "
            "python -m distill.evaluate.photos"
        ) from error
    if samples_only:
        raise UserError(f"{folder} contains no assets; repeat the evaluation without --samples-only")
    return rows


def _row(folder: Path, image: dict[str, Any], *, with_name: bool) -> SheetRow:
    strips = tuple(folder / image["strips"][stage] if stage in image["strips"] else None for stage in STAGE_TITLES)
    named = image["named"]
    texts = [
        verdict(stage, named[stage]["top3"], named[stage]["rank"]) if stage in named else f"{stage}: failed"
        for stage in STAGE_TITLES
    ]
    title = f"{image['label']}: {image['file']}" if with_name else image["label"]
    return SheetRow(strips, (title, *texts))


def main(argv: Sequence[str]) -> None:
    """Run the command with the options `argv`, the command line without the program name."""
    text = choose_sheet(tyro.cli(ChooseSheetArgs, prog="python -m distill.evaluate.photos.choose_sheet", args=argv))
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    run_cli(lambda: main(sys.argv[1:]))
