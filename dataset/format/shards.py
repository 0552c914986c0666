"""Write and read the shards of a set, their statistics and the index of the set, at any fsspec URL.

Files are written atomically. Their bytes depend on the samples only (no times, no owner, a fixed member order), so
every run writes the same shards.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataset.errors import UserError
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.schema import SCHEMA_VERSION, VIEW_SETS, VIEWS_PER_SET, member_names
from dataset.format.tar import tar_end, tar_header, tar_padding
from dataset.io.files import (
    TEMPORARY_SUFFIX,
    Writer,
    atomic_file,
    check_reachable,
    exists,
    read_json,
    url_to_fs,
    write_json_atomic,
)

INDEX_NAME: Final = "index.json"
SET_NAME: Final = "set.json"  # the request that determines the set (dataset.format.set_request)
SHARD_FILE: Final = re.compile(r"shard-\d{6}\.tar")
REPEAT_COMMAND: Final = "repeat the command that wrote the set (`make render` or `python -m dataset copy`)"


class Member(NamedTuple):
    """Position and size of a member's bytes in the tar, and their zlib.crc32."""

    offset: int
    size: int
    crc32: int


class SampleEntry(NamedTuple):
    """One object of a shard. The keys of `members` are member names without the uid, such as "fixed_00.webp"."""

    uid: str
    members: Mapping[str, Member]


@dataclass(frozen=True)
class ShardStats:
    """The statistics of a shard, `NAME.json`, which make it possible to read and check each member separately."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]


@dataclass(frozen=True)
class ShardEntry:
    """One shard in the index; `samples` counts its objects."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The index of a complete set, `index.json`, which is written last."""

    objects_per_shard: int
    shards: tuple[ShardEntry, ...]

    @property
    def objects(self) -> int:
        """Number of objects."""
        return sum(shard.samples for shard in self.shards)

    @property
    def views(self) -> int:
        """Number of images."""
        return self.objects * len(VIEW_SETS) * VIEWS_PER_SET

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


def shard_name(index: int) -> str:
    """Return the name of a shard, without a file suffix."""
    return f"shard-{index:06d}"


def render_again(shard: str) -> str:
    """Return the remedy for a damaged shard. The renderer rewrites a shard whose outcome table is missing."""
    return f"delete {OUTCOMES_FOLDER}/{shard}.parquet and {REPEAT_COMMAND}"


def remove_temporaries(fs: Any, root: str) -> None:
    """Delete temporary files of killed writers. Call it only while holding the lock of the set."""
    for folder in (root, f"{root}/{OUTCOMES_FOLDER}"):
        for path in fs.glob(f"{folder}/*{TEMPORARY_SUFFIX}"):
            fs.rm_file(path)


def write_shard(
    fs: Any,
    root: str,
    name: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    names: Callable[[str], list[str]] = member_names,
) -> ShardStats:
    """Write `root/NAME.tar`, then its statistics `root/NAME.json`, which mark the shard as complete.

    Args:
        fs: File system of the set.
        root: Folder of the set on `fs`.
        name: Name of the shard, without suffix.
        samples: Pairs of a uid and its members (full member name -> data), whose order does not matter. Without
            samples, an empty but valid shard is written.
        names: Function that returns the names of the members that a uid must have, in the order of the tar. By default,
            these are the 33 members of the schema.

    Raises:
        UserError: Members are missing or unknown, a uid is repeated, or the file system cannot be written.
    """
    entries: dict[str, SampleEntry] = {}
    with atomic_file(fs, f"{root}/{name}.tar") as writer:
        for uid, members in samples:
            if uid in entries:
                raise UserError(f"{name}: uid {uid!r} is repeated; uids must be unique in a set")
            entries[uid] = _write_sample(writer, name, uid, members, names(uid))
        writer.write(tar_end(writer.count))
    stats = ShardStats(name, writer.count, writer.digest.hexdigest(), tuple(entries.values()))
    write_json_atomic(fs, f"{root}/{name}.json", _stats_json(stats))
    return stats


def _write_sample(writer: Writer, shard: str, uid: str, members: Mapping[str, bytes], names: list[str]) -> SampleEntry:
    if set(members) != set(names):
        different = ", ".join(sorted(set(members) ^ set(names))[:3])
        raise UserError(f"{shard}: sample {uid} must have exactly the {len(names)} members of the schema ({different})")
    return SampleEntry(uid, {name[len(uid) + 1 :]: _write_member(writer, name, members[name]) for name in names})


def _write_member(writer: Writer, name: str, data: bytes) -> Member:
    writer.write(tar_header(name, len(data)))
    offset = writer.count
    writer.write(data)
    writer.write(tar_padding(len(data)))
    return Member(offset, len(data), zlib.crc32(data))


def _stats_json(stats: ShardStats) -> dict[str, Any]:
    samples = [{"uid": entry.uid, "members": entry.members} for entry in stats.samples]
    sums = {"name": stats.name, "bytes": stats.bytes, "sha256": stats.sha256}
    return {"schema_version": SCHEMA_VERSION, **sums, "samples": samples}


def read_stats(fs: Any, root: str, name: str, remedy: str | None = None) -> ShardStats:
    """Read the statistics of shard `name`. Raises UserError, ending in `remedy`, when they are missing or invalid."""
    path = f"{root}/{name}.json"
    raw = read_json(fs, path, remedy or REPEAT_COMMAND)
    try:
        _check_version(raw, path)
        samples = tuple(
            SampleEntry(sample["uid"], {suffix: Member(*map(int, m)) for suffix, m in sample["members"].items()})
            for sample in raw["samples"]
        )
        return ShardStats(str(raw["name"]), int(raw["bytes"]), str(raw["sha256"]), samples)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a valid statistics file ({error!r}); {remedy or render_again(name)}") from error


def write_index(fs: Any, root: str, *, num_shards: int, objects_per_shard: int) -> Index:
    """Write `index.json` from the statistics of shards 0 ... num_shards - 1, which must all exist."""
    stats = (read_stats(fs, root, shard_name(i)) for i in range(num_shards))
    shards = tuple(ShardEntry(s.name, len(s.samples), s.bytes, s.sha256) for s in stats)
    index = Index(objects_per_shard, shards)
    totals = {"objects": index.objects, "views": index.views, "bytes": index.bytes}
    write_json_atomic(fs, f"{root}/{INDEX_NAME}", {"schema_version": SCHEMA_VERSION, "totals": totals, **asdict(index)})
    return index


def read_index(url: str | Path, remedy: str = REPEAT_COMMAND) -> Index:
    """Read the index of a complete shard set.

    Raises UserError, with different messages for a missing, an unfinished and a damaged set; the last two contain
    `remedy`.
    """
    fs, root = url_to_fs(url)
    check_reachable(fs, root, str(url))
    path = f"{root}/{INDEX_NAME}"
    if not exists(fs, path):
        if exists(fs, f"{root}/{SET_NAME}") or fs.glob(f"{root}/shard-*.tar"):
            raise UserError(f"the shard set at {url} is unfinished: {remedy} to complete it")
        raise UserError(f"no shard set at {url}: run `make render SOURCE=... SHARDS={url}` first")
    raw = read_json(fs, path, remedy)
    try:
        _check_version(raw, path)
        shards = tuple(
            ShardEntry(str(s["name"]), int(s["samples"]), int(s["bytes"]), str(s["sha256"])) for s in raw["shards"]
        )
        if (objects_per_shard := int(raw["objects_per_shard"])) < 1:
            raise ValueError(f"objects_per_shard is {objects_per_shard}")
        return Index(objects_per_shard, shards)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a shard set's index ({error!r}); {remedy}") from error


def _check_version(raw: Any, path: str) -> None:
    if raw["schema_version"] != SCHEMA_VERSION:
        raise UserError(f"{path}: schema version {raw['schema_version']} is not supported; expected {SCHEMA_VERSION}")
