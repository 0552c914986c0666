"""Draw emoji of the font Noto Color Emoji (SIL Open Font License 1.1) as labelled drawings to train image encoders.

    apt-get download fonts-noto-color-emoji
    python -m examples.emoji fonts-noto-color-emoji_*.deb --out data/emoji

kinds.csv beside this file lists the emoji that show one whole object of a kind: the kind, the code point in
hexadecimal, and the emoji's name.
"""

import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro
from PIL import Image, ImageDraw, ImageFont

from dataset.errors import UserError, one_line, run_cli
from dataset.io.files import write_file_atomic
from dataset.reading.csv_table import read_csv_table
from dataset.reading.labels import LABELS_FILE
from examples.debian_package import package_files

logger = logging.getLogger(__name__)
KINDS: Final = Path(__file__).with_name("kinds.csv")
COLUMNS: Final = ("label", "code_point", "name")
_FONT_FILE: Final = "NotoColorEmoji.ttf"
_FONT_SIZE: Final = 109  # pixels; the only size of the font's bitmaps
_CANVAS_PX: Final = 160
_MIN_VISIBLE_PX: Final = 32


@dataclass(frozen=True)
class Emoji:
    """Draw emoji of the font Noto Color Emoji as labelled drawings.

    Writes one PNG per emoji and a labels.csv (file, label). Files that exist already are replaced.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The package fonts-noto-color-emoji (.deb), or a folder that contains NotoColorEmoji.ttf."""
    out: Path = Path("data/emoji")
    """Output folder."""
    kinds: Path = KINDS
    """CSV file with the columns label, code_point (hexadecimal) and name."""


def run(command: Emoji) -> None:
    """Draw the emoji that the font has. Raises UserError for bad input."""
    rows = read_kinds(command.kinds)
    font = load_font(command.source)
    written: list[tuple[str, str]] = []
    missing: list[str] = []
    for row in rows:
        image = draw(font, row["code_point"])
        if image is None:
            missing.append(row["name"])
            continue
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        name = f"{row['code_point']}.png"
        write_file_atomic(command.out / name, buffer.getvalue())
        written.append((name, row["label"]))
    if missing:
        logger.warning("the font does not contain %d of the emoji: %s", len(missing), ", ".join(missing))
    if not written:
        raise UserError(f"{command.source}: the font contains none of the emoji in {command.kinds}; give another font")
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("file", "label"), *written])
    write_file_atomic(command.out / LABELS_FILE, table.getvalue().encode())
    print(f"{command.out}: {len(written)} drawings of {len({label for _, label in written})} kinds")


def read_kinds(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with the columns of COLUMNS. Raises UserError for an unusable file."""
    rows = read_csv_table(path, COLUMNS, f"give --kinds a CSV file with the columns {', '.join(COLUMNS)}")
    for number, row in rows:
        if _character(row["code_point"]) is None:
            raise UserError(
                f"{path}, line {number}: {row['code_point']!r} is no code point; give a hexadecimal number, "
                "such as 1f408"
            )
    return [row for _, row in rows]


def load_font(source: Path) -> ImageFont.FreeTypeFont:
    """Load the font from a Debian package or a folder.

    Raises:
        UserError: The source cannot be read, has no such font, or the font cannot be used.
    """
    for path, data in package_files(source, ".ttf"):
        if path.name == _FONT_FILE:
            try:
                return ImageFont.truetype(io.BytesIO(data), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
            except OSError as error:
                raise UserError(
                    f"the font {path} cannot be used ({one_line(error)}); download the package again"
                ) from error
    raise UserError(f"{source} does not contain {_FONT_FILE}; give the package fonts-noto-color-emoji")


def draw(font: ImageFont.FreeTypeFont, code_point: str) -> Image.Image | None:
    """Return the visible part of an emoji as an RGBA image, or None if the font does not have the emoji.

    Args:
        font: The font.
        code_point: Code point in hexadecimal.
    """
    character = _character(code_point)
    if character is None:
        return None
    canvas = Image.new("RGBA", (_CANVAS_PX, _CANVAS_PX), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((10, 10), character, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < _MIN_VISIBLE_PX:
        return None
    return canvas.crop(box)


def _character(code_point: str) -> str | None:
    """Return the character with a code point in hexadecimal, or None if the code point is not valid."""
    try:
        return chr(int(code_point, 16))
    except (ValueError, OverflowError):
        return None


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Emoji, prog="python -m examples.emoji")))
