"""Read objects of a shard set, which is opened by URL. Only the requested members of a tar are read."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.format.passes import PassName, decode_pass
from dataset.format.schema import (
    VIEW_SETS,
    Meta,
    SchemaError,
    ViewKey,
    ViewSet,
    member_name,
    meta_name,
    parse_meta,
    pass_name,
)
from dataset.format.shards import Index, Member, SampleEntry, ShardStats, read_index, read_stats
from dataset.images.prepare import decode_webp
from dataset.io.files import url_to_fs
from dataset.reading.epoch_order import epoch_order

_CACHED_SHARDS: Final = 64  # statistics kept in memory; about 10 MB per 1,000 objects
_CACHED_METAS: Final = 1024
_CACHED_ANGLES: Final = 16384  # half a kilobyte each; more than a window of `dataset.reading.epoch_order`

Kept = tuple[NDArray[np.int32], ...]  # the samples of each shard that a filtered set has, ascending


class DamagedMember(UserError):
    """The bytes of a tar member are corrupt. Reading it again fails too, unlike after a failure of the storage."""


class ShardSet:
    """A complete shard set. Objects are identified by (shard, sample) numbers, as in `dataset.reading.epoch_order`.

    Reading is thread-safe. An instance can be pickled or inherited by a fork, because it keeps no file open. The
    statistics of a shard are read when they are first needed.

    Args:
        url: Folder or fsspec URL of the set.
        index: Content of `index.json`; None: read this file.
        kept: For each shard, the numbers of the samples to select (see `dataset.reading.filters`). Methods then number
            only the selected samples: 0 is the first selected sample of the shard. None: select all samples.

    Raises:
        UserError: The set is missing or unfinished. Methods also raise DamagedMember when a member is damaged.
    """

    def __init__(self, url: str | Path, index: Index | None = None, kept: Kept | None = None) -> None:
        self.url = str(url)
        self.index = index or read_index(self.url)
        self.kept = kept
        self._samples_per_shard = count_samples(self.url, self.index, kept)
        self._stats = lru_cache(_CACHED_SHARDS)(self._load_stats)
        self._meta = lru_cache(_CACHED_METAS)(self._load_meta)
        self._angles = lru_cache(_CACHED_ANGLES)(self._load_angles)

    def __reduce__(self) -> tuple[type["ShardSet"], tuple[str, Index, Kept | None]]:
        return ShardSet, (self.url, self.index, self.kept)

    def narrowed(self, kept: Kept | None) -> "ShardSet":
        """Return a copy of this set that selects other samples: the stored samples with the numbers `kept`, or all.

        `kept` contains sample numbers for each shard, as in the constructor.
        """
        return ShardSet(self.url, self.index, kept)

    def __len__(self) -> int:
        return sum(self.samples_per_shard)

    @property
    def samples_per_shard(self) -> tuple[int, ...]:
        return self._samples_per_shard

    @property
    def fingerprint(self) -> str:
        """One sha256, computed from the hashes of all tars and from the numbers of the selected samples.

        Sets with equal fingerprints have the same objects at the same (shard, sample) numbers.
        """
        return fingerprint_of(self.index, self.kept)

    def uid(self, shard: int, sample: int) -> str:
        return self._entry(shard, sample).uid

    def uids(self) -> list[str]:
        """Return the uids of all selected objects, in order. This reads the statistics of every shard."""
        return [self.uid(shard, i) for shard, samples in enumerate(self.samples_per_shard) for i in range(samples)]

    def objects(self, seed: int, epoch: int = 0, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int]]:
        """Yield (shard, sample) of the objects that one rank reads in one epoch, in the order of `epoch_order`.

        Args:
            seed: Seed of the shuffling.
            epoch: Number of the epoch, counted from 0.
            rank: Number of the rank, 0 to `world` - 1.
            world: Number of ranks.
        """
        return (
            (int(shard), int(sample)) for shard, sample in epoch_order(self.samples_per_shard, seed, epoch, rank, world)
        )

    def read(self, shard: int, sample: int, members: Sequence[str]) -> dict[str, bytes]:
        """Read some members of one object and check their checksums. Return full member name -> bytes.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            members: Full member names, as returned by `schema.member_name` and `schema.meta_name`.

        Raises:
            UserError: A member does not exist or cannot be read.
            DamagedMember: A member is corrupt.
        """
        stats, entry = self._stats(shard), self._entry(shard, sample)
        try:
            places = [entry.members[name.removeprefix(f"{entry.uid}.")] for name in members]
        except KeyError as error:
            raise UserError(
                f"{self.url}/{stats.name}.tar: the object {entry.uid} has no member {error}; `python -m dataset verify "
                f"{self.url}` says what to do"
            ) from error
        chunks = self._ranges(f"{stats.name}.tar", places)
        for name, place, data in zip(members, places, chunks, strict=True):
            if len(data) != place.size or zlib.crc32(data) != place.crc32:
                raise DamagedMember(self._message(stats.name, f"member {name} is truncated or corrupt"))
        return dict(zip(members, chunks, strict=True))

    def names(self, shard: int, sample: int) -> list[str]:
        """Return the full names of all members of object number `sample` of shard number `shard`, in their order."""
        entry = self._entry(shard, sample)
        return [f"{entry.uid}.{suffix}" for suffix in entry.members]

    def passes(self, shard: int, sample: int, name: PassName, wanted: Sequence[tuple[ViewSet, int]]) -> NDArray[Any]:
        """Read a pass of `f` views of one object: [f, h, w] or [f, h, w, 3], as `dataset.format.passes.decode_pass`.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            name: Name of the pass, such as "depth".
            wanted: The views as pairs (view set, index), such as ("fixed", 3).

        Raises:
            UserError: The object was rendered without this pass, or it cannot be read.
            DamagedMember: A file is corrupt.
        """
        about = self.meta(shard, sample)
        if name not in about.passes:
            has = ", ".join(about.passes) or "none"
            raise UserError(
                f"{self.url}: the object {about.uid} has no pass {name} (its passes: {has}); render the set again with "
                f"--passes {name}"
            )
        names = [pass_name(about.uid, view_set, index, name) for view_set, index in wanted]
        data = self.read(shard, sample, names)
        try:
            return np.stack([decode_pass(name, data[member], f"{self.url}/{member}") for member in names])
        except UserError as error:
            raise DamagedMember(str(error)) from error

    def meta(self, shard: int, sample: int) -> Meta:
        """Return the metadata of object number `sample` of shard number `shard`. Recently read metadata are cached."""
        return self._meta(shard, sample)

    def angles_deg(self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]]) -> NDArray[np.float64]:
        """Return elevation and azimuth in degrees, float64 [f, 2], of `f` views of one object.

        The angles are computed from the metadata and cached. This cache holds more objects than the one of `meta`.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            wanted: The views as pairs (view set, index), such as ("fixed", 3).
        """
        angles_deg = self._angles(shard, sample)
        return np.stack([angles_deg[view_set][index] for view_set, index in wanted])

    def views(self, shard: int, sample: int, wanted: Sequence[tuple[ViewSet, int]]) -> NDArray[np.uint8]:
        """Read the images of `f` views of one object: RGBA, uint8 [f, h, w, 4] with straight alpha.

        Args:
            shard: Number of the shard.
            sample: Number of the object within the selected samples of the shard.
            wanted: The views as pairs (view set, index), such as ("fixed", 3). The images are in the same order.

        Raises:
            UserError: A view does not exist or cannot be read.
            DamagedMember: An image is corrupt.
        """
        uid = self.uid(shard, sample)
        names = [member_name(uid, view_set, index) for view_set, index in wanted]
        data = self.read(shard, sample, names)
        try:
            return np.stack([decode_webp(data[name], f"{self.url}/{name}") for name in names])
        except UserError as error:
            raise DamagedMember(str(error)) from error

    def _entry(self, shard: int, sample: int) -> SampleEntry:
        return self._stats(shard).samples[sample if self.kept is None else self.kept[shard][sample]]

    def _load_stats(self, shard: int) -> ShardStats:
        fs, root = url_to_fs(self.url)
        entry = self.index.shards[shard]
        stats = read_stats(fs, root, entry.name)
        if (stats.sha256, len(stats.samples)) != (entry.sha256, entry.samples):
            raise UserError(
                self._message(entry.name, f"the statistics file {entry.name}.json disagrees with index.json")
            )
        return stats

    def _load_meta(self, shard: int, sample: int) -> Meta:
        name = meta_name(self.uid(shard, sample))
        data = self.read(shard, sample, [name])[name]
        try:
            return parse_meta(data, f"{self.url}/{name}")
        except SchemaError as error:
            raise DamagedMember(str(error)) from error

    def _load_angles(self, shard: int, sample: int) -> Mapping[ViewSet, NDArray[np.float64]]:
        meta = self._load_meta(shard, sample)
        return {name: np.array([(v.elevation_deg, v.azimuth_deg) for v in views]) for name, views in meta.views.items()}

    def _ranges(self, file_name: str, places: Sequence[Member]) -> list[bytes]:
        fs, root = url_to_fs(self.url)
        path = f"{root}/{file_name}"
        try:
            if isinstance(fs, LocalFileSystem):
                return _local_ranges(path, places)
            ends = [place.offset + place.size for place in places]
            chunks: list[bytes] = fs.cat_ranges([path] * len(places), [p.offset for p in places], ends)
            return chunks
        except OSError as error:
            raise UserError(self._message(file_name, f"cannot be read ({error.strerror or error})")) from error

    def _message(self, shard: str, what: str) -> str:
        return f"{self.url}/{shard}: {what}; `python -m dataset verify {self.url}` lists all damage"


def check_has_views(meta: Meta, needed: Sequence[ViewKey], url: str) -> None:
    """Raise UserError if an object was not rendered from all `needed` views. `url` is its shard set, for messages."""
    missing = [key for key in needed if key not in meta.view_keys]
    if missing:
        counts = " and ".join(f"{len(meta.views[view_set])} {view_set}" for view_set in VIEW_SETS)
        remedy = "import it with these views" if meta.source == "import" else "render the set with another --rig"
        raise UserError(
            f"{url}: the object {meta.uid} lacks {len(missing)} of {len(needed)} needed views, among others "
            f"{key_name(missing[0])}; its rig {meta.rig or 'isotropic3d'} has {counts} views; {remedy}"
        )


def key_name(key: ViewKey) -> str:
    """Return the name of a view, such as "fixed_03"."""
    return f"{key[0]}_{key[1]:02d}"


def count_samples(url: str, index: Index, kept: Kept | None) -> tuple[int, ...]:
    """Return the number of selected objects in each shard of a set. If `kept` is None, all objects are selected.

    Args:
        url: Folder or URL of the set, for messages.
        index: Content of the set's `index.json`.
        kept: For each shard, the numbers of the selected samples.

    Raises:
        UserError: `kept` and `index` have different numbers of shards, so the selection was made for another set.
    """
    if kept is None:
        return tuple(shard.samples for shard in index.shards)
    if len(kept) != len(index.shards):
        raise UserError(
            f"the set {url} has {len(index.shards)} shards but the selection has {len(kept)}, so the selection "
            "was made from another set; apply the filters to this set"
        )
    return tuple(len(samples) for samples in kept)


def fingerprint_of(index: Index, kept: Kept | None) -> str:
    """Return one sha256, computed from the hashes of all tars in `index` and from the selected samples `kept`."""
    digest = sha256("".join(shard.sha256 for shard in index.shards).encode())
    for samples in kept or ():
        digest.update(len(samples).to_bytes(8, "big") + samples.astype(">i4").tobytes())
    return digest.hexdigest()


def _local_ranges(path: str, places: Sequence[Member]) -> list[bytes]:
    with open(path, "rb", buffering=0) as file:
        chunks = []
        for place in places:
            file.seek(place.offset)
            chunks.append(file.read(place.size))
    return chunks
