"""`dataset verify` of latent sets: members, checksums, tables, index and copied files."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.__main__ import VerifyCommand
from dataset.check.verify import verify
from dataset.errors import UserError
from dataset.format.latents import dump_table, latent_names, read_format
from dataset.format.schema import Meta
from dataset.format.shards import read_stats, write_index, write_shard
from dataset.io.files import url_to_fs
from dataset.reading.latent_set import LatentSet
from tests.support.make_latents import make_latent_set
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import micro_model

TAR, TABLE = "shard-000000.tar", "shard-000000.table.npz"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sound_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = make_shard_set(tmp_path_factory.mktemp("pictures") / "set", 3, 16, objects_per_shard=2)
    return make_latent_set(tmp_path_factory.mktemp("latents") / "set", pictures, micro_model())


@pytest.fixture
def latents(sound_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_set, tmp_path / "set"))


def _found(folder: Path) -> list[tuple[str, str]]:
    return [(problem.where, problem.what) for problem in verify(folder)]


def _members(folder: Path) -> dict[str, dict[str, bytes]]:
    """The first shard's samples, as they are stored."""
    data, samples = (folder / TAR).read_bytes(), read_stats(*url_to_fs(folder), "shard-000000").samples
    return {
        sample.uid: {
            f"{sample.uid}.{suffix}": data[place.offset : place.offset + place.size]
            for suffix, place in sample.members.items()
        }
        for sample in samples
    }


def _rewrite(folder: Path, samples: dict[str, dict[str, bytes]], metas: list[Meta] | None = None) -> None:
    """Write the first shard with consistent statistics, table and index, so that only the contents are wrong."""
    fs, root = url_to_fs(folder)
    metas = metas or [LatentSet(folder).meta(0, i) for i in range(2)]
    stats = write_shard(fs, root, "shard-000000", samples.items(), lambda uid, _: latent_names(uid))
    (folder / TABLE).write_bytes(dump_table(stats, metas))
    write_index(fs, root, num_shards=2, objects_per_shard=2)


def test_a_sound_set_has_no_problems_and_the_command_says_so(latents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(latents) == []
    assert VerifyCommand(str(latents)).run() == 0
    assert "is sound: 3 objects, 96 views in 2 shards" in capsys.readouterr().out
    _rewrite(latents, _members(latents))
    assert verify(latents) == []


def test_every_flipped_bit_is_found(latents: Path) -> None:
    whole = (latents / TAR).read_bytes()
    for offset in np.random.default_rng(0).integers(0, len(whole) - 2048, 12).tolist():
        data = bytearray(whole)
        data[offset] ^= 4
        (latents / TAR).write_bytes(bytes(data))
        problems = verify(latents)
        assert any(problem.where.startswith(TAR) for problem in problems), offset
        assert all("train.encode" in problem.remedy for problem in problems)


def test_a_damaged_or_missing_member_is_named(latents: Path) -> None:
    place = read_stats(*url_to_fs(latents), "shard-000000").samples[1].members["random_03.npy"]
    data = bytearray((latents / TAR).read_bytes())
    data[place.offset + 200] ^= 1
    (latents / TAR).write_bytes(bytes(data))
    where, what = f"{TAR}/synthetic-0001.random_03.npy", "corrupt: its checksum differs from shard-000000.json"
    assert _found(latents) == [(where, what)]
    (latents / TAR).write_bytes(bytes(data[: place.offset]))
    assert ("shard-000000.tar/synthetic-0001.random_15.npy", "missing member") in _found(latents)
    (latents / TAR).unlink()
    assert (TAR, "missing") in _found(latents)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("fixed_02.npy", lambda data: data[:-2], "not the array that latents.json describes"),
        ("random_02.npy", lambda data: b"x" + data[1:], "not the array that latents.json describes"),
        ("random_02.npy", lambda data: data[:-2] + np.float16(np.nan).tobytes(), "has non-finite values"),
        ("meta.json", lambda data: data.replace(b"synthetic-0001", b"synthetic-0009"), "names another object"),
    ],
)
def test_contents_that_do_not_fit_are_found_behind_right_checksums(latents: Path, name: str, change, what: str) -> None:
    metas = [LatentSet(latents).meta(0, i) for i in range(2)]
    samples = _members(latents)
    full = f"synthetic-0001.{name}"
    samples["synthetic-0001"][full] = change(samples["synthetic-0001"][full])
    _rewrite(latents, samples, metas)
    assert any(where == f"{TAR}/{full}" and told.startswith(what) for where, told in _found(latents))


def test_tables_that_disagree_are_found(latents: Path) -> None:
    whole = (latents / TABLE).read_bytes()
    with np.load(io.BytesIO(whole)) as arrays:
        table = dict(arrays)

    def written(**changed: np.ndarray) -> list[tuple[str, str]]:
        buffer = io.BytesIO()
        np.savez(buffer, **{**table, **changed})
        (latents / TABLE).write_bytes(buffer.getvalue())
        return _found(latents)

    assert written() == []
    angles = table["azimuth_deg"].copy()
    angles[1, 1, 5] += 1
    assert written(azimuth_deg=angles) == [(TABLE, "its cameras for synthetic-0001 differ from the metadata")]
    places = table["places"].copy()
    places[0, [3, 4]] = places[0, [4, 3]]
    assert written(places=places) == [(TABLE, "its offsets for synthetic-0000 differ from shard-000000.json")]
    assert written(uids=table["uids"][::-1]) == [(TABLE, "its objects differ from those in shard-000000.json")]
    (where, told), *rest = written(sha256=np.array("0" * 64))
    assert (where, rest) == (TABLE, [])
    assert told.startswith(f"the index table {TABLE} was written for another tar: ")
    (latents / TABLE).write_bytes(whole[:-30])
    assert [where for where, _ in _found(latents)] == [TABLE]
    (latents / TABLE).unlink()
    assert [where for where, _ in _found(latents)] == [TABLE]


def test_index_statistics_and_copied_tables_are_held_against_the_shards(sound_set: Path, tmp_path: Path) -> None:
    def without(name: str) -> list[tuple[str, str]]:
        folder = Path(shutil.copytree(sound_set, tmp_path / name.replace("/", "-")))
        (folder / name).unlink()
        problems = verify(folder)
        assert all("train.encode" in str(problem) for problem in problems)
        return [(problem.where, problem.what) for problem in problems]

    (where, told), *_ = without("index.json")
    assert where == "index.json"
    assert "unfinished; to complete it, repeat the `python -m train.encode" in told
    assert "shard-000001.json" in dict(without("shard-000001.json"))
    assert without("outcomes/shard-000001.parquet") == [("outcomes/shard-000001.parquet", "missing outcome table")]
    assert without("attribution.csv") == [("attribution.csv", "missing")]
    assert [where for where, _ in without("manifest.parquet")] == ["manifest.parquet"]
    stray = Path(shutil.copytree(sound_set, tmp_path / "stray"))
    (stray / "shard-000009.table.npz").write_bytes(b"")
    (stray / "shard-000001.tar.0a1b2c3d.tmp").write_bytes(b"")
    assert [where for where, _ in _found(stray)] == ["shard-000001.tar.0a1b2c3d.tmp", "shard-000009.table.npz"]


def test_damaged_latents_json_is_an_error(latents: Path) -> None:
    (latents / "latents.json").write_text("{}")
    with pytest.raises(UserError, match=r"latents\.json is invalid"):
        verify(latents)


def test_another_author_than_the_manifests_is_found(latents: Path) -> None:
    meta = LatentSet(latents).meta(0, 1)
    samples = _members(latents)
    name = "synthetic-0001.meta.json"
    samples["synthetic-0001"][name] = samples["synthetic-0001"][name].replace(b'"tests"', b'"somebody"')
    _rewrite(latents, samples, [LatentSet(latents).meta(0, 0), replace(meta, author="somebody")])
    assert _found(latents) == [(f"{TAR}/{name}", "author, license or source differ from manifest.parquet")]
    assert read_format(str(latents)).channels == 4
