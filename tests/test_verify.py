import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.image import encode_webp
from dataset.outcome import Outcome, dump_outcomes, read_outcomes
from dataset.schema import dump_meta, parse_meta
from dataset.shard_check import Problem
from dataset.shards import open_set, read_stats, write_index, write_shard
from dataset.verify import verify
from tests.make_shards import make_sample, make_shard_set

TAR = "shard-000000.tar"


@pytest.fixture(scope="module")
def sound_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("sound"), 3, resolution=8, objects_per_shard=2)


@pytest.fixture
def shard_set(sound_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_set, tmp_path / "set"))


def wheres(problems: list[Problem]) -> set[str]:
    return {problem.where for problem in problems}


def append_members(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "a") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rewrite(shard_set: Path, change: Callable[[str, dict[str, bytes]], None]) -> None:
    """Write shard 0 again with changed contents and matching statistics: only the contents can give it away."""
    fs, root = open_set(shard_set)
    samples = []
    for number, uid in enumerate(["synthetic-0000", "synthetic-0001"]):
        members = make_sample(uid, number, resolution=8)
        change(uid, members)
        samples.append((uid, members))
    write_shard(fs, root, "shard-000000", samples)
    write_index(fs, root, num_shards=2, objects_per_shard=2)


def test_a_sound_set_has_no_problems(shard_set: Path) -> None:
    assert verify(shard_set) == []


def test_a_set_in_memory_is_verified_too() -> None:
    make_shard_set("memory://verify/set", 2, resolution=8)
    assert verify("memory://verify/set") == []
    fs, root = open_set("memory://verify/set")
    data = bytearray(fs.cat_file(f"{root}/{TAR}"))
    place = read_stats(fs, root, "shard-000000").samples[1].members["random_03.webp"]
    data[place.offset + 20] ^= 1
    fs.pipe_file(f"{root}/{TAR}", bytes(data))
    assert f"{TAR}/synthetic-0001.random_03.webp" in wheres(verify("memory://verify/set"))


def test_no_set_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no shard set"):
        verify(tmp_path)


def test_truncation_at_any_offset_is_found(shard_set: Path) -> None:
    whole = (shard_set / TAR).read_bytes()
    offsets = np.random.default_rng(0).integers(0, len(whole), 40).tolist()
    for offset in [0, 1, 511, 512, 513, len(whole) // 2 // 512 * 512, len(whole) - 10240, len(whole) - 1, *offsets]:
        (shard_set / TAR).write_bytes(whole[:offset])
        problems = verify(shard_set)
        assert any(problem.where.startswith(TAR) for problem in problems), offset


def test_truncation_names_the_member_and_the_samples_lost(shard_set: Path) -> None:
    place = read_stats(*open_set(shard_set), "shard-000000").samples[0].members["random_05.webp"]
    (shard_set / TAR).write_bytes((shard_set / TAR).read_bytes()[: place.offset + 10])
    problems = verify(shard_set)
    lost = [f"{TAR}/synthetic-0000.random_{i:02d}.webp" for i in range(5, 16)]
    assert set(lost) <= wheres(problems)
    assert f"{TAR}/synthetic-0000.random_04.webp" not in wheres(problems)
    assert any("damaged at or after synthetic-0000.random_05.webp" in problem.what for problem in problems)
    assert any("sample synthetic-0001 is missing" in problem.what for problem in problems)
    assert "outcomes/shard-000000.parquet/synthetic-0001" in wheres(problems)  # its row says ok


def test_a_flipped_bit_anywhere_is_found(shard_set: Path) -> None:
    whole = (shard_set / TAR).read_bytes()
    for offset in np.random.default_rng(1).integers(0, len(whole), 60).tolist():
        data = bytearray(whole)
        data[offset] ^= 1 << (offset % 8)
        (shard_set / TAR).write_bytes(bytes(data))
        problems = verify(shard_set)
        assert any(problem.where.startswith(TAR) for problem in problems), offset


def test_a_flipped_bit_in_a_member_names_that_member_alone(shard_set: Path) -> None:
    whole = (shard_set / TAR).read_bytes()
    stats = read_stats(*open_set(shard_set), "shard-000000")
    for entry in stats.samples:
        for suffix in ("meta.json", "fixed_00.webp", "random_15.webp"):
            place = entry.members[suffix]
            data = bytearray(whole)
            data[place.offset + place.size - 1] ^= 0x10
            (shard_set / TAR).write_bytes(bytes(data))
            problems = verify(shard_set)
            assert wheres(problems) == {f"{TAR}/{entry.uid}.{suffix}"}
            assert "corrupt" in problems[0].what


def test_foreign_members_are_found_by_name(shard_set: Path) -> None:
    link = tarfile.TarInfo("synthetic-0001.fixed_00.webp")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    append_members(
        shard_set / TAR,
        (tarfile.TarInfo("../../escape.meta.json"), b"x"),
        (tarfile.TarInfo("/etc/passwd"), b"x"),
        (tarfile.TarInfo("stranger.txt"), b"x"),
        (tarfile.TarInfo("synthetic-0001.fixed_16.webp"), b"x"),
        (link, b""),
    )
    problems = {problem.where: problem.what for problem in verify(shard_set)}
    assert "climbing" in problems[f"{TAR}/../../escape.meta.json"]
    assert "absolute" in problems[f"{TAR}//etc/passwd"]
    assert "foreign" in problems[f"{TAR}/stranger.txt"]
    assert "foreign" in problems[f"{TAR}/synthetic-0001.fixed_16.webp"]
    assert "not a regular file" in problems[f"{TAR}/synthetic-0001.fixed_00.webp"]
    assert len(problems) == 5


def test_a_sample_that_the_statistics_do_not_know_is_foreign(shard_set: Path) -> None:
    members = make_sample("intruder", 5, resolution=8)
    append_members(shard_set / TAR, *((tarfile.TarInfo(name), data) for name, data in members.items()))
    problems = verify(shard_set)
    assert {f"{TAR}/{name}" for name in members} <= wheres(problems)
    assert "outcomes/shard-000000.parquet/intruder" in wheres(problems)


def test_duplicate_members_are_found(shard_set: Path) -> None:
    append_members(shard_set / TAR, (tarfile.TarInfo("synthetic-0001.fixed_03.webp"), b"again"))
    problems = verify(shard_set)
    assert [(p.where, p.what) for p in problems] == [(f"{TAR}/synthetic-0001.fixed_03.webp", "duplicate member")]


def test_a_missing_member_is_named_even_without_statistics(shard_set: Path) -> None:
    with tarfile.open(shard_set / TAR) as tar:
        kept = [(m, tar.extractfile(m).read()) for m in tar if "0000.random_09" not in m.name]  # type: ignore[union-attr]
    (shard_set / TAR).unlink()
    with tarfile.open(shard_set / TAR, "w"):
        pass
    append_members(shard_set / TAR, *kept)
    (shard_set / "shard-000000.json").unlink()
    found = wheres(verify(shard_set))
    assert {f"{TAR}/synthetic-0000.random_09.webp", "shard-000000.json"} <= found


def test_contents_are_checked_where_every_checksum_agrees(shard_set: Path) -> None:
    def spoil(uid: str, members: dict[str, bytes]) -> None:
        if uid == "synthetic-0000":
            members[f"{uid}.fixed_04.webp"] = b"not a picture"
            members[f"{uid}.random_02.webp"] = encode_webp(np.zeros((4, 4, 4), np.uint8))
        else:
            members[f"{uid}.meta.json"] = b'{"schema_version": 1}'

    rewrite(shard_set, spoil)
    problems = {problem.where: problem.what for problem in verify(shard_set)}
    assert set(problems) == {
        f"{TAR}/synthetic-0000.fixed_04.webp",
        f"{TAR}/synthetic-0000.random_02.webp",
        f"{TAR}/synthetic-0001.meta.json",
    }
    assert "(4, 4, 4)" in problems[f"{TAR}/synthetic-0000.random_02.webp"]


def test_metadata_of_another_object_is_found(shard_set: Path) -> None:
    def swap(uid: str, members: dict[str, bytes]) -> None:
        meta = parse_meta(members[f"{uid}.meta.json"], uid)
        members[f"{uid}.meta.json"] = dump_meta(replace(meta, uid="synthetic-0000"))

    rewrite(shard_set, swap)
    problems = verify(shard_set)
    assert wheres(problems) == {f"{TAR}/synthetic-0001.meta.json"}


def test_missing_and_extra_files_are_found(shard_set: Path) -> None:
    (shard_set / "shard-000001.tar").unlink()
    shutil.copy(shard_set / TAR, shard_set / "shard-000007.tar")
    (shard_set / "index.json.12345678.tmp").write_text("")
    (shard_set / ".staging").mkdir()
    (shard_set / ".staging" / "synthetic-0000.tar").write_text("")
    found = wheres(verify(shard_set))
    assert {
        "shard-000001.tar",
        "shard-000007.tar",
        "shard-000007.json",
        "index.json.12345678.tmp",
        ".staging/synthetic-0000.tar",
        "synthetic-0000",  # in two shards now
    } <= found


def test_an_unfinished_set_is_checked_as_far_as_it_is(shard_set: Path) -> None:
    (shard_set / "index.json").unlink()
    problems = verify(shard_set)
    assert wheres(problems) == {"index.json"}
    assert "unfinished" in problems[0].what


def test_an_index_that_disagrees_is_found(shard_set: Path) -> None:
    raw = json.loads((shard_set / "index.json").read_text())
    raw["shards"][0]["sha256"] = "0" * 64
    (shard_set / "index.json").write_text(json.dumps(raw))
    assert wheres(verify(shard_set)) == {"shard-000000.json"}


def test_outcomes_samples_and_manifest_are_reconciled(shard_set: Path) -> None:
    rows = read_outcomes(*open_set(shard_set))[:2]
    failed = replace(rows[0], status="failed", stage="render", error_class="X")
    ghost = Outcome(uid="ghost", position=7, shard="shard-000000", status="ok")
    (shard_set / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([failed, rows[1], ghost]))
    (shard_set / "outcomes/shard-000001.parquet").unlink()
    found = {problem.where: problem.what for problem in verify(shard_set)}
    assert found == {
        "outcomes/shard-000000.parquet/ghost": "row says ok but the shard has no such sample",
        "outcomes/shard-000000.parquet/synthetic-0000": "sample has no ok row",
        "outcomes/shard-000001.parquet": "missing outcome table",
        "set.json/synthetic-0002": "asked for, but has no outcome row",
        "outcomes/ghost": "has a row but is not in set.json",
    }


def test_damaged_tables_and_manifests_are_found(shard_set: Path) -> None:
    (shard_set / "outcomes/shard-000000.parquet").write_bytes(b"PAR1nonsense")
    (shard_set / "set.json").write_text("[]")
    assert wheres(verify(shard_set)) == {"outcomes/shard-000000.parquet", "set.json"}


def test_a_failed_object_is_no_problem(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    rows = read_outcomes(*open_set(folder))
    lost = Outcome(uid="lost", position=2, shard="shard-000000", status="failed", stage="import", error_class="E")
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([*rows, lost]))
    asked = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**asked, "uids": [*asked["uids"], "lost"]}))
    assert verify(folder) == []
