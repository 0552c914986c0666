"""`python -m dataset copy`, on synthetic sets."""

import multiprocessing
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from dataset.camera import intrinsics
from dataset.check.info import info
from dataset.check.verify import verify
from dataset.copy.copy_set import copy_sets
from dataset.copy.downscale import average_blocks
from dataset.copy.worker import CopyTask, submitter
from dataset.errors import UserError
from dataset.format.outcomes import read_outcomes
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, ViewSet, member_names
from dataset.format.shards import read_stats, shard_name
from dataset.images.prepare import decode_webp, encode_webp
from dataset.io.files import url_to_fs
from dataset.io.lock import owned_out
from dataset.reading.filters import Filters, select
from dataset.reading.shard_set import DamagedMember, ShardSet
from tests.support.make_outcomes import make_set
from tests.support.make_shards import make_sample, make_shard_set

ALL_VIEWS: list[tuple[ViewSet, int]] = [(name, i) for name in VIEW_SETS for i in range(VIEWS_PER_SET)]


def contents(folder: Path | str) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five objects of 32 pixels, one of which failed and one was skipped."""
    return make_set(tmp_path_factory.mktemp("large") / "set", "large-", 5, 32, gone={1: "failed", 2: "skipped"})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four objects of 8 pixels."""
    return make_set(tmp_path_factory.mktemp("small") / "set", "small-", 4, 8, per_shard=3)


@pytest.fixture(scope="module")
def both(large: str, small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets copied into one of 8 pixels, in three shards."""
    out = tmp_path_factory.mktemp("both") / "set"
    copy_sets([large, small], str(out), resolution=8, objects_per_shard=3, workers=1)
    return out


def test_two_sets_become_one_that_is_sound_and_reconciles(both: Path) -> None:
    assert verify(both) == []
    about = info(both)
    assert (about.requested, about.index.objects, len(about.index.shards)) == (9, 7, 3)
    assert about.outcomes.statuses == {"ok": 7, "failed": 1, "skipped": 1}
    assert about.images is not None
    assert about.images.resolutions == {"8x8": 7}
    rows = read_outcomes(*url_to_fs(both))
    assert [row.uid for row in rows] == [f"large-{i}" for i in range(5)] + [f"small-{i}" for i in range(4)]
    assert [(row.position, row.shard) for row in rows] == [(i, shard_name(i // 3)) for i in range(9)]
    assert [row.seconds for row in rows] == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert [row.flags for row in rows][2:5] == [("too-large",), ("clipped",), ()]
    assert "Title large-4" in (both / "attribution.csv").read_text()
    assert "large-1" not in (both / "attribution.csv").read_text()
    assert set(contents(both)) == {
        *(f"shard-00000{i}.{end}" for i in range(3) for end in ("tar", "json")),
        *(f"outcomes/shard-00000{i}.parquet" for i in range(3)),
        *("attribution.csv", "index.json", "manifest.parquet", "set.json"),
    }


def test_training_takes_it_filters_and_all(both: Path) -> None:
    selection = select(both, Filters(without_flags=("clipped",)))
    kept = ShardSet(both, kept=selection.kept)
    assert kept.uids() == ["large-0", "large-4", "small-0", "small-2"]
    assert kept.views(*next(kept.objects(0)), ALL_VIEWS[:2]).shape == (2, 8, 8, 4)


def test_images_are_averaged_and_those_of_the_size_are_the_same_bytes(both: Path, large: str, small: str) -> None:
    copy, sources = _by_uid(str(both)), {**_by_uid(large), **_by_uid(small)}
    assert copy.keys() == sources.keys()
    for uid, (shards, place) in copy.items():
        source, there = sources[uid]
        if source.url == small:
            assert shards.read(*place, member_names(uid)) == source.read(*there, member_names(uid))
            continue
        expected = [average_blocks(picture, 4) for picture in source.views(*there, ALL_VIEWS)]
        assert np.array_equal(shards.views(*place, ALL_VIEWS), expected)
        meta, before = shards.meta(*place), source.meta(*there)
        assert (meta.resolution, meta.hdri, meta.seed) == (8, before.hdri, before.seed)
        assert {view.K for views in meta.views.values() for view in views} == {tuple(map(tuple, intrinsics(8)))}
        assert [view.c2w for view in meta.views["random"]] == [view.c2w for view in before.views["random"]]


def _by_uid(url: str) -> dict[str, tuple[ShardSet, tuple[int, int]]]:
    shards = ShardSet(url)
    return {shards.uid(s, i): (shards, (s, i)) for s, n in enumerate(shards.samples_per_shard) for i in range(n)}


def test_a_set_by_itself_is_copied_byte_for_byte(large: str, tmp_path: Path) -> None:
    copy_sets([large], str(tmp_path / "out"), objects_per_shard=2, workers=1)
    before, after = contents(large), contents(tmp_path / "out")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["set.json"]


def test_smaller_images_are_written_as_the_renderer_writes_them(large: str, both: Path) -> None:
    copy, source = _by_uid(str(both)), _by_uid(large)
    (shards, place), (before, there) = copy["large-0"], source["large-0"]
    name = "large-0.fixed_00.webp"
    picture = decode_webp(before.read(*there, [name])[name], name)
    assert shards.read(*place, [name])[name] == encode_webp(average_blocks(picture, 4))


def test_the_number_of_workers_changes_no_byte(both: Path, large: str, small: str, tmp_path: Path) -> None:
    copy_sets([large, small], str(tmp_path / "out"), resolution=8, objects_per_shard=3, workers=2)
    assert contents(tmp_path / "out") == contents(both)


class Killed(BaseException):
    """An error that no `except` of the tested code catches."""


def test_killed_before_any_file_and_repeated_it_is_the_same_set(
    both: Path, large: str, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataset.io import files as writing

    rename = writing._rename
    for moment in count():
        out, renames = tmp_path / str(moment), count()

        def dying(*what: Any, renames: Any = renames, moment: int = moment) -> None:
            if next(renames) == moment:
                raise Killed
            rename(*what)

        with monkeypatch.context() as patch:
            patch.setattr(writing, "_rename", dying)
            try:
                copy_sets([large, small], str(out), resolution=8, objects_per_shard=3, workers=1)
            except Killed:
                (out / f"shard-000001.tar.{moment:08x}.tmp").write_bytes(b"half")
            else:
                break
        finished = {path.name: path.stat().st_mtime_ns for path in (out / "outcomes").glob("*.parquet")}
        copy_sets([large, small], str(out), resolution=8, objects_per_shard=3, workers=1)
        assert contents(out) == contents(both)
        assert all((out / "outcomes" / name).stat().st_mtime_ns == at for name, at in finished.items())
    assert moment == 13  # manifest, set.json, three shards of three files, attribution, index


def test_a_finished_copy_is_left_as_it_is_wherever_its_sets_lie_now(
    both: Path, large: str, small: str, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(both, tmp_path / "out"))
    moved = str(shutil.copytree(large, tmp_path / "moved"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    index = copy_sets([moved, small], str(out), resolution=8, objects_per_shard=3, workers=1)
    assert index.objects == 7
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before


def test_a_damaged_shard_of_a_copy_is_repaired_as_verify_says(
    both: Path, large: str, small: str, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(both, tmp_path / "out"))
    (out / "shard-000001.tar").write_bytes((out / "shard-000001.tar").read_bytes()[:2000])
    assert "delete outcomes/shard-000001.parquet and repeat" in verify(out)[0].remedy
    (out / "outcomes/shard-000001.parquet").unlink()
    copy_sets([large, small], str(out), resolution=8, objects_per_shard=3, workers=1)
    assert contents(out) == contents(both)


def test_a_uid_in_two_sets_is_named_with_both(large: str, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", "large-", 1, 32)
    with pytest.raises(UserError, match=f"large-0 is in both {large} and {other}"):
        copy_sets([large, other], str(tmp_path / "out"), workers=1)
    assert contents(tmp_path / "out") == {}
    with pytest.raises(UserError, match="large-0 is in"):
        copy_sets([large, large], str(tmp_path / "out"), workers=1)
    (tmp_path / "uids").write_text("large-3\n")
    copy_sets([large], str(tmp_path / "part"), filters=Filters(uids=tmp_path / "uids"), workers=1)
    copy_sets([str(tmp_path / "part"), other], str(tmp_path / "out"), workers=1)
    assert ShardSet(tmp_path / "out").uids() == ["large-3", "large-0"]


@pytest.mark.parametrize(
    ("resolution", "told"),
    [
        (None, r"different sizes in pixels .*has 32, .*has 8"),
        (5, "does not divide 32"),
        (16, "not divide 8"),
        (0, "is 0"),
    ],
)
def test_sizes_that_do_not_fit(large: str, small: str, tmp_path: Path, resolution: int | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        copy_sets([large, small], str(tmp_path / "out"), resolution=resolution, workers=1)
    assert not (tmp_path / "out").exists()


def test_an_object_of_another_size_than_its_set_is_named(tmp_path: Path) -> None:
    mixed = make_set(tmp_path / "mixed", "x", 2, 16, sample=lambda uid, i, size: make_sample(uid, i, size // (i + 1)))
    for resolution in (None, 8):
        with pytest.raises(
            UserError, match=r"images of the object x1 in .* have 8 pixels per side, but those of .* first object .* 16"
        ):
            copy_sets([mixed], str(tmp_path / f"out{resolution}"), resolution=resolution, workers=1)


def test_another_request_is_refused_by_name(both: Path, large: str, small: str, tmp_path: Path) -> None:
    out = Path(shutil.copytree(both, tmp_path / "out"))
    before = contents(out)
    changed: list[tuple[list[str], dict[str, Any], str]] = [
        ([large, small], {"resolution": 4}, "resolution was 8, is now 4"),
        ([large, small], {"objects_per_shard": 4}, "objects_per_shard was 3, is now 4"),
        ([small, large], {}, "source sets were .*large.*small.*, are now .*small.*large"),
        ([large, small], {"filters": Filters(split="train")}, "filters.split was None, is now 'train'"),
    ]
    for sets, options, told in changed:
        with pytest.raises(UserError, match=told):
            copy_sets(sets, str(out), **{"resolution": 8, "objects_per_shard": 3, "workers": 1, **options})
    assert contents(out) == before


def test_what_is_no_copy_is_left_alone(large: str, small: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small, tmp_path / "other"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "set.json").write_text("{")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "set.json").write_text("[]")
    before = contents(tmp_path)
    for out, told in (
        (tmp_path / "odd", "is damaged"),
        (other, "`python -m dataset copy` did not write .*synthetic"),
        (tmp_path / "notes", r"contains the file or folder thesis\.txt"),
        (tmp_path / "file", "cannot write"),
        (tmp_path / "broken", "not valid JSON.*restore it"),
    ):
        with pytest.raises(UserError, match=told):
            copy_sets([large], str(out), workers=1)
    with pytest.raises(UserError, match="`python -m dataset copy` did not write"):
        copy_sets([str(other)], str(other), workers=1)
    assert contents(tmp_path) == before


def test_sets_that_cannot_be_copied(small: str, tmp_path: Path) -> None:
    unfinished, latents = (Path(shutil.copytree(small, tmp_path / name)) for name in ("unfinished", "latents"))
    (unfinished / "index.json").unlink()
    (latents / "latents.json").write_text("{}")
    for sets, told in (
        ([str(unfinished)], "unfinished"),
        ([str(latents)], "is a latent set"),
        ([str(tmp_path / "nothing")], "no shard set"),
        ([], "no set to copy"),
    ):
        with pytest.raises(UserError, match=told):
            copy_sets(sets, str(tmp_path / "out"), workers=1)
    for name in ("workers", "objects_per_shard"):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is 0"):
            copy_sets([small], str(tmp_path / "out"), **{"workers": 1, name: 0})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_member_is_named_and_what_is_finished_stays(large: str, tmp_path: Path, workers: int) -> None:
    damaged, out = Path(shutil.copytree(large, tmp_path / "damaged")), tmp_path / "out"
    sound = (damaged / "shard-000002.tar").read_bytes()
    place = read_stats(*url_to_fs(damaged), shard_name(2)).samples[0].members["random_05.webp"]
    damage = bytearray(sound)
    damage[place.offset + place.size // 2] ^= 255
    (damaged / "shard-000002.tar").write_bytes(bytes(damage))
    with pytest.raises(DamagedMember, match=r"shard-000002: member large-4\.random_05\.webp is truncated or corrupt"):
        copy_sets([str(damaged)], str(out), resolution=8, objects_per_shard=2, workers=workers)
    assert (out / "outcomes/shard-000001.parquet").exists()
    assert not list(out.glob("shard-000002*"))
    (damaged / "shard-000002.tar").write_bytes(sound)
    copy_sets([str(damaged)], str(out), resolution=8, objects_per_shard=2, workers=1)
    assert verify(out) == []


def test_a_worker_that_is_killed_is_one_line(small: str) -> None:
    task = CopyTask(small, ShardSet(small).fingerprint, 0, 0, 8, None)
    with pytest.raises(UserError, match=r"a worker process of the copy was killed.*fewer --workers"):
        _two_workers_killed_between(task)
    with submitter(1) as submit, pytest.raises(UserError, match="has changed since"):
        submit(task._replace(tars="another")).result()


def _two_workers_killed_between(task: CopyTask) -> None:
    with submitter(2) as submit:
        assert submit(task).result().keys() == set(member_names("small-0"))
        for child in multiprocessing.active_children():
            child.kill()
        submit(task).result()


def test_members_that_were_written_wrong_are_named(tmp_path: Path) -> None:
    """Their checksums are right, so only decoding shows the damage."""
    for name, data in (("x1.fixed_07.webp", b"no picture"), ("x1.meta.json", b"{")):

        def sample(uid: str, i: int, size: int, name: str = name, data: bytes = data) -> dict[str, bytes]:
            return {**make_sample(uid, i, size), **({name: data} if i else {})}

        wrong = make_set(tmp_path / name, "x", 2, 16, sample=sample)
        with pytest.raises(UserError, match=rf"{wrong}/shard-000000\.tar/{name}"):
            copy_sets([wrong], str(tmp_path / f"out-{name}"), resolution=8, workers=1)


def test_filters_leave_only_what_they_keep(
    large: str, small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "uids").write_text("large-3\nlarge-0\nsmall-1\nlarge-1\n")
    filters = Filters(uids=tmp_path / "uids", licences=("CC-BY-4.0",))
    copy_sets([large, small], str(tmp_path / "out"), resolution=8, filters=filters, workers=1)
    assert verify(tmp_path / "out") == []
    about = info(tmp_path / "out")
    assert ShardSet(tmp_path / "out").uids() == ["large-3", "small-1"]
    assert (about.requested, about.outcomes.statuses) == (2, {"ok": 2})
    assert "left out: license CC0-1.0" in capsys.readouterr().err


def test_a_licence_may_be_in_one_set_only_and_one_set_may_be_filtered_away(small: str, tmp_path: Path) -> None:
    single = make_set(tmp_path / "single", "x", 1, 8)
    filters = Filters(licences=("CC-BY-4.0",))
    copy_sets([single, small], str(tmp_path / "out"), filters=filters, workers=1)
    assert ShardSet(tmp_path / "out").uids() == ["small-1", "small-3"]
    with pytest.raises(UserError, match="no objects pass the filters"):
        copy_sets([single, small], str(tmp_path / "none"), filters=Filters(min_coverage=0.99), workers=1)
    with pytest.raises(UserError, match="no object has the license MIT"):
        copy_sets([single, small], str(tmp_path / "none"), filters=Filters(licences=("MIT",)), workers=1)


def test_the_same_file_in_two_sets_is_flagged_in_the_later(tmp_path: Path) -> None:
    first = make_set(tmp_path / "first", "x", 2, 8, files={1: "cube"})
    second = make_set(tmp_path / "second", "y", 2, 8, files={1: "cube"})
    copy_sets([first, second], str(tmp_path / "out"), workers=1)
    rows = {row.uid: row.flags for row in read_outcomes(*url_to_fs(tmp_path / "out"))}
    assert rows == {"x0": (), "x1": ("clipped",), "y0": (), "y1": ("clipped", "duplicate")}


def test_a_set_without_an_image_adds_its_rows(small: str, tmp_path: Path) -> None:
    empty = make_set(tmp_path / "empty", "x", 2, 32, gone={0: "failed", 1: "failed"})
    copy_sets([empty, small], str(tmp_path / "out"), objects_per_shard=2, workers=1)
    assert verify(tmp_path / "out") == []
    assert ShardSet(tmp_path / "out").samples_per_shard == (0, 2, 2)


def test_sets_in_memory_are_the_same_sets(both: Path, large: str, small: str) -> None:
    memory = fsspec.filesystem("memory")
    urls = ["memory://copy-test/large", "memory://copy-test/small"]
    for url, folder in zip(urls, (large, small), strict=True):
        for name, data in contents(folder).items():
            memory.pipe_file(f"{url}/{name}", data)
    copy_sets(urls, "memory://copy-test/out", resolution=8, objects_per_shard=3, workers=1)
    expected = contents(both)
    found = {path.removeprefix("/copy-test/out/"): memory.cat_file(path) for path in memory.find("/copy-test/out")}
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == ["set.json"]  # where the sets lie
    with pytest.raises(UserError, match="`python -m dataset copy` did not write"):
        copy_sets([urls[0]], urls[1], workers=1)
    memory.rm("/copy-test", recursive=True)


def test_two_writers_are_refused(small: str, tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path / "out")
    with owned_out(fs, root, root, "copy"), pytest.raises(UserError, match="another copy is writing"):
        copy_sets([small], root, workers=1)


def test_passes_are_copied_but_not_averaged(tmp_path: Path) -> None:
    source = make_shard_set(tmp_path / "set", 2, 16, passes=("depth", "normal"))
    copy_sets([str(source)], str(tmp_path / "copy"), workers=1)
    assert verify(tmp_path / "copy") == []
    assert (tmp_path / "copy" / "shard-000000.tar").read_bytes() == (source / "shard-000000.tar").read_bytes()
    with pytest.raises(UserError, match=r"have passes, which cannot be averaged; copy the set without --resolution"):
        copy_sets([str(source)], str(tmp_path / "small"), resolution=8, workers=1)
    assert not (tmp_path / "small").exists()
