"""Write and read the shards of a set, the statistics of each shard, and the index of the set.

A set is a folder or any URL that fsspec supports. Files are written atomically. Their bytes depend on the samples only:
tar members have no times and no owner, and their order is fixed. So every run writes the same bytes.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataset.errors import UserError
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.schema import SCHEMA_VERSION, VIEW_SETS, VIEWS_PER_SET, sample_names
from dataset.format.scores import SCORES_FOLDER
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
_IMAGE_SUFFIX: Final = ".webp"
REPEAT_COMMAND: Final = "repeat the command that wrote the set (`make render`, `python -m dataset copy` or `import`)"


class Member(NamedTuple):
    """Position and size, in bytes, of a member's data in the tar, and the zlib.crc32 checksum of the data."""

    offset: int
    size: int
    crc32: int


class SampleEntry(NamedTuple):
    """One object of a shard. The keys of `members` are member names without the uid, such as "fixed_00.webp"."""

    uid: str
    members: Mapping[str, Member]


@dataclass(frozen=True)
class ShardStats:
    """The statistics of a shard, stored in `NAME.json`: size and sha256 of the tar, and the position of each member.

    With these statistics, each member can be read and checked separately.
    """

    name: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]


@dataclass(frozen=True)
class ShardEntry:
    """One shard as listed in the index: name, number of objects (`samples`), and size and sha256 of the tar."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The index of a complete set, stored in `index.json`. It is the last file that is written for a set."""

    objects_per_shard: int
    shards: tuple[ShardEntry, ...]
    images: int | None = None  # number of images in all shards; None: 32 per object

    @property
    def objects(self) -> int:
        """Number of objects in all shards; failed and skipped objects are not in shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def views(self) -> int:
        """Number of views in all shards."""
        return self.objects * len(VIEW_SETS) * VIEWS_PER_SET if self.images is None else self.images

    @property
    def bytes(self) -> int:
        """Total size of the tars of all shards in bytes."""
        return sum(shard.bytes for shard in self.shards)


def shard_name(index: int) -> str:
    """Return the name of the shard with the number `index`, such as "shard-000007", without a file suffix."""
    return f"shard-{index:06d}"


def render_again(shard: str) -> str:
    """Return what to do about the damaged shard named `shard`, as the end of an error message.

    The renderer rewrites a shard whose outcome table is missing.
    """
    return f"delete {OUTCOMES_FOLDER}/{shard}.parquet and {REPEAT_COMMAND}"


def remove_temporaries(fs: Any, root: str) -> None:
    """Delete the temporary files that killed writers left in the set in folder `root` of `fs`.

    Call it only while holding the lock of the set.
    """
    for folder in (root, f"{root}/{OUTCOMES_FOLDER}", f"{root}/{SCORES_FOLDER}"):
        for path in fs.glob(f"{folder}/*{TEMPORARY_SUFFIX}"):
            fs.rm_file(path)


def write_shard(
    fs: Any,
    root: str,
    name: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    names: Callable[[str, Mapping[str, bytes]], list[str]] = sample_names,
) -> ShardStats:
    """Write the tar of a shard, `root/NAME.tar`, then its statistics `root/NAME.json`. Return the statistics.

    A shard is complete when its statistics exist.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        name: Name of the shard, without suffix.
        samples: Pairs of a uid and the members of its sample (full member name -> data). The members can be in any
            order. Without samples, an empty but valid shard is written.
        names: Function that returns, for a uid and its members, the names of the members that the sample must have. The
            tar contains the members in this order. Default: the names by the schema and the object's metadata.

    Raises:
        UserError: A sample has missing or unknown members, a uid is repeated, or a file cannot be written.
    """
    entries: dict[str, SampleEntry] = {}
    with atomic_file(fs, f"{root}/{name}.tar") as writer:
        for uid, members in samples:
            if uid in entries:
                raise UserError(
                    f"two objects of the shard {name} have the uid {uid!r}; give each object of a set a uid of its own"
                )
            entries[uid] = _write_sample(writer, name, uid, members, names(uid, members))
        writer.write(tar_end(writer.count))
    stats = ShardStats(name, writer.count, writer.digest.hexdigest(), tuple(entries.values()))
    write_json_atomic(fs, f"{root}/{name}.json", _stats_json(stats))
    return stats


def _write_sample(writer: Writer, shard: str, uid: str, members: Mapping[str, bytes], names: list[str]) -> SampleEntry:
    if set(members) != set(names):
        different = ", ".join(sorted(set(members) ^ set(names))[:3])
        raise UserError(
            f"the sample of the object {uid} in the shard {shard} does not have exactly the {len(names)} members that "
            f"the format prescribes; missing or unknown are, among others: {different}"
        )
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
    """Read the statistics of the shard `name` of the set in folder `root` of `fs`.

    Raises:
        UserError: The statistics are missing or invalid. The message ends in `remedy`, which says what to do. If
            `remedy` is None, the message ends in the remedy for a shard set of images.
    """
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
        raise UserError(
            f"{path} is not a valid statistics file of a shard ({error!r}); {remedy or render_again(name)}"
        ) from error


def write_index(fs: Any, root: str, *, num_shards: int, objects_per_shard: int) -> Index:
    """Write the `index.json` of the set in folder `root` of `fs`, from the statistics of all shards. Return the index.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        num_shards: Number of shards. The statistics of the shards 0 to `num_shards` - 1 must exist.
        objects_per_shard: Number of objects per shard, including failed and skipped objects.
    """
    shards, images = [], 0
    for number in range(num_shards):
        stats = read_stats(fs, root, shard_name(number))
        shards.append(ShardEntry(stats.name, len(stats.samples), stats.bytes, stats.sha256))
        images += sum(suffix.endswith(_IMAGE_SUFFIX) for sample in stats.samples for suffix in sample.members)
    index = Index(objects_per_shard, tuple(shards), images or None)  # a latent set has no images
    index = replace(index, images=index.views)
    content = {
        "schema_version": SCHEMA_VERSION,
        "totals": {"objects": index.objects, "views": index.views, "bytes": index.bytes},
        "objects_per_shard": objects_per_shard,
        "shards": [asdict(shard) for shard in shards],
    }
    write_json_atomic(fs, f"{root}/{INDEX_NAME}", content)
    return index


def read_index(url: str | Path, remedy: str = REPEAT_COMMAND) -> Index:
    """Read the index of a complete shard set.

    Args:
        url: Folder or fsspec URL of the set.
        remedy: What to do about an unfinished or damaged set; error messages contain this text.

    Raises:
        UserError: There is no set at `url`, the set is unfinished, or its index is damaged.
    """
    fs, root = url_to_fs(url)
    check_reachable(fs, root, str(url))
    path = f"{root}/{INDEX_NAME}"
    if not exists(fs, path):
        if exists(fs, f"{root}/{SET_NAME}") or fs.glob(f"{root}/shard-*.tar"):
            raise UserError(f"the shard set at {url} is unfinished; to complete it, {remedy}")
        raise UserError(f"there is no shard set at {url}; first run `make render SOURCE=... SHARDS={url}`")
    raw = read_json(fs, path, remedy)
    try:
        _check_version(raw, path)
        shards = tuple(
            ShardEntry(str(s["name"]), int(s["samples"]), int(s["bytes"]), str(s["sha256"])) for s in raw["shards"]
        )
        if (objects_per_shard := int(raw["objects_per_shard"])) < 1:
            raise ValueError(f"objects_per_shard is {objects_per_shard}; it must be at least 1")
        return Index(objects_per_shard, shards, int(raw["totals"]["views"]) if "totals" in raw else None)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a valid index of a shard set ({error!r}); {remedy}") from error


def _check_version(raw: Any, path: str) -> None:
    if raw["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path} has the schema version {raw['schema_version']}, but this program reads version {SCHEMA_VERSION} "
            "only; write the set again with this version of the project"
        )
