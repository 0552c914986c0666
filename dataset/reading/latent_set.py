"""Latent sets (see `dataset.format.latents`) -> latents of the views asked for, read by offset. numpy only.

Axis letters: `f` views of one object, `c` channels, `h w` rows and columns, `d` numbers of an embedding.
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
from dataset.format.latent_index import Table, load_table
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
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, Meta, SchemaError, ViewSet, meta_name, parse_meta
from dataset.format.shards import INDEX_NAME, Index, read_index
from dataset.io.files import check_reachable, exists, url_to_fs
from dataset.reading.shard_set import DamagedMember, Kept, ShardSet, count_samples, fingerprint_of

_CACHED_SHARDS: Final = 64  # tables of places kept in memory: 1,000 objects are about 1.4 MB
_OPEN_FILES: Final = 16
_CACHED_METAS: Final = 256

Float64 = NDArray[np.float64]


class LatentViews(NamedTuple):
    """Latents of views of one object; not multiplied by the model's latent scale."""

    mean: Float16  # [f, c, h, w]
    logvar: Float16 | None  # [f, c, h, w]; None: the set keeps means only
    embedding: Float16 | None  # [f, d]; None: not asked for


class _OpenFile:
    """A file of this machine; read at offsets, so that threads and forks share it. Its last user closes it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class LatentSet:
    """A complete latent set. Objects are (shard, sample) numbers, the same as in the shard set it was made from.

    Reading is thread-safe; an instance can be pickled or inherited by a fork. `latents.json` and the index are read
    when it is made, a shard's tables when it is first touched. `kept` makes a smaller set, as it does of a `ShardSet`.
    Raises UserError when the set is missing or unfinished, DamagedMember when a member is damaged.
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
        """sha256 of what the set holds, the selection included, as that of a `ShardSet`."""
        return fingerprint_of(self.index, self.kept)

    def narrowed(self, kept: Kept | None) -> "LatentSet":
        """The same set with these of its stored samples, instead of those that it has now."""
        return LatentSet(self.url, self.format, self.index, kept)

    def uid(self, shard: int, sample: int) -> str:
        return self._table(shard).uids[self._stored(shard, sample)]

    def uids(self) -> list[str]:
        """All uids, in the set's order. Reads every shard's tables."""
        return [self.uid(shard, i) for shard, samples in enumerate(self.samples_per_shard) for i in range(samples)]

    def meta(self, shard: int, sample: int) -> Meta:
        """The object's metadata; the most recent ones are kept."""
        return self._meta(shard, sample)

    def angles_deg(self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]]) -> Float64:
        """Elevation and azimuth [f, 2] of views: as in the metadata, without reading it."""
        table, stored = self._table(shard), self._stored(shard, sample)
        places = [(stored, VIEW_SETS.index(view_set), index) for view_set, index in wanted]
        return np.array([(table.elevation_deg[place], table.azimuth_deg[place]) for place in places])

    def views(
        self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]], *, embedding: bool = False
    ) -> LatentViews:
        """Read the latents of the (view set, index) pairs `wanted`, in that order, and optionally embeddings.

        Raises UserError when embeddings of these views are not stored, DamagedMember when a member is damaged.
        """
        form, rows = self.format, []
        for view_set, index in wanted:
            if embedding and not form.has_embedding(view_set):
                raise UserError(f"{self.url} keeps no embeddings of {view_set} views; encode again with --embedded all")
            rows.append(self._numbers(shard, sample, view_set, index))
        n, shape = form.latent_numbers, (len(rows), form.channels, form.height, form.width)
        both = np.stack([row[: 2 * n if form.logvar else n] for row in rows])
        return LatentViews(
            mean=both[:, :n].reshape(shape),
            logvar=both[:, n:].reshape(shape) if form.logvar else None,
            embedding=np.stack([row[-form.embedding :] for row in rows]) if embedding else None,
        )

    def _numbers(self, shard: int, sample: int, view_set: ViewSet, index: int) -> Float16:
        if not 0 <= index < VIEWS_PER_SET:
            raise UserError(f"no view {view_set} {index}: indices are 0 to {VIEWS_PER_SET - 1}")
        data = self._member(shard, sample, 1 + VIEWS_PER_SET * VIEW_SETS.index(view_set) + index)
        header = self.format.headers[view_set]
        if not data.startswith(header):
            name = latent_name(self.uid(shard, sample), view_set, index)
            told = f"{name} is not the array that {LATENTS_FILE} describes"
            raise DamagedMember(self._told(self._table(shard).name, told))
        return np.frombuffer(data, FLOAT16, offset=len(header))

    def _stored(self, shard: int, sample: int) -> int:
        """The number in the shard of an object of a smaller set."""
        return sample if self.kept is None else int(self.kept[shard][sample])

    def _member(self, shard: int, sample: int, column: int) -> bytes:
        """A member's bytes, checked against its checksum."""
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
            raise UserError(self._told(table.name, f"its tar cannot be read ({error.strerror or error})")) from error
        if len(data) != size or zlib.crc32(data) != crc32:
            name = latent_names(table.uids[stored])[column]
            raise DamagedMember(self._told(table.name, f"member {name} is truncated or corrupt"))
        return data

    def _open(self, shard: int) -> _OpenFile | None:
        """The tar, kept open; None where it is not on this machine."""
        fs, root = url_to_fs(self.url)
        if not isinstance(fs, LocalFileSystem):
            return None
        return _OpenFile(os.open(f"{root}/{self._table(shard).name}.tar", os.O_RDONLY))

    def _read_index(self) -> Index:
        fs, root = url_to_fs(self.url)
        if not exists(fs, f"{root}/{INDEX_NAME}"):
            raise UserError(f"the latent set at {self.url} is unfinished: {encode_on(self.url)} to complete it")
        return read_index(self.url, encode_on(self.url))

    def _load_table(self, shard: int) -> Table:
        fs, root = url_to_fs(self.url)
        entry = self.index.shards[shard]
        try:
            return load_table(fs, root, self.format, entry)
        except UserError as error:
            raise UserError(self._told(entry.name, str(error))) from error

    def _load_meta(self, shard: int, sample: int) -> Meta:
        try:
            return parse_meta(self._member(shard, sample, 0), f"{self.url}/{meta_name(self.uid(shard, sample))}")
        except SchemaError as error:
            raise DamagedMember(str(error)) from error

    def _told(self, shard: str, what: str) -> str:
        return f"{self.url}/{shard}: {what}; {encode_again(self.url, shard)}"


def open_views(url: str | Path) -> ShardSet | LatentSet:
    """The set at `url`, of either kind: `latents.json` tells. Raises UserError when it is missing or unfinished."""
    fs, root = url_to_fs(url)
    check_reachable(fs, root, str(url))
    return LatentSet(url) if exists(fs, f"{root}/{LATENTS_FILE}") else ShardSet(url)
