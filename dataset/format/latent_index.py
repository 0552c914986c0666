"""Read the index table of a latent shard: the file `NAME.table.npz`, which `dataset.format.latents` defines."""

import io
import threading
import zipfile
import zlib
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, LatentFormat, table_file
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET
from dataset.format.shards import ShardEntry

# numpy parses array headers with `ast`, which is not thread-safe in Python 3.11 (SystemError)
_PARSING: Final = threading.Lock()


class LatentTable(NamedTuple):
    """The index table of one latent shard: uids, positions of the members in the tar, and camera angles of the objects.

    `places` [objects, 33, 3] contains offset, size and crc32 of each member: first of the object's metadata, then of
    its 32 views in schema order. The camera angles [objects, view set, view] are in degrees.
    """

    name: str
    uids: tuple[str, ...]
    places: NDArray[np.int64]  # [objects, 33, 3]: offset, size, crc32
    elevation_deg: NDArray[np.float64]  # [objects, 2, 16]
    azimuth_deg: NDArray[np.float64]  # [objects, 2, 16]


def load_table(fs: Any, root: str, form: LatentFormat, entry: ShardEntry) -> LatentTable:
    """Load the index table of one shard of a latent set. The error messages contain no remedy; the caller adds one.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        form: Format of the views' arrays, as read from `latents.json`.
        entry: The shard as listed in `index.json`.

    Raises:
        UserError: The table is missing or damaged, or was written for another tar.
    """
    file = table_file(entry.name)
    try:
        data = io.BytesIO(fs.cat_file(f"{root}/{file}"))
        with _PARSING, np.load(data, allow_pickle=False) as arrays:
            sha256, uids = str(arrays["sha256"]), tuple(arrays["uids"].tolist())
            table = LatentTable(entry.name, uids, arrays["places"], arrays["elevation_deg"], arrays["azimuth_deg"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"the index table {file} cannot be read ({error})") from error
    if sha256 != entry.sha256:
        raise UserError(
            f"the index table {file} was written for another tar: the sha256 of the tar that the table states differs "
            "from the one in index.json"
        )
    angles = (entry.samples, len(VIEW_SETS), VIEWS_PER_SET)
    shapes = (table.places.shape, table.elevation_deg.shape, table.azimuth_deg.shape)
    if len(uids) != entry.samples or shapes != ((entry.samples, 1 + VIEWS_PER_SET * len(VIEW_SETS), 3), angles, angles):
        raise UserError(
            f"the arrays in the index table {file} do not have {entry.samples} rows, one for each object of the shard"
        )
    sizes = [form.member_bytes(view_set) for view_set in VIEW_SETS for _ in range(VIEWS_PER_SET)]
    if (table.places[:, 1:, 1] != sizes).any():
        raise UserError(f"the index table {file} lists views of another size in bytes than {LATENTS_FILE} prescribes")
    return table
