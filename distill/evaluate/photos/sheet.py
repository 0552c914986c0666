"""Draw contact sheets of evaluated images: input, sampled views, the asset from four sides, and the judge's names."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from dataset.errors import UserError, one_line
from dataset.io.files import write_file_atomic

_CELL_PX: Final = 96  # edge of a view
_TEXT_PX: Final = 190  # width of the texts
_GAP_PX: Final = 6
_VIEWS: Final = {0: 1, 1: 4, 2: 4}  # views of each strip: input, samples, asset
_HEAD_PX: Final = 20  # height of the line above the rows
_HEADS: Final = ("input", "views sampled from its embedding", "asset from four sides")
_QUALITIES: Final = (90, 80, 70, 60, 50, 40, 30, 20)


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet: files of the strips (None: missing) and lines of text."""

    strips: tuple[Path | None, ...]
    texts: tuple[str, ...]


def draw_sheet(rows: Sequence[SheetRow], *, with_inputs: bool = True) -> Image.Image:
    """Return the sheet of at least one row, with a line of titles above.

    All rows have the same number of strips; missing ones are marked as failed. `with_inputs=False` leaves out the first
    strip, the input images.
    """
    columns = range(0 if with_inputs else 1, len(rows[0].strips))
    widths = [_VIEWS[i] * _CELL_PX for i in columns]
    width = sum(widths) + _GAP_PX * len(widths) + _TEXT_PX
    sheet = Image.new("RGB", (width, _HEAD_PX + len(rows) * (_CELL_PX + _GAP_PX)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, head in enumerate((*[_HEADS[i] for i in columns], "named by the judge")):
        draw.text((sum(widths[:i]) + _GAP_PX * i, 2), head, fill="black", font=font)
    for number, row in enumerate(rows):
        x, y = 0, _HEAD_PX + number * (_CELL_PX + _GAP_PX)
        for strip, strip_width in zip([row.strips[i] for i in columns], widths, strict=True):
            if strip is None:
                draw.text((x + _GAP_PX, y + _CELL_PX // 2), "failed", fill="black", font=font)
            else:
                with Image.open(strip) as image:
                    sheet.paste(image.convert("RGB").resize((strip_width, _CELL_PX), Image.Resampling.LANCZOS), (x, y))
            x += strip_width + _GAP_PX
        draw.multiline_text((x, y + _GAP_PX), "\n".join(row.texts), fill="black", font=font)
    return sheet


def write_sheet(
    rows: Sequence[SheetRow], path: Path, max_bytes: int | None = None, *, with_inputs: bool = True
) -> None:
    """Write a sheet as WebP or JPEG, by the suffix of `path`, with the highest quality that fits `max_bytes`.

    `with_inputs=False` leaves out the input images.

    Raises:
        UserError: the smallest file is larger than `max_bytes`, or the format does not allow so many pixels.
    """
    sheet, image_format = draw_sheet(rows, with_inputs=with_inputs), Image.registered_extensions()[path.suffix.lower()]
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        try:
            sheet.save(buffer, image_format, quality=quality)
        except (OSError, ValueError) as error:  # WebP allows 16,383 pixels per side, JPEG 65,500
            raise UserError(
                f"the sheet of {len(rows)} rows, {sheet.height} pixels high, cannot be written as {image_format} "
                f"({one_line(error)}); choose fewer rows, or another format"
            ) from error
        if max_bytes is None or buffer.tell() <= max_bytes:
            write_file_atomic(path, buffer.getvalue())
            return
    raise UserError(
        f"the sheet of {len(rows)} rows does not fit {max_bytes} bytes; choose fewer rows, or allow more bytes"
    )
