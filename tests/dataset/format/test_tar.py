"""The tar writer against Python's tarfile."""

import io
import tarfile

from dataset.format.tar import pack, tar_end, tar_padding, unpack

MEMBERS = {"a.json": b"{}", "empty": b"", "block": bytes(512), f"{'long' * 30}.webp": b"x" * 9000, "last": b"z" * 513}


def written_by_tarfile(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_the_bytes_are_those_of_tarfile():
    for count in range(len(MEMBERS) + 1):
        some = dict(list(MEMBERS.items())[:count])
        assert pack(some) == written_by_tarfile(some)
    eighteen = {str(number): bytes(512) for number in range(18)}  # 18 * 1024 bytes and the end fill whole records
    assert pack(eighteen) == written_by_tarfile(eighteen)


def test_unpack_reverses_pack():
    assert unpack(pack(MEMBERS)) == MEMBERS
    assert list(unpack(pack(MEMBERS))) == list(MEMBERS)


def test_sizes_are_whole_blocks_and_records():
    assert [len(tar_padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
    assert [(size + len(tar_end(size))) % tarfile.RECORDSIZE for size in range(0, 30 * 512, 512)] == [0] * 30
    assert min(len(tar_end(size)) for size in range(0, 30 * 512, 512)) == 1024
