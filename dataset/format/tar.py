"""Write members as tar records with fixed metadata, so that the bytes depend only on the members' names and data."""

import io
import tarfile
from collections.abc import Mapping
from typing import Final

BLOCK: Final = 512
_END_BLOCKS: Final = 2


def tar_header(name: str, size: int) -> bytes:
    """Return the header of a member named `name` whose data have `size` bytes, with mode 0644, owner 0 and time 0.

    A name of more than 100 characters gets a PAX header too.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def tar_padding(size: int) -> bytes:
    """Return the zero bytes that follow the data of a member if the data have `size` bytes."""
    return bytes(-size % BLOCK)


def tar_end(size: int) -> bytes:
    """Return the bytes at the end of an archive. Its members, with headers and padding, have `size` bytes in total."""
    end = _END_BLOCKS * BLOCK
    return bytes(end + -(size + end) % tarfile.RECORDSIZE)


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of members (name -> data), in the order of the mapping."""
    parts = [
        part for name, data in members.items() for part in (tar_header(name, len(data)), data, tar_padding(len(data)))
    ]
    parts.append(tar_end(sum(map(len, parts))))
    return b"".join(parts)


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the members (name -> data) of a tar archive that `pack` returned."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
