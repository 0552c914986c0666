import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.attribution import write_attribution
from dataset.check.shard import Problem
from dataset.check.verify import verify
from dataset.errors import UserError
from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import Outcome, dump_outcomes, read_outcomes
from dataset.format.passes import PassName
from dataset.format.schema import dump_meta, parse_meta
from dataset.format.shards import read_stats, write_index, write_shard
from dataset.images.prepare import encode_webp
from dataset.io.files import url_to_fs
from tests.support.make_shards import make_sample, make_shard_set, write_set_request

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


def rewrite(
    shard_set: Path, change: Callable[[str, dict[str, bytes]], None], passes: tuple[PassName, ...] = ()
) -> None:
    """Write shard 0 with changed contents and consistent statistics, so that only the contents are wrong."""
    fs, root = url_to_fs(shard_set)
    samples = []
    for number, uid in enumerate(["synthetic-0000", "synthetic-0001"]):
        members = make_sample(uid, number, resolution=8, passes=passes)
        change(uid, members)
        samples.append((uid, members))
    write_shard(fs, root, "shard-000000", samples, lambda _, members: list(members))
    write_index(fs, root, num_shards=len(list(shard_set.glob("shard-*.tar"))), objects_per_shard=2)


def test_a_sound_set_has_no_problems(shard_set: Path) -> None:
    assert verify(shard_set) == []


def test_a_set_in_memory_is_verified_too() -> None:
    make_shard_set("memory://verify/set", 2, resolution=8)
    assert verify("memory://verify/set") == []
    fs, root = url_to_fs("memory://verify/set")
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
    place = read_stats(*url_to_fs(shard_set), "shard-000000").samples[0].members["random_05.webp"]
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
    stats = read_stats(*url_to_fs(shard_set), "shard-000000")
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
    assert "one with .." in problems[f"{TAR}/../../escape.meta.json"]
    assert "absolute" in problems[f"{TAR}//etc/passwd"]
    assert "unexpected" in problems[f"{TAR}/stranger.txt"]
    assert "unexpected" in problems[f"{TAR}/synthetic-0001.fixed_16.webp"]
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
        "outcomes/shard-000007.parquet",
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


def replace_rows(shard_set: Path, shard: int, rows: Sequence[Outcome]) -> None:
    (shard_set / f"outcomes/shard-{shard:06d}.parquet").write_bytes(dump_outcomes(rows))


def replace_asked(shard_set: Path, **changes: object) -> None:
    asked = json.loads((shard_set / "set.json").read_text())
    (shard_set / "set.json").write_text(json.dumps({**asked, **changes}))


def test_outcomes_samples_and_manifest_are_reconciled(shard_set: Path) -> None:
    rows = read_outcomes(*url_to_fs(shard_set))[:2]
    failed = replace(rows[0], status="failed", stage="render", error_class="X")
    ghost = Outcome(uid="ghost", position=7, shard="shard-000000", status="ok")
    replace_rows(shard_set, 0, [failed, replace(rows[1], position=5), ghost])
    (shard_set / "outcomes/shard-000001.parquet").unlink()
    found = [(problem.where, problem.what) for problem in verify(shard_set)]
    table = "outcomes/shard-000000.parquet"
    assert sorted(found) == [
        (f"{table}/ghost", "has an outcome row but is not in this shard's part of manifest.parquet"),
        (f"{table}/ghost", "its outcome row has status ok, but its sample is not in the shard"),
        (f"{table}/synthetic-0000", "its sample has no outcome row with status ok"),
        (f"{table}/synthetic-0001", "its outcome row has position 5, but in manifest.parquet it is 1"),
        ("outcomes/shard-000001.parquet", "missing outcome table"),
    ]


def test_an_object_without_a_row_is_found(shard_set: Path) -> None:
    replace_rows(shard_set, 0, read_outcomes(*url_to_fs(shard_set))[:1])
    found = {problem.where: problem.what for problem in verify(shard_set)}
    assert found == {
        "manifest.parquet/synthetic-0001": "is in the manifest but has no outcome row",
        "outcomes/shard-000000.parquet/synthetic-0001": "its sample has no outcome row with status ok",
    }


def test_samples_out_of_order_and_foreign_rows_are_found(shard_set: Path) -> None:
    fs, root = url_to_fs(shard_set)
    samples = {f"synthetic-{i:04d}": make_sample(f"synthetic-{i:04d}", i, resolution=8) for i in (1, 0)}
    write_shard(fs, root, "shard-000000", samples.items())
    write_index(fs, root, num_shards=2, objects_per_shard=2)
    (last,) = read_outcomes(fs, root)[2:]
    replace_rows(shard_set, 1, [last, replace(last, shard="shard-000000", status="failed", stage="render")])
    assert [(problem.where, problem.what) for problem in verify(shard_set)] == [
        ("shard-000000.tar", "its samples are not in the order of their rows"),
        ("outcomes/shard-000001.parquet/synthetic-0002", "2 rows"),
        ("outcomes/shard-000001.parquet/synthetic-0002", "its outcome row belongs to shard-000000"),
    ]


def test_a_failed_and_a_skipped_object_are_no_problem_unless_they_have_samples(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    fs, root = url_to_fs(folder)
    rows, manifest = read_outcomes(fs, root), Manifest(fs, root)
    lost = Outcome("lost", 2, "shard-000000", "failed", "import", "E")
    left = Outcome("left", 3, "shard-000000", "skipped", "select", flags=("licence-excluded",))
    write_set_request(fs, root, [*manifest.assets(), Asset("lost", "x"), Asset("left", "x")], objects_per_shard=4)
    replace_rows(folder, 0, [*rows, lost, left])
    assert verify(folder) == []
    replace_rows(folder, 0, [replace(rows[0], status="skipped"), rows[1], lost, left])
    assert [problem.what for problem in verify(folder)] == ["its sample has no outcome row with status ok"]


def test_damaged_tables_and_manifests_are_found(shard_set: Path) -> None:
    replace_rows(shard_set, 0, [])
    (shard_set / "outcomes/shard-000000.parquet").write_bytes(b"PAR1nonsense")
    (shard_set / "set.json").write_text("[]")
    assert wheres(verify(shard_set)) == {"outcomes/shard-000000.parquet", "set.json"}
    (shard_set / "set.json").unlink()
    (shard_set / "manifest.parquet").unlink()
    assert wheres(verify(shard_set)) == {"outcomes/shard-000000.parquet", "set.json"}


def test_a_manifest_that_is_not_the_recorded_one_is_found(shard_set: Path) -> None:
    good = (shard_set / "manifest.parquet").read_bytes()
    fs, root = url_to_fs(shard_set)
    asked = (shard_set / "set.json").read_bytes()
    assets = list(Manifest(fs, root).assets())
    write_set_request(fs, root, [replace(assets[0], title="Another"), *assets[1:]], objects_per_shard=2)
    (shard_set / "set.json").write_bytes(asked)
    (problem,) = verify(shard_set)
    assert (problem.where, "sha256" in problem.what) == ("manifest.parquet", True)
    (shard_set / "manifest.parquet").unlink()
    assert wheres(verify(shard_set)) == {"manifest.parquet"}
    (shard_set / "manifest.parquet").write_bytes(good[: len(good) // 2])
    assert wheres(verify(shard_set)) == {"manifest.parquet"}
    (shard_set / "manifest.parquet").write_bytes(good)
    assert verify(shard_set) == []


def test_every_flipped_byte_of_a_manifest_is_found(shard_set: Path) -> None:
    good = (shard_set / "manifest.parquet").read_bytes()
    for offset in np.random.default_rng(2).integers(0, len(good), 20).tolist():
        data = bytearray(good)
        data[offset] ^= 0xFF
        (shard_set / "manifest.parquet").write_bytes(bytes(data))
        assert wheres(verify(shard_set)) == {"manifest.parquet"}, offset


def test_totals_that_disagree_are_found(shard_set: Path) -> None:
    replace_asked(shard_set, objects=2)
    assert {"manifest.parquet", "index.json"} <= wheres(verify(shard_set))
    replace_asked(shard_set, objects=3, objects_per_shard=3)
    assert "index.json" in wheres(verify(shard_set))


def test_an_index_that_names_other_shards_is_found(shard_set: Path) -> None:
    raw = json.loads((shard_set / "index.json").read_text())
    raw["shards"][1]["name"] = "elsewhere"
    (shard_set / "index.json").write_text(json.dumps(raw))
    found = {problem.where: problem.what for problem in verify(shard_set)}
    assert "'elsewhere' where shard-000001 is expected" in found["index.json"]
    assert {"elsewhere.tar", "outcomes/elsewhere.parquet", "shard-000001.tar"} <= set(found)


def test_credits_of_manifest_metadata_and_attribution_agree(shard_set: Path) -> None:
    fs, root = url_to_fs(shard_set)
    assets = list(Manifest(fs, root).assets())
    write_set_request(fs, root, [assets[0], replace(assets[1], author="Somebody"), assets[2]], objects_per_shard=2)
    write_attribution(fs, root)
    assert wheres(verify(shard_set)) == {f"{TAR}/synthetic-0001.meta.json"}


def test_an_attribution_file_that_is_missing_or_wrong_is_found(shard_set: Path) -> None:
    path = shard_set / "attribution.csv"
    good = path.read_bytes()
    lines = good.splitlines(keepends=True)
    for data, fault in [
        (b"".join([lines[0], lines[1], lines[3]]), "starting at synthetic-0001"),
        (good.replace(b"CC-BY-4.0", b"CC0-1.0"), "starting at synthetic-0001"),
        (good[:-5], "starting at synthetic-0002"),
        (good + lines[1], "more lines"),
        (b"", "header"),
    ]:
        path.write_bytes(data)
        (problem,) = verify(shard_set)
        assert problem.where == "attribution.csv"
        assert fault in problem.what
    path.unlink()
    assert [(problem.where, problem.what) for problem in verify(shard_set)] == [("attribution.csv", "missing")]


def test_passes_are_checked_too(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path / "set", 2, 8, 2, passes=("depth", "albedo"))
    assert verify(str(folder)) == []

    def swap(uid: str, members: dict[str, bytes]) -> None:
        members[f"{uid}.fixed_02.depth.png"] = members[f"{uid}.fixed_02.albedo.png"]

    rewrite(folder, swap, ("depth", "albedo"))
    problems = verify(str(folder))
    assert {problem.where.rpartition("/")[2].partition(".")[2] for problem in problems} == {"fixed_02.depth.png"}
    assert "the pass depth has uint8 pixels" in problems[0].what


def test_a_pass_that_the_metadata_do_not_list_is_missing_or_unexpected(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path / "set", 2, 8, 2, passes=("depth",))

    def without_list(uid: str, members: dict[str, bytes]) -> None:
        about = members[f"{uid}.meta.json"]
        members[f"{uid}.meta.json"] = about.replace(b'["depth"]', b'["depth","mask"]')

    rewrite(folder, without_list, ("depth",))
    problems = verify(str(folder))
    assert {problem.what for problem in problems} == {"missing member"}
    assert len(problems) == 2 * 32
