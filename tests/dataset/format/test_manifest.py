"""The manifest of a set: streaming, unique uids, errors for damage."""

import fsspec
import pytest

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, ROWS_PER_GROUP, Asset, Manifest, write_manifest


def assets(count):
    return (Asset(f"uid-{i}", "test", "CC0-1.0", f"Ann {i}", bytes=i, file=f"{i}.glb") for i in range(count))


def write(folder, objects):
    with (folder / MANIFEST_FILE).open("wb") as file:
        return write_manifest(file, objects)


def opened(folder):
    return Manifest(fsspec.filesystem("file"), str(folder))


def test_slices_are_what_was_written(tmp_path):
    count = ROWS_PER_GROUP + 10
    written, digest = write(tmp_path, assets(count))
    manifest, everything = opened(tmp_path), list(assets(count))
    assert (written, len(manifest)) == (count, count)
    assert list(manifest.assets()) == everything
    assert (
        list(manifest.assets(ROWS_PER_GROUP - 2, ROWS_PER_GROUP + 3))
        == everything[ROWS_PER_GROUP - 2 : ROWS_PER_GROUP + 3]
    )
    assert list(manifest.assets(count - 1, count + 5)) == everything[-1:]
    assert list(manifest.uids()) == [asset.uid for asset in everything]
    assert write(tmp_path, assets(count))[1] == digest


def test_repeated_and_unusable_uids_are_refused(tmp_path):
    twice = [*assets(ROWS_PER_GROUP + 1), Asset("uid-3", "test")]
    with pytest.raises(UserError, match=r"'uid-3' more than once"):
        write(tmp_path, twice)
    with pytest.raises(UserError, match="is invalid; use 1 to 128"):
        write(tmp_path, [Asset("../x", "test")])
    with pytest.raises(UserError, match="no object"):
        write(tmp_path, [])


def test_damage_is_named(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.parquet is missing"):
        opened(tmp_path)
    write(tmp_path, assets(3))
    path = tmp_path / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"manifest\.parquet is damaged"):
        opened(tmp_path)
