"""Read the catalog of a Sweet Home 3D furniture library (`.sh3f`) and choose its usable objects."""

import re
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from dataset.errors import UserError
from dataset.reading.csv_table import read_csv_table
from dataset.reading.labels import LABELS_FILE

CATALOG_FILE: Final = "PluginFurnitureCatalog.properties"
LABELS: Final = Path(__file__).with_name(LABELS_FILE)
MAX_CATALOG_BYTES: Final = 16 << 20
_PEOPLE: Final = frozenset({"female", "male", "boy", "girl", "mannequin"})
_DOORS: Final = frozenset({"door", "window", "blind"})
_FITTINGS: Final = frozenset({"plug", "switch", "socket"})
_IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class CatalogEntry:
    """One object of a furniture library, as the catalog of the library describes it."""

    name: str  # English
    category: str
    model: str  # path of the OBJ file in the library
    author: str
    license: str  # SPDX identifier
    extent_cm: tuple[float, float, float]  # width, height, depth
    rotation: tuple[float, ...]  # row-major 3x3 matrix that sets the model upright with its front to +z
    is_door_or_window: bool

    @property
    def is_rotated(self) -> bool:
        """Whether the vertices of the model must be rotated to set the model upright."""
        return self.rotation != _IDENTITY

    @property
    def label(self) -> str:
        """The kind of the object, from labels.csv by the model's folder or name; otherwise the name in lower case."""
        name = " ".join(self.name.lower().split())
        return _labels().get(str(PurePosixPath(self.model).parent)) or _labels().get(name, name)


def read_catalog(archive: zipfile.ZipFile, source: str) -> list[CatalogEntry]:
    """Return the objects of a furniture library in the order of its catalog.

    Args:
        archive: The open `.sh3f` file.
        source: Name of the file, for error messages.

    Raises UserError when the catalog is missing or unusable.
    """
    try:
        info = archive.getinfo(CATALOG_FILE)
    except KeyError as error:
        raise UserError(
            f"{source} is not a furniture library of Sweet Home 3D, because it contains no file {CATALOG_FILE}; "
            "give only .sh3f files of furniture"
        ) from error
    if info.file_size > MAX_CATALOG_BYTES:
        raise UserError(
            f"{source}: the file {CATALOG_FILE} has {info.file_size:,} bytes, more than the limit of "
            f"{MAX_CATALOG_BYTES:,}; give an unmodified library"
        )
    values = _properties(archive.read(info).decode("latin-1"))
    numbers = sorted(int(key[6:]) for key in values if re.fullmatch(r"model#\d+", key))
    if not numbers:
        raise UserError(f"{source}: the file {CATALOG_FILE} lists no model; download the package again")
    return [_entry(values, number, source) for number in numbers]


def skip_reason(entry: CatalogEntry, min_flatness: float) -> str:
    """Return why an object is not used, or "" if it is used.

    An object is too flat if its smallest extent is less than `min_flatness` times its largest extent.
    """
    words = entry.name.lower().split()
    if entry.category == "Characters" and not _PEOPLE.isdisjoint(words):
        return "people"
    if entry.is_door_or_window or entry.category == "Doors and windows" or words[-1] in _DOORS:
        return "doors and windows"
    if words[-1] in _FITTINGS:
        return "plugs, switches and sockets"
    if entry.category == "Staircases":
        return "stairs"
    if min(entry.extent_cm) < min_flatness * max(entry.extent_cm):
        return f"flat: the smallest extent is less than {min_flatness:.0%} of the largest"
    return ""


def spdx_license(text: str, source: str) -> str:
    """Return the SPDX identifier of the license with this text. Raises UserError when the license is unknown.

    `source` is the name of the library, for the error message.
    """
    if text.startswith("Public domain"):
        return "CC0-1.0"
    if text.startswith("Creative Commons Attribution 3.0"):
        return "CC-BY-3.0-US" if "United States" in text else "CC-BY-3.0"
    raise UserError(
        f"{source}: unknown license {text[:80]!r}; add the license to `spdx_license` in examples/furniture/catalog.py"
    )


def _entry(values: dict[str, str], number: int, source: str) -> CatalogEntry:
    def value(key: str, default: str | None = None) -> str:
        text = values.get(f"{key}#{number}", default)
        if text is None:
            raise UserError(f"{source}: {CATALOG_FILE} has no property {key}#{number}; download the package again")
        return text

    def floats(key: str, count: int, default: str | None = None) -> tuple[float, ...]:
        text = value(key, default)
        try:
            result = tuple(map(float, text.split()))
        except ValueError:
            result = ()
        if len(result) != count:
            raise UserError(
                f"{source}: in {CATALOG_FILE}, the property {key}#{number} is {text!r}; expected {count} number(s)"
            )
        return result

    license_text = values.get("license", "")
    return CatalogEntry(
        name=value("name"),
        category=value("category", ""),
        model=safe_path(value("model").removeprefix("/"), source),
        author=_holder(license_text) or value("creator"),
        license=spdx_license(license_text, source),
        extent_cm=(floats("width", 1)[0], floats("height", 1)[0], floats("depth", 1)[0]),
        rotation=floats("modelRotation", 9, "1 0 0 0 1 0 0 0 1"),
        is_door_or_window=value("doorOrWindow", "false") == "true",
    )


def safe_path(name: str, source: str) -> str:
    """Return `name`, the path of a file in a library. Raises UserError when the path is unsafe to write.

    A path is unsafe if it leads out of the folder it is written to, or has a backslash, colon or control character.
    `source` is the name of the library, for the error message.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.search(r"[\\:\x00-\x1f]", name):
        raise UserError(
            f"{source}: the path {name!r} leads out of the folder, or has a backslash, colon or control character; "
            "do not use this library"
        )
    return name


def _holder(license_text: str) -> str:
    """Return the copyright holder in a license text, such as `... Copyright © 2003-2008 NAME`, or ""."""
    return re.sub(r"^[\d\s,-]+", "", license_text.partition("\N{COPYRIGHT SIGN}")[2]).strip()


def _properties(text: str) -> dict[str, str]:
    r"""Parse a Java properties file: `key=value` lines with `\uXXXX` escapes and continued lines."""
    values: dict[str, str] = {}
    for line in re.sub(r"\\\r?\n[ \t]*", "", text).splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith(("#", "!")):
            values[key.strip()] = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescape, value.strip())
    return values


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1][1:], 16)) if match[1].startswith("u") and len(match[1]) == 5 else match[1]


@cache
def _labels() -> dict[str, str]:
    """Return labels.csv: the label of a lower-case name, or of a model's folder."""
    rows = read_csv_table(LABELS, ("name", "label"), "restore this file of the repository")
    return {row["name"]: row["label"] for _, row in rows}
