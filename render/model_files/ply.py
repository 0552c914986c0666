"""Check a PLY file before Blender imports it, and write a plain copy if Blender would misread the file.

Blender silently replaces non-finite positions, requires vertices to come first, and ignores face colors and images.
"""

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Flag
from render.model_files.errors import ModelError, NonFinitePositions
from render.model_files.ply_data import Column, Element, parse_elements, read_elements
from render.model_files.prepared import PreparedModel
from render.model_files.references import find_file

_HEADER_END: Final = b"end_header"
_COLORS: Final = ("red", "green", "blue")
_COLOR_NAMES: Final = (_COLORS, tuple(f"diffuse_{name}" for name in _COLORS), ("r", "g", "b"))
_UV_NAMES: Final = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_INDICES: Final = ("vertex_indices", "vertex_index")
_WEDGES: Final = "texcoord"  # a list per face: u, v of each of its corners

Table = dict[str, Column]
Floats = NDArray[np.float64]


def prepare_ply(path: Path, root: Path, scratch: Path) -> PreparedModel:
    """Check a PLY file. Return the file to import: `path` itself, or a plain copy in the existing folder `scratch`.

    If the header names an image file in the folder `root`, `PreparedModel.texture` is the path of this image.

    Raises ModelError when the file cannot be read as PLY or has non-finite positions.
    """
    data = path.read_bytes()
    header, end, body = data.partition(_HEADER_END)
    text = header.decode("utf-8", "surrogateescape").splitlines()
    lines = [line.split() for line in text]
    if not end or not lines or lines[0] != ["ply"]:
        raise ModelError(f"{path.name} is not a PLY file: the line `ply` or `end_header` is missing; export it again")
    try:
        order = next(line[1] for line in lines if line[:1] == ["format"])
        elements = parse_elements(lines)
        counts = [element.count for element in elements]
        if min(counts) < 0 or sum(counts) > len(body):  # Blender would allocate memory for all of them
            raise ValueError(f"the header declares {sum(counts):,} elements, but the data has only {len(body):,} bytes")
        body = body[body.index(b"\n") + 1 :]
        images = [line.split(maxsplit=2)[2] for line in text if line.split()[:2] == ["comment", "TextureFile"]]
        plain = _is_plain(elements) and not images
        tables = read_elements(body, order, elements[:1] if plain else elements)
        positions = _positions(tables["vertex"])
        if not np.isfinite(positions).all():
            raise NonFinitePositions(f"{path.name} has vertex positions that are NaN or infinite")
        if plain or "face" not in tables:
            return PreparedModel(path)
        copy = scratch / path.name
        copy.write_bytes(_plain_copy(tables, positions))
    except (StopIteration, KeyError, IndexError, struct.error) as error:
        raise ModelError(f"{path.name}: vertices or faces cannot be read ({error!r}); export the file again") from error
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{path.name}: vertices or faces cannot be read ({error!r}); export the file again") from error
    if not images:
        return PreparedModel(copy)
    texture = find_file(images[0].strip(), path.parent.resolve(), root)
    flags: tuple[Flag, ...] = () if texture else ("missing-texture",)
    if len(images) > 1:
        flags = ("missing-material", *flags)
    return PreparedModel(copy, flags, texture=texture, images=texture is not None)


def _is_plain(elements: list[Element]) -> bool:
    """Return whether Blender reads all elements and properties that affect the appearance."""
    first = elements[0]
    names = {each.name for each in first.properties}
    faces = {each.name for element in elements if element.name == "face" for each in element.properties}
    colored = names >= set(_COLORS)
    elsewhere = names >= set(_COLOR_NAMES[1]) or any(faces >= set(colors) for colors in _COLOR_NAMES)
    lists = any(each.length for each in first.properties)
    return first.name == "vertex" and not lists and (colored or not elsewhere)


def _positions(vertices: Table) -> Floats:
    """Return the positions [n, 3] of the vertices."""
    return np.stack([vertices[axis].values.astype(np.float64) for axis in "xyz"], 1)


def _plain_copy(tables: dict[str, Table], positions: Floats) -> bytes:
    """Return a binary PLY of vertices with normals, texture coordinates and colors, then faces.

    Vertices are repeated per corner if colors or texture coordinates belong to faces.
    """
    vertices, faces = tables["vertex"], tables["face"]
    indices = next(faces[name] for name in _INDICES if name in faces)
    corners = indices.values.astype(np.int64)
    if len(corners) and (corners.min() < 0 or corners.max() >= len(positions)):
        raise ValueError(f"a face refers to a vertex other than 0 to {len(positions) - 1}, the vertices of the file")
    columns: list[tuple[str, NDArray[Any]]] = [(name, positions[:, i]) for i, name in enumerate("xyz")]
    columns += [(name, vertices[name].values) for name in ("nx", "ny", "nz") if name in vertices]
    uv, colors = _pick(vertices, _UV_NAMES), _pick(vertices, _COLOR_NAMES)
    wedges, face_colors = faces.get(_WEDGES), None if colors else _pick(faces, _COLOR_NAMES)
    wedged = wedges is not None and (wedges.lengths == 2 * indices.lengths).all()
    chosen = np.arange(len(positions))
    if wedged or face_colors:
        chosen, columns = corners, [(name, values[corners]) for name, values in columns]
        corners = np.arange(len(corners))
    if wedged and wedges is not None:
        uv = [wedges.values[0::2], wedges.values[1::2]]
    elif uv:
        uv = [values[chosen] for values in uv]
    if face_colors:
        colors = [np.repeat(values, indices.lengths) for values in face_colors]
    elif colors:
        colors = [values[chosen] for values in colors]
    columns += zip(("s", "t"), uv, strict=True) if uv else []
    columns += [(name, _byte(values)) for name, values in zip(_COLORS, colors, strict=True)] if colors else []
    return _write(columns, corners, indices.lengths)


def _write(columns: list[tuple[str, NDArray[Any]]], corners: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    kinds = [(name, "u1" if values.dtype == np.uint8 else "<f4") for name, values in columns]
    rows = np.zeros(len(columns[0][1]), np.dtype(kinds))
    for name, values in columns:
        rows[name] = values
    starts = np.cumsum(lengths) - lengths
    faces = np.insert(corners, starts, lengths).astype("<i4")
    properties = "".join(f"property {'uchar' if kind == 'u1' else 'float'} {name}\n" for name, kind in kinds)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}"
        f"element face {len(lengths)}\nproperty list int int vertex_indices\nend_header\n"
    )
    return header.encode() + rows.tobytes() + faces.tobytes()


def _pick(table: Table, choices: tuple[tuple[str, ...], ...]) -> list[NDArray[Any]]:
    """Return the columns of the first choice whose names are all in the table; an empty list if there is none."""
    for names in choices:
        if all(name in table for name in names):
            return [table[name].values for name in names]
    return []


def _byte(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert colors to integers from 0 to 255. 16-bit colors are scaled; so are floats if all are at most 1."""
    largest = float(values.max(initial=0))
    scale = 255 / 65535 if values.dtype.itemsize == 2 else 255.0 if values.dtype.kind == "f" and largest <= 1 else 1.0
    return (values * scale).round().clip(0, 255).astype(np.uint8)
