"""Write a normalized copy of an OBJ file and its materials, before Blender imports it.

Blender's importer opens any path in `mtllib` and `map_` statements, but reads only one file per `mtllib`. The copy
therefore has a single material file with the same name and the suffix .mtl, so that Blender finds it without `mtllib`.
This material file refers to images by absolute paths, and only to images inside the source folder.

Layout: the Wavefront OBJ and MTL specifications, and the PBR extension of MTL.
"""

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from render.model_files.errors import ModelError
from render.model_files.prepared import PreparedModel
from render.model_files.references import find_file

_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HEAD: Final = 1 << 16
_COMMAS: Final = re.compile(rb"(?m)^[ \t]*v[ \t]+[+-]?\d+,\d+[ \t]")  # decimal commas
_DECIMAL_COMMA: Final = re.compile(r"(?<=\d),(?=\d)")
_COORDINATES: Final = re.compile(rb"(?m)^[ \t]*v[nt]?[ \t][^\r\n]*")
_LIBRARY: Final = b"mtllib"
_DISABLED: Final = b"#mtlib"  # a comment of the same length
_LIBRARIES: Final = re.compile(rb"mtllib[\x00-\x09\x0b-\x20]+([^\r\n]+)")
_USES: Final = re.compile(rb"(?m)^[ \t]*usemtl[ \t]+([^\r\n]*)")
_FACE: Final = re.compile(rb"(?m)^[ \t]*f[ \t]")
_BETWEEN_LIBRARIES: Final = re.compile(r"(?i)(?<=\.mtl)\s+")
_NO_MATERIAL: Final = ("", "(null)", "none")
_MOST_WORDS: Final = 64
_VALUES: Final = {
    name.lower(): name
    for name in "Ka Kd Ks Ke Ns Ni d Tr Tf illum Pr Pm Ps Pc Pcr aniso anisor".split()  # noqa: SIM905
}
_IMAGES: Final = {
    **{name.lower(): name for name in ("map_Kd", "map_Ks", "map_Ns", "map_d", "map_Ke", "map_Pr", "map_Pm", "map_Ps")},
    **dict.fromkeys(("map_bump", "bump"), "map_Bump"),
    **dict.fromkeys(("refl", "map_refl"), "map_refl"),
}
_MISSING: Final = "isotropic3d-missing.png"  # a name that no file has
_OPTIONS: Final = {  # options of an image statement, and how many words may follow
    **dict.fromkeys(("-s", "-o", "-t"), 3),
    **dict.fromkeys(("-bm", "-type", "-blendu", "-blendv", "-boost", "-texres", "-clamp", "-imfchan", "-cc"), 1),
    "-mm": 2,
}
_NUMBER: Final = re.compile(r"[+-]?[\d.]+(?:[eE][+-]?\d+)?")
_DEFAULTS: Final = {"-s": ("1", "1", "1"), "-o": ("0", "0", "0")}

Materials = dict[str, list[str]]  # name -> normalized statements


def prepare_obj(path: Path, root: Path, scratch: Path) -> PreparedModel:
    """Return the file to import: the .obj file itself, or a normalized copy of it and its materials.

    The object gets the flag missing-material in two cases. It uses a material that no material file inside `root`
    defines, or the material files define materials and the first face comes before any `usemtl` statement.

    Args:
        path: Path of the .obj file.
        root: Folder that must contain all material files and images; others are not read.
        scratch: Existing folder for the copy.

    Raises ModelError when an `mtllib` statement has too many words.
    """
    original = path.read_bytes()
    data = _utf8(original)
    if _COMMAS.search(data[:_HEAD]):
        data = _COORDINATES.sub(lambda line: line[0].replace(b",", b"."), data)
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    folder = path.parent.resolve()
    libraries = [file for names in _library_names(data, path.name) for file in _found(names, folder, root)]
    if (default := find_file(path.with_suffix(".mtl").name, folder, root)) is not None:
        libraries.append(default)
    data = data.replace(_LIBRARY, _DISABLED)
    used = {_text(name) for name in _USES.findall(data)}
    beside = os.path.lexists(path.with_suffix(".mtl"))  # Blender opens it, also a link that leads outside
    if data == original and not libraries and not beside:
        return PreparedModel(path, ("missing-material",) if _undefined(used, {}) else ())
    materials: Materials = {}
    for library in dict.fromkeys(libraries):
        materials |= _read_materials(library, root)
    missing = _undefined(used, materials) or (bool(materials) and _begins_without_material(data))
    copy = scratch / path.name
    copy.write_bytes(data)
    lines = [line for name, body in materials.items() for line in (f"newmtl {name}", *body)]
    copy.with_suffix(".mtl").write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))
    images = any(line.startswith("map_") for line in lines)
    return PreparedModel(copy, ("missing-material",) if missing else (), images=images)


def _library_names(data: bytes, where: str) -> Iterator[str]:
    """Yield the text after the keyword of each `mtllib` statement."""
    for match in _LIBRARIES.findall(_joined(data) if b"\\" in data else data):
        rest = _text(match)
        if len(rest.split()) > _MOST_WORDS:
            raise ModelError(
                f"{where}: an `mtllib` statement has {len(rest.split())} words, more than the limit of {_MOST_WORDS}"
            )
        yield rest


def _found(names: str, folder: Path, root: Path) -> list[Path]:
    """Return the files of an `mtllib` statement, which contains one name with spaces, or several names."""
    for parts in ([names], _BETWEEN_LIBRARIES.split(names), names.split()):
        found = [file for part in parts if (file := find_file(part.strip("\"'"), folder, root)) is not None]
        if found:
            return found
    return []


def _undefined(used: set[str], materials: Materials) -> bool:
    """Define each used name that differs from a material's name only in case. Return whether any stays undefined."""
    lower = {name.casefold(): name for name in materials}
    missing = False
    for name in sorted(used):
        if name in materials or name.casefold() in _NO_MATERIAL:
            continue
        if name.casefold() in lower:
            materials[name] = materials[lower[name.casefold()]]
        else:
            missing = True
    return missing


def _begins_without_material(data: bytes) -> bool:
    """Return whether a face precedes the first `usemtl` statement, so that it has no material."""
    face, use = _FACE.search(data), _USES.search(data)
    return face is not None and (use is None or face.start() < use.start())


def _read_materials(path: Path, root: Path) -> Materials:
    materials: Materials = {}
    body: list[str] = []  # statements before the first material are ignored
    text = _joined(_utf8(path.read_bytes())).replace(_LIBRARY, _DISABLED)
    for line in re.split(rb"[\r\n]+", text):
        keyword, _, rest = _text(line).partition(" ")
        keyword, rest = keyword.lower(), rest.strip()
        if keyword == "newmtl":
            body = materials[rest] = []
        elif keyword in _VALUES:
            body.append(f"{_VALUES[keyword]} {_DECIMAL_COMMA.sub('.', rest)}")
        elif keyword in _IMAGES and rest:
            body.append(f"{_IMAGES[keyword]} {_image(rest, path.parent, root)}")
    return materials


def _image(rest: str, folder: Path, root: Path) -> str:
    """Return the options of an image statement and the absolute path of its file."""
    options: list[str] = []
    while (parts := rest.split(maxsplit=1)) and len(parts) == 2 and parts[0].lower() in _OPTIONS:
        option, rest = parts[0].lower(), parts[1]
        values: list[str] = []
        while len(values) < _OPTIONS[option] and len(words := rest.split(maxsplit=1)) == 2:
            if option in ("-s", "-o", "-t") and not _NUMBER.fullmatch(words[0]):
                break
            values.append(words[0])
            rest = words[1]
        values += _DEFAULTS.get(option, ())[len(values) :]
        if option in ("-s", "-o", "-bm", "-type"):  # Blender reads these
            options += [option, *values]
    found = find_file(rest.strip("\"'"), folder, root)
    return " ".join([*options, str(found or _MISSING)])


def _utf8(data: bytes) -> bytes:
    """Return the bytes of a text file as UTF-8 without a byte order mark. Files without a mark are not changed."""
    if data.startswith(_UTF16):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(_BOM)


def _joined(data: bytes) -> bytes:
    """Join lines that end in a backslash with the next line."""
    return data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")


def _text(line: bytes) -> str:
    """Return a line as text. Control characters count as spaces, as in Blender."""
    return re.sub(r"[\x00-\x20]", " ", line.decode("utf-8", "surrogateescape")).strip()
