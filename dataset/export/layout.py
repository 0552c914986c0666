"""Describe a file layout of another program: which views it needs, and which files it has."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.format.schema import ViewKey
from dataset.reading.rendered_object import RenderedObject

Files = Mapping[str, bytes]  # path relative to a folder, with "/" -> content
ViewKeys = tuple[ViewKey, ...]


@dataclass(frozen=True)
class Layout:
    """A file layout of another program.

    Attributes:
        name: Name on the command line.
        views: The views that `object_files` receives, in this order. None: all views, whatever the camera rig.
        folders: Folders of one object, relative to the output folder; "{uid}" stands for the object's uid.
        object_files: Function from an object to its files. Their paths are relative to the output folder and inside
            one of the object's `folders`.
        set_files: Function from the uids of all exported objects to the files of the whole set, which are written last.
        notice: What a user must know about the layout, in one sentence; empty if nothing.
    """

    name: str
    views: ViewKeys | None
    folders: tuple[str, ...]
    object_files: Callable[[RenderedObject], Files]
    set_files: Callable[[Sequence[str]], Files]
    notice: str = ""

    def folders_of(self, uid: str) -> tuple[PurePosixPath, ...]:
        """Return the folders of the object `uid`, relative to the output folder."""
        return tuple(PurePosixPath(folder.format(uid=uid)) for folder in self.folders)


def no_files(uids: Sequence[str]) -> Files:
    """Return no files, for layouts without files of the whole set."""
    return {}


def encode_npy(array: NDArray[Any]) -> bytes:
    """Encode an array of numbers in NumPy's .npy format, which contains no pickle.

    Raises:
        ValueError: The array contains Python objects.
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
