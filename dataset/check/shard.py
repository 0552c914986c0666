"""One shard, read from front to back as WebDataset would read it: every finding names its member."""

import hashlib
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.schema import Meta, check_uid, member_names, parse_meta, validate_sample
from dataset.format.shards import REPEAT_COMMAND, Member, render_again
from dataset.images.prepare import decode_webp
from dataset.reading.reconcile import ANEW


@dataclass(frozen=True)
class Problem:
    """One finding: the file and member, what is wrong with it, and what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} -> {self.remedy}"


@dataclass(frozen=True)
class Kind:
    """What differs between a set of pictures and one of latents."""

    names: Callable[[str], list[str]]  # all members of a uid
    validate: Callable[[Mapping[str, bytes], str], Meta]  # of a whole sample; UserError when it is not sound
    fault: Callable[[str, bytes, Meta | None], str]  # of a member other than the metadata; empty when it is sound
    again: Callable[[str], str]  # the remedy for a damaged shard
    repeat: str  # for what is missing
    anew: str  # for what is damaged and belongs to the whole set


def _picture_fault(name: str, data: bytes, meta: Meta | None) -> str:
    shape = decode_webp(data, name).shape
    resolution = meta.resolution if meta else shape[0]
    square = (resolution, resolution, 4)
    return "" if shape == square else f"shape {shape}, its metadata says {square}"


PICTURES: Final = Kind(member_names, validate_sample, _picture_fault, render_again, REPEAT_COMMAND, ANEW)


class HashingReader:
    """A file read from front to back, its sha256 and length taken as it passes."""

    def __init__(self, file: Any, bar: Any) -> None:
        self.file, self.bar = file, bar
        self.digest, self.count = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        self.digest.update(data)
        self.count += len(data)
        self.bar.update(len(data))
        return data


@dataclass
class ShardCheck:
    """One shard's findings, gathered while its tar passes."""

    name: str
    kind: Kind = PICTURES
    expected: dict[str, Member] = field(default_factory=dict)  # from the statistics; empty when these are unusable
    problems: list[Problem] = field(default_factory=list)
    uids: dict[str, None] = field(default_factory=dict)  # samples met, in order
    metas: dict[str, Meta] = field(default_factory=dict)  # of the valid samples, without their views
    seen: set[str] = field(default_factory=set)  # members met, sound or not
    sound: dict[str, bytes] = field(default_factory=dict)  # the present sample's members that passed their own checks

    def add(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what, self.kind.again(self.name)))

    def walk(self, reader: HashingReader) -> None:
        """Read the whole tar. Damage to its structure is named by the last member whose header was sound."""
        uid, last = "", "the beginning"
        try:
            with tarfile.open(fileobj=reader, mode="r|") as tar:  # type: ignore[call-overload]
                for info in tar:
                    last = info.name
                    if fault := _foreign(info, self.kind):
                        self.add(f"{self.name}.tar/{info.name}", f"foreign member: {fault}")
                        continue
                    uid = self._enter(uid, info.name)
                    self._member(tar, info)
        except (tarfile.TarError, ValueError, EOFError) as error:
            self.add(f"{self.name}.tar", f"truncated or damaged at or after {last} ({error})")
        self._leave(uid)
        while reader.read(1 << 20):
            pass

    def _enter(self, uid: str, member: str) -> str:
        """The uid `member` belongs to; the sample before it is closed when it is another one."""
        new = member.partition(".")[0]
        if new == uid:
            return uid
        self._leave(uid)
        if new in self.uids:
            self.add(f"{self.name}.tar/{member}", f"sample {new} comes twice, apart from its other members")
        return new

    def _member(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        where = f"{self.name}.tar/{info.name}"
        if info.name in self.seen:
            self.add(where, "duplicate member")
            return
        file = tar.extractfile(info)
        data = file.read() if file else b""
        self.uids[info.name.partition(".")[0]] = None
        self.seen.add(info.name)
        if fault := self._differs(info, data):
            self.add(where, fault)
        else:
            self.sound[info.name] = data

    def _differs(self, info: tarfile.TarInfo, data: bytes) -> str:
        """How a member disagrees with the statistics; empty when it does not or there are none."""
        if not self.expected:
            return ""
        place = self.expected.get(info.name)
        if place is None:
            return f"foreign member: not in {self.name}.json"
        if (place.offset, place.size) != (info.offset_data, len(data)):
            return f"lies elsewhere than {self.name}.json says"
        return "" if zlib.crc32(data) == place.crc32 else f"corrupt: its checksum differs from {self.name}.json"

    def _leave(self, uid: str) -> None:
        """Close a sample: members that the schema wants and that never came, and contents that do not fit it."""
        members, self.sound = self.sound, {}
        if uid not in self.uids:
            return
        names = self.kind.names(uid)
        for name in names:
            if name not in self.seen:
                self.add(f"{self.name}.tar/{name}", "missing member")
        if set(members) != set(names) or not self._valid(members):
            self._each_content(uid, members)

    def _valid(self, members: Mapping[str, bytes]) -> bool:
        """The schema's own check of a whole sample; it stops at the first fault, so it only says yes or no here."""
        try:
            meta = self.kind.validate(members, self.name)
        except UserError:
            return False
        self.metas[meta.uid] = replace(meta, views={})
        return True

    def _each_content(self, uid: str, members: Mapping[str, bytes]) -> None:
        meta: Meta | None = None
        for name, data in members.items():
            try:
                if name.endswith(".json"):
                    meta = parse_meta(data, name)
                    fault = "" if meta.uid == uid else f"names another object: {meta.uid}"
                else:
                    fault = self.kind.fault(name, data, meta)
            except UserError as error:
                fault = str(error).removeprefix(f"{name}: ")
            if fault:
                self.add(f"{self.name}.tar/{name}", fault)

    def compare(self, sha256: str, size: int, expected_sha256: str | None) -> None:
        """After the walk: samples that never came, and damage that no member accounts for."""
        absent = Counter(name.partition(".")[0] for name in self.expected if name.partition(".")[0] not in self.uids)
        for uid, count in absent.items():
            self.add(f"{self.name}.tar", f"sample {uid} is missing ({count} members)")
        if expected_sha256 not in (None, sha256) and not self.problems:
            self.add(
                f"{self.name}.tar", f"sha256 of its {size} bytes is not the recorded one (headers or padding differ)"
            )


def _foreign(info: tarfile.TarInfo, kind: Kind) -> str:
    """Why a tar member can belong to no sample; empty when its name and kind are of the schema."""
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return "an absolute or climbing path"
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        return "not a regular file"
    uid = info.name.partition(".")[0]
    try:
        return "" if info.name in kind.names(check_uid(uid)) else "its name is not of the schema"
    except UserError as error:
        return str(error)
