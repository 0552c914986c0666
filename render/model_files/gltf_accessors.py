"""Read the accessors of a glTF file as numpy arrays, without copying.

Layout: the glTF 2.0 specification, section 3.6.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from render.model_files.errors import ModelError

_FLOAT: Final = 5126
_KINDS: Final = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", _FLOAT: "<f4"}
_WIDTHS: Final = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


class GltfData:
    """Reads the accessors of a glTF document. Each buffer is loaded once.

    A malformed document raises LookupError, TypeError or ValueError.
    """

    def __init__(self, document: dict[str, Any], binary: memoryview, path: Path) -> None:
        self._document, self._binary, self._path = document, binary, path
        self._buffers: dict[int, memoryview] = {}

    def array(self, index: int) -> NDArray[Any] | None:
        """Return the values [count, width] of an accessor, without copying them.

        `count` is the number of elements, and `width` the number of components per element, such as 3 for VEC3.

        Returns None if the file does not store the values of the accessor: they are all zero, or compressed.
        """
        accessor = self._document["accessors"][index]
        if "bufferView" not in accessor:
            return None
        return self._view(accessor, accessor, accessor["type"], f"accessor {index}")

    def float_arrays(self, index: int) -> Iterator[NDArray[Any]]:
        """Yield the values [count, width] of an accessor of floats, then its n sparse values [n, width].

        `count` is the number of elements, and `width` the number of components per element, such as 3 for VEC3.

        Values that the file does not store, because they are all zero or compressed, are left out. Yields nothing if
        the values are not floats.
        """
        accessor = self._document["accessors"][index]
        if accessor["componentType"] != _FLOAT:
            return
        own = self.array(index)
        if own is not None:
            yield own
        if "sparse" in accessor:
            sparse = {"componentType": _FLOAT, "count": accessor["sparse"]["count"]}
            yield self._view(sparse, accessor["sparse"]["values"], accessor["type"], f"sparse accessor {index}")

    def _view(self, accessor: dict[str, Any], place: dict[str, Any], kind: str, name: str) -> NDArray[Any]:
        view = self._document["bufferViews"][place["bufferView"]]
        first = view.get("byteOffset", 0)
        buffer = self.buffer(view["buffer"])[first : first + view["byteLength"]]
        dtype, width = np.dtype(_KINDS[accessor["componentType"]]), _WIDTHS[kind]
        strides = (view.get("byteStride") or dtype.itemsize * width, dtype.itemsize)
        try:
            return np.ndarray((accessor["count"], width), dtype, buffer, place.get("byteOffset", 0), strides)
        except ValueError as error:
            raise ModelError(
                f"{self._path.name}: the values of {name} exceed its buffer view ({error}); export the file again"
            ) from error

    def buffer(self, index: int) -> memoryview:
        """Return the bytes of the buffer with this index. A buffer without a URI is the binary chunk of the file."""
        if index not in self._buffers:
            self._buffers[index] = self._read(self._document["buffers"][index].get("uri"))
        return self._buffers[index]

    def _read(self, uri: str | None) -> memoryview:
        if uri is None:
            return self._binary
        if uri.startswith("data:"):
            return memoryview(base64.b64decode(uri.partition(";base64,")[2]))
        return memoryview((self._path.parent.resolve() / unquote(uri).replace("\\", "/")).read_bytes())
