"""Serialize members as tar records with fixed metadata, so that the bytes depend on names and data only."""

import io
import tarfile
from collections.abc import Mapping
from typing import Final

BLOCK: Final = 512
_END_BLOCKS: Final = 2


def tar_header(name: str, size: int) -> bytes:
    """Return a member's header with mode 0644, owner 0 and time 0. Names over 100 characters get a PAX header too."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def tar_padding(size: int) -> bytes:
    """Return the zeros that follow the data of a member of `size` bytes."""
    return bytes(-size % BLOCK)


def tar_end(size: int) -> bytes:
    """Return the end of an archive whose members take `size` bytes."""
    end = _END_BLOCKS * BLOCK
    return bytes(end + -(size + end) % tarfile.RECORDSIZE)


def pack(members: Mapping[str, bytes]) -> bytes:
    """Serialize members (name -> data) as a tar, in their order."""
    parts = [
        part for name, data in members.items() for part in (tar_header(name, len(data)), data, tar_padding(len(data)))
    ]
    parts.append(tar_end(sum(map(len, parts))))
    return b"".join(parts)


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the members (name -> data) of a tar that was written by `pack`."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
