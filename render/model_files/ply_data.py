"""Read all elements of a PLY file as numpy arrays. The elements may be in any order and have list properties.

Layout: Greg Turk's PLY 1.0. A text header declares the elements. Their rows follow in the order of the header, as text
or packed binary data.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TYPES: Final = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
ORDERS: Final = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    """A property of a PLY element.

    `kind` is the numpy type of the values, such as "f4". In a list property, a number before each list gives the length
    of the list; `length` is the numpy type of this number. For other properties, `length` is empty.
    """

    name: str
    kind: str
    length: str = ""


@dataclass(frozen=True)
class Element:
    """An element of a PLY file, such as `vertex` or `face`: its name, number of rows and properties."""

    name: str
    count: int
    properties: tuple[Property, ...]


@dataclass(frozen=True)
class Column:
    """The values of a PLY property in all rows of an element.

    `values` [v] contains the v values of all rows, row by row. `lengths` [count] is the number of values in each of the
    `count` rows: 1, unless the property is a list.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int64]


def parse_elements(lines: list[list[str]]) -> list[Element]:
    """Return the elements that a PLY header declares. Raises LookupError or ValueError for a malformed line.

    `lines` are the lines of the header, split into words.
    """
    elements: list[Element] = []
    for words in lines:
        if words[:1] == ["element"]:
            elements.append(Element(words[1], int(words[2]), ()))
        elif words[:1] == ["property"]:
            last = elements[-1]
            new = (
                Property(words[4], TYPES[words[3]], TYPES[words[2]])
                if words[1] == "list"
                else Property(words[2], TYPES[words[1]])
            )
            elements[-1] = Element(last.name, last.count, (*last.properties, new))
    return elements


def read_elements(body: bytes, order: str, elements: list[Element]) -> dict[str, dict[str, Column]]:
    """Read the rows of a PLY file. Return a mapping: name of the element -> name of the property -> values.

    Args:
        body: The bytes after the header.
        order: Format of the body, a key of ORDERS.
        elements: The elements that the header declares.

    Raises LookupError or ValueError when the body does not match the header.
    """
    tables: dict[str, dict[str, Column]] = {}
    if order == "ascii":
        words = np.array(body.split(), np.float64)
        offset = 0
        for element in elements:
            tables[element.name], offset = _text_table(words, offset, element)
        return tables
    offset = 0
    for element in elements:
        tables[element.name], offset = _binary_table(body, offset, element, ORDERS[order])
    return tables


def _text_table(words: NDArray[np.float64], offset: int, element: Element) -> tuple[dict[str, Column], int]:
    if not any(each.length for each in element.properties):
        end = offset + element.count * len(element.properties)
        table = words[offset:end].reshape(element.count, len(element.properties))
        ones = np.ones(element.count, np.int64)
        return {
            each.name: Column(table[:, i].astype(each.kind), ones) for i, each in enumerate(element.properties)
        }, end
    picked: list[list[int]] = [[] for _ in element.properties]  # index of the first word of each row
    lengths: list[list[int]] = [[] for _ in element.properties]
    for _ in range(element.count):
        for number, each in enumerate(element.properties):
            length = int(words[offset]) if each.length else 1
            if length < 0:
                raise ValueError(f"a list {each.name!r} of the element {element.name!r} declares {length} values")
            offset += bool(each.length)
            picked[number].append(offset)
            lengths[number].append(length)
            offset += length
    if offset > len(words):
        raise ValueError(f"the file ends before the last of the {element.count} elements {element.name!r}")
    return {
        each.name: _column(words, np.array(picked[i], np.int64), np.array(lengths[i], np.int64), each.kind)
        for i, each in enumerate(element.properties)
    }, offset


def _column(words: NDArray[np.float64], first: NDArray[np.int64], lengths: NDArray[np.int64], kind: str) -> Column:
    """Return the column whose rows begin at the words `first` [count] and have `lengths` [count] values."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Column(words[np.repeat(first, lengths) + within].astype(kind), lengths)


def _binary_table(body: bytes, offset: int, element: Element, order: str) -> tuple[dict[str, Column], int]:
    """Read all rows as one array if their lists have the same lengths as the first row's, otherwise one by one."""
    lengths = _first_lengths(body, offset, element, order) if element.count else [0] * len(element.properties)
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = []
    for i, each in enumerate(element.properties):
        if each.length:
            fields.append((f"length {i}", order + each.length))
        fields.append((str(i), order + each.kind, (lengths[i],)))
    kind = np.dtype(fields)
    if offset + kind.itemsize * element.count <= len(body):
        rows = np.frombuffer(body, kind, element.count, offset)
        if all((rows[f"length {i}"] == lengths[i]).all() for i, each in enumerate(element.properties) if each.length):
            columns = {
                each.name: Column(rows[str(i)].reshape(-1), np.full(element.count, lengths[i], np.int64))
                for i, each in enumerate(element.properties)
            }
            return columns, offset + kind.itemsize * element.count
    return _binary_rows(body, offset, element, order)


def _first_lengths(body: bytes, offset: int, element: Element, order: str) -> list[int]:
    lengths = []
    for each in element.properties:
        length = 1
        if each.length:
            kind = np.dtype(order + each.length)
            length = int(np.frombuffer(body, kind, 1, offset)[0])
            offset += kind.itemsize
        if length < 0:
            raise ValueError(f"a list {each.name!r} of the element {element.name!r} declares {length} values")
        lengths.append(length)
        offset += length * np.dtype(each.kind).itemsize
    return lengths


def _binary_rows(body: bytes, offset: int, element: Element, order: str) -> tuple[dict[str, Column], int]:
    values: list[list[NDArray[Any]]] = [[] for _ in element.properties]
    for _ in range(element.count):
        lengths = _first_lengths(body, offset, element, order)
        for i, (each, length) in enumerate(zip(element.properties, lengths, strict=True)):
            offset += np.dtype(each.length).itemsize if each.length else 0
            values[i].append(np.frombuffer(body, np.dtype(order + each.kind), length, offset))
            offset += length * np.dtype(each.kind).itemsize
    return {
        each.name: Column(np.concatenate(values[i]), np.array([len(row) for row in values[i]], np.int64))
        for i, each in enumerate(element.properties)
    }, offset
