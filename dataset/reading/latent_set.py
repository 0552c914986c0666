"""Read objects of a latent set: the latents and the image embeddings of single views, and the cameras.

`dataset.format.latents` defines the files of a latent set. Axis letters of shapes: `f` views of one object, `c`
channels, `h w` rows and columns, `d` values of an embedding.
"""

import os
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.format.latent_index import LatentTable, load_table
from dataset.format.latents import (
    FLOAT16,
    LATENTS_FILE,
    Float16,
    LatentFormat,
    encode_again,
    encode_on,
    latent_name,
    latent_names,
    read_format,
)
from dataset.format.schema import (
    ALL_VIEWS,
    VIEW_SETS,
    VIEWS_PER_SET,
    Meta,
    SchemaError,
    ViewSet,
    member_name,
    meta_name,
    parse_meta,
)
from dataset.format.shards import INDEX_NAME, Index, read_index
from dataset.io.files import check_reachable, exists, url_to_fs
from dataset.reading.shard_set import DamagedMember, Kept, ShardSet, check_has_views, count_samples, fingerprint_of

_CACHED_SHARDS: Final = 64  # index tables kept in memory; about 1.4 MB per 1,000 objects
_OPEN_FILES: Final = 16
_CACHED_METAS: Final = 256

Float64 = NDArray[np.float64]


class StoredLatents(NamedTuple):
    """Latents of some views of one object. They have not been multiplied by the latent scale of the model."""

    mean: Float16  # [f, c, h, w]
    logvar: Float16 | None  # [f, c, h, w]; None when the set stores means only
    embedding: Float16 | None  # [f, d]; None when not requested


class _OpenFile:
    """An open local file, closed when this object is garbage-collected. Threads and forks can share it (`os.pread`)."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class LatentSet:
    """A complete latent set. Objects are identified by (shard, sample) numbers, as in the shard set that was encoded.

    Reading is thread-safe, and an instance can be pickled or inherited by a fork. The constructor reads `latents.json`
    and the index; the index table of a shard is read when it is first needed.

    Args:
        url: Folder or fsspec URL of the set.
        form: Contents of `latents.json`; None: read this file.
        index: Contents of `index.json`; None: read this file.
        kept: For each shard, the numbers of the samples to select (see `dataset.reading.filters`). Methods then number
            only the selected samples: 0 is the first selected sample of the shard. None: select all samples.

    Raises:
        UserError: The set is missing or unfinished. Methods also raise DamagedMember when a member is damaged.
    """

    def __init__(
        self, url: str | Path, form: LatentFormat | None = None, index: Index | None = None, kept: Kept | None = None
    ) -> None:
        self.url = str(url)
        self.format = form or read_format(self.url)
        self.index = index or self._read_index()
        self.kept = kept
        self._samples_per_shard = count_samples(self.url, self.index, kept)
        self._table = lru_cache(_CACHED_SHARDS)(self._load_table)
        self._file = lru_cache(_OPEN_FILES)(self._open)
        self._meta = lru_cache(_CACHED_METAS)(self._load_meta)

    def __reduce__(self) -> tuple[type["LatentSet"], tuple[str, LatentFormat, Index, Kept | None]]:
        return LatentSet, (self.url, self.format, self.index, self.kept)

    def __len__(self) -> int:
        return sum(self.samples_per_shard)

    @property
    def samples_per_shard(self) -> tuple[int, ...]:
        return self._samples_per_shard

    @property
    def fingerprint(self) -> str:
        """One sha256, computed from the hashes of all tars and from the numbers of the selected samples."""
        return fingerprint_of(self.index, self.kept)

    def narrowed(self, kept: Kept | None) -> "LatentSet":
        """Return a copy of this set that selects other samples: the stored samples with the numbers `kept`, or all.

        `kept` contains sample numbers for each shard, as in the constructor.
        """
        return LatentSet(self.url, self.format, self.index, kept)

    def uid(self, shard: int, sample: int) -> str:
        return self._table(shard).uids[self._stored(shard, sample)]

    def uids(self) -> list[str]:
        """Return the uids of all selected objects, in order. This reads the index table of every shard."""
        return [self.uid(shard, i) for shard, samples in enumerate(self.samples_per_shard) for i in range(samples)]

    def meta(self, shard: int, sample: int) -> Meta:
        """Return the metadata of object number `sample` of shard number `shard`. Recently read metadata are cached."""
        return self._meta(shard, sample)

    def angles_deg(self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]]) -> Float64:
        """Return elevation and azimuth in degrees, float64 [f, 2], of `f` views of one object.

        The angles come from the index table of the shard. The object's metadata are not read.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            wanted: The views as pairs (view set, index), such as ("fixed", 3).
        """
        table, stored = self._table(shard), self._stored(shard, sample)
        places = [(stored, VIEW_SETS.index(view_set), index) for view_set, index in wanted]
        return np.array([(table.elevation_deg[place], table.azimuth_deg[place]) for place in places])

    def views(
        self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]], *, embedding: bool = False
    ) -> StoredLatents:
        """Read the latents, and optionally the embeddings, of some views of one object.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            wanted: The views as pairs (view set, index), such as ("fixed", 3). The result has the same order.
            embedding: Whether to return the image embeddings too.

        Raises:
            UserError: The set does not store embeddings of these views, or the tar cannot be read.
            DamagedMember: A member is damaged.
        """
        form, rows = self.format, []
        for view_set, index in wanted:
            if embedding and not form.has_embedding(view_set):
                raise UserError(
                    f"the latent set {self.url} has no embeddings of {view_set} views; encode the shard set again with "
                    "--embedded all"
                )
            rows.append(self._numbers(shard, sample, view_set, index))
        n, shape = form.latent_numbers, (len(rows), form.channels, form.height, form.width)
        both = np.stack([row[: 2 * n if form.logvar else n] for row in rows])
        return StoredLatents(
            mean=both[:, :n].reshape(shape),
            logvar=both[:, n:].reshape(shape) if form.logvar else None,
            embedding=np.stack([row[-form.embedding :] for row in rows]) if embedding else None,
        )

    def _numbers(self, shard: int, sample: int, view_set: ViewSet, index: int) -> Float16:
        if not 0 <= index < VIEWS_PER_SET:
            raise UserError(
                f"there is no view number {index} in the view set {view_set!r}; give a number from 0 to "
                f"{VIEWS_PER_SET - 1}"
            )
        data = self._member(shard, sample, 1 + VIEWS_PER_SET * VIEW_SETS.index(view_set) + index)
        header = self.format.headers[view_set]
        if not data.startswith(header):
            name = latent_name(self.uid(shard, sample), view_set, index)
            what = f"{name} is not the array that {LATENTS_FILE} describes"
            raise DamagedMember(self._message(self._table(shard).name, what))
        return np.frombuffer(data, FLOAT16, offset=len(header))

    def _stored(self, shard: int, sample: int) -> int:
        """Convert the number of a selected sample to the number of the sample within the whole shard."""
        return sample if self.kept is None else int(self.kept[shard][sample])

    def _member(self, shard: int, sample: int, column: int) -> bytes:
        """Return the bytes of a member after verifying their checksum. Column 0: metadata; columns 1 to 32: views."""
        table, stored = self._table(shard), self._stored(shard, sample)
        offset, size, crc32 = table.places[stored, column].tolist()
        try:
            file = self._file(shard)
            if file is not None:
                data = os.pread(file.descriptor, size, offset)
            else:
                fs, root = url_to_fs(self.url)
                data = fs.cat_file(f"{root}/{table.name}.tar", start=offset, end=offset + size)
        except OSError as error:
            raise UserError(
                self._message(table.name, f"the shard's tar cannot be read ({error.strerror or error})")
            ) from error
        if len(data) != size or zlib.crc32(data) != crc32:
            name = latent_names(table.uids[stored])[column]
            raise DamagedMember(self._message(table.name, f"member {name} is truncated or corrupt"))
        return data

    def _open(self, shard: int) -> _OpenFile | None:
        """Open the tar of the shard number `shard`. Return None when the tar is not on a local file system."""
        fs, root = url_to_fs(self.url)
        if not isinstance(fs, LocalFileSystem):
            return None
        return _OpenFile(os.open(f"{root}/{self._table(shard).name}.tar", os.O_RDONLY))

    def _read_index(self) -> Index:
        fs, root = url_to_fs(self.url)
        if not exists(fs, f"{root}/{INDEX_NAME}"):
            raise UserError(f"the latent set at {self.url} is incomplete; to complete it, {encode_on(self.url)}")
        return read_index(self.url, encode_on(self.url))

    def _load_table(self, shard: int) -> LatentTable:
        fs, root = url_to_fs(self.url)
        entry = self.index.shards[shard]
        try:
            return load_table(fs, root, self.format, entry)
        except UserError as error:
            raise UserError(self._message(entry.name, str(error))) from error

    def _load_meta(self, shard: int, sample: int) -> Meta:
        try:
            return parse_meta(self._member(shard, sample, 0), f"{self.url}/{meta_name(self.uid(shard, sample))}")
        except SchemaError as error:
            raise DamagedMember(str(error)) from error

    def _message(self, shard: str, what: str) -> str:
        return f"{self.url}/{shard}: {what}; {encode_again(self.url, shard)}"


def open_views(url: str | Path) -> ShardSet | LatentSet:
    """Open the set at `url`, which is a shard set of images or a latent set, to train a model on it.

    Raises:
        UserError: The set is missing or incomplete, or its first object does not have the 32 views of ALL_VIEWS.
    """
    fs, root = url_to_fs(url)
    check_reachable(fs, root, str(url))
    if exists(fs, f"{root}/{LATENTS_FILE}"):
        return LatentSet(url)
    shards = ShardSet(url)
    if (first := next((number for number, count in enumerate(shards.samples_per_shard) if count), None)) is not None:
        names = set(shards.names(first, 0))
        uid = shards.uid(first, 0)
        if any(member_name(uid, view_set, index) not in names for view_set, index in ALL_VIEWS):
            check_has_views(shards.meta(first, 0), ALL_VIEWS, str(url))
    return shards
