"""Check one shard by reading its tar file from start to end, as WebDataset does.

Each problem that is found names the tar member in which it was found.
"""

import hashlib
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.passes import check_pass
from dataset.format.schema import (
    Meta,
    check_uid,
    is_member_name,
    parse_meta,
    sample_names,
    validate_sample,
)
from dataset.format.set_request import RENDER_AGAIN
from dataset.format.shards import REPEAT_COMMAND, Member, render_again
from dataset.images.prepare import decode_webp


@dataclass(frozen=True)
class Problem:
    """One problem of a set. `where` names the file and member, `what` says what is wrong, `remedy` says what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} -> {self.remedy}"


@dataclass(frozen=True)
class SetKind:
    """The checks for a set of images or of latents, and the remedies to state in error messages about such a set."""

    names: Callable[[str, Mapping[str, bytes]], list[str]]  # of the members that a uid must have, given those found
    is_member: Callable[[str], bool]  # a sample can have a member of this name
    validate: Callable[[Mapping[str, bytes], str], Meta]  # checks a whole sample; raises UserError
    fault: Callable[[str, bytes, Meta | None], str]  # problem of a member other than the metadata, or ""
    shard_remedy: Callable[[str], str]  # what to do about a damaged shard
    missing_remedy: str  # about missing files
    set_remedy: str  # about damaged files of the whole set


def _image_fault(name: str, data: bytes, meta: Meta | None) -> str:
    if name.endswith(".png"):
        check_pass(name, data, name, meta.resolution if meta else None)
        return ""
    shape = decode_webp(data, name).shape
    resolution = meta.resolution if meta else shape[0]
    square = (resolution, resolution, 4)
    return "" if shape == square else f"has shape {shape}, but its metadata says {square}"


IMAGE_SET: Final = SetKind(
    sample_names, is_member_name, validate_sample, _image_fault, render_again, REPEAT_COMMAND, RENDER_AGAIN
)


class HashingReader:
    """File wrapper that counts the bytes that are read and computes the SHA-256 of these bytes.

    Read the file from start to end; the wrapper has no `seek`.
    """

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
    """The problems of one shard, collected while the shard's tar file is read."""

    name: str
    kind: SetKind = IMAGE_SET
    expected: dict[str, Member] = field(default_factory=dict)  # from the statistics; empty when they are unusable
    problems: list[Problem] = field(default_factory=list)
    uids: dict[str, None] = field(default_factory=dict)  # samples found, in order
    metas: dict[str, Meta] = field(default_factory=dict)  # of valid samples, without their views
    seen: set[str] = field(default_factory=set)  # members found, valid or not
    sound: dict[str, bytes] = field(default_factory=dict)  # members of the current sample that passed their checks

    def add(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what, self.kind.shard_remedy(self.name)))

    def walk(self, reader: HashingReader) -> None:
        """Read the shard's whole tar file through `reader` and collect its problems.

        If the structure of the tar is damaged, the problem names the last member with a valid header.
        """
        uid, last = "", "the start"
        try:
            with tarfile.open(fileobj=reader, mode="r|") as tar:  # type: ignore[call-overload]
                for info in tar:
                    last = info.name
                    if fault := _foreign(info, self.kind):
                        self.add(f"{self.name}.tar/{info.name}", f"unexpected member: {fault}")
                        continue
                    uid = self._enter(uid, info.name)
                    self._member(tar, info)
        except (tarfile.TarError, ValueError, EOFError) as error:
            self.add(f"{self.name}.tar", f"truncated or damaged at or after {last} ({error})")
        self._leave(uid)
        while reader.read(1 << 20):
            pass

    def _enter(self, uid: str, member: str) -> str:
        """Return the uid that the member named `member` belongs to.

        If that is not `uid`, the uid of the previous member, finish checking the sample of `uid` first.
        """
        new = member.partition(".")[0]
        if new == uid:
            return uid
        self._leave(uid)
        if new in self.uids:
            self.add(f"{self.name}.tar/{member}", f"sample {new} occurs twice: its members are not contiguous")
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
        """Describe how a member differs from the shard's statistics; empty if it agrees or there are no statistics."""
        if not self.expected:
            return ""
        place = self.expected.get(info.name)
        if place is None:
            return f"unexpected member: not in {self.name}.json"
        if (place.offset, place.size) != (info.offset_data, len(data)):
            return f"its offset or size differs from {self.name}.json"
        return "" if zlib.crc32(data) == place.crc32 else f"corrupt: its checksum differs from {self.name}.json"

    def _leave(self, uid: str) -> None:
        """Finish checking the sample of `uid`: report missing members, and contents that violate the schema."""
        members, self.sound = self.sound, {}
        if uid not in self.uids:
            return
        names = self.kind.names(uid, members)
        for name in names:
            if name not in self.seen:
                self.add(f"{self.name}.tar/{name}", "missing member")
        for name in members:
            if name not in names:
                self.add(f"{self.name}.tar/{name}", "unexpected member: the metadata of its object do not list it")
        if set(members) != set(names) or not self._valid(members):
            self._each_content(uid, members)

    def _valid(self, members: Mapping[str, bytes]) -> bool:
        """Return whether a complete sample satisfies the schema. If so, keep its metadata without the views."""
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
        """Report missing samples, and damage to headers or padding. Call this after the whole tar has been read.

        Args:
            sha256: Computed hash of the tar.
            size: Size of the tar in bytes.
            expected_sha256: Hash of the tar as recorded in the shard's statistics or in the index. None: both are
                missing or damaged.
        """
        absent = Counter(name.partition(".")[0] for name in self.expected if name.partition(".")[0] not in self.uids)
        for uid, count in absent.items():
            self.add(f"{self.name}.tar", f"sample {uid} is missing ({count} members)")
        if expected_sha256 not in (None, sha256) and not self.problems:
            self.add(
                f"{self.name}.tar",
                f"the sha256 of its {size} bytes is not the recorded one (headers or padding differ)",
            )


def _foreign(info: tarfile.TarInfo, kind: SetKind) -> str:
    """Return the reason why a tar member cannot belong to a sample; empty when its name and type are valid."""
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return "an absolute path or one with .."
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        return "not a regular file"
    try:
        check_uid(info.name.partition(".")[0])
    except UserError as error:
        return str(error)
    return "" if kind.is_member(info.name) else "its name is not in the schema"
