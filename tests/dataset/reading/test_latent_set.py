"""Reading latents by offset; damage; smaller sets."""

import gc
import io
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.format.latents import dump_table, dump_view, format_json, latent_name, parse_format, read_format
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, ViewSet
from dataset.format.shards import ShardStats, read_stats
from dataset.io.files import json_bytes, url_to_fs
from dataset.reading.latent_set import LatentSet, open_views
from dataset.reading.shard_set import DamagedMember, ShardSet

WANTED: list[tuple[ViewSet, int]] = [("random", 3), ("fixed", 0), ("random", 3), ("fixed", 15)]


pytestmark = pytest.mark.usefixtures("one_thread")


def _copy(folder: Path, to: Path) -> Path:
    return Path(copytree(folder, to))


def _member(folder: Path, shard: str, sample: int, suffix: str) -> np.ndarray:
    """A member as numpy reads it from the tar."""
    place = read_stats(*url_to_fs(folder), shard).samples[sample].members[suffix]
    data = (folder / f"{shard}.tar").read_bytes()[place.offset : place.offset + place.size]
    numbers: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return numbers


def test_views_are_the_members_asked_for_in_that_order(latent_folder: Path) -> None:
    read = LatentSet(latent_folder).views(1, 1, WANTED, embedding=True)
    assert read.logvar is not None
    assert read.embedding is not None
    assert (read.mean.shape, read.logvar.shape, read.embedding.shape) == ((4, 4, 8, 8), (4, 4, 8, 8), (4, 32))
    assert read.mean.dtype == read.logvar.dtype == read.embedding.dtype == np.float16
    for i, (view_set, index) in enumerate(WANTED):
        numbers = _member(latent_folder, "shard-000001", 1, f"{view_set}_{index:02d}.npy")
        flat = np.concatenate([read.mean[i].ravel(), read.logvar[i].ravel(), read.embedding[i]])
        np.testing.assert_array_equal(flat, numbers)
    assert LatentSet(latent_folder).views(1, 1, WANTED).embedding is None


def test_means_alone_and_the_references_embeddings_alone(latent_folder: Path, lean: Path) -> None:
    whole, less = LatentSet(latent_folder), LatentSet(lean)
    read = less.views(0, 1, WANTED)
    assert read.logvar is None
    np.testing.assert_array_equal(read.mean, whole.views(0, 1, WANTED).mean)
    expected = whole.views(0, 1, WANTED[:1], embedding=True).embedding
    assert expected is not None
    np.testing.assert_array_equal(less.views(0, 1, WANTED[:1], embedding=True).embedding, expected)
    with pytest.raises(UserError, match=r"has no embeddings of fixed views; .*--embedded all"):
        less.views(0, 1, WANTED, embedding=True)


def test_objects_metadata_and_cameras_are_the_images(image_shards: ShardSet, latent_folder: Path) -> None:
    latents = LatentSet(latent_folder)
    assert (len(latents), latents.samples_per_shard) == (len(image_shards), image_shards.samples_per_shard)
    for shard, sample in image_shards.objects(0):
        assert latents.uid(shard, sample) == image_shards.uid(shard, sample)
        meta = image_shards.meta(shard, sample)
        assert latents.meta(shard, sample) == meta
        views = [meta.views[view_set][index] for view_set, index in WANTED]
        angles = latents.angles_deg(shard, sample, WANTED)
        assert angles.tolist() == [[view.elevation_deg, view.azimuth_deg] for view in views]


def _checksum(latents: LatentSet) -> bytes:
    return b"".join(latents.views(shard, 0, WANTED).mean.tobytes() for shard in range(3))


def _send_checksum(latents: LatentSet, pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send_bytes(_checksum(latents))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_set_can_be_pickled_forked_and_read_by_threads(latent_folder: Path) -> None:
    latents = LatentSet(latent_folder)
    expected = _checksum(latents)  # opens the files
    again: LatentSet = pickle.loads(pickle.dumps(latents))  # noqa: S301  (our own bytes)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_checksum, [again] * 32)) == [expected] * 32
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_send_checksum, args=(latents, there))
    child.start()
    assert here.recv_bytes() == expected
    child.join()
    assert _checksum(latents) == expected


def test_a_url_in_memory_reads_like_a_folder(latent_folder: Path) -> None:
    fs, root = url_to_fs("memory://latents/set")
    for path in filter(Path.is_file, latent_folder.iterdir()):
        fs.pipe_file(f"{root}/{path.name}", path.read_bytes())
    remote = LatentSet("memory://latents/set")
    assert _checksum(remote) == _checksum(LatentSet(latent_folder))
    assert remote.meta(0, 0) == LatentSet(latent_folder).meta(0, 0)


def test_open_files_stay_few_and_are_closed(latent_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset.reading.latent_set._OPEN_FILES", 2)
    gc.collect()  # sets of other tests: their caches refer back to them
    before = len(list(Path("/proc/self/fd").iterdir()))
    latents = LatentSet(latent_folder)
    expected = _checksum(latents)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    assert _checksum(latents) == expected
    del latents
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_damaged_member_is_named_with_its_remedy(latent_folder: Path, tmp_path: Path) -> None:
    damaged = _copy(latent_folder, tmp_path / "set")
    tar = damaged / "shard-000000.tar"
    place = read_stats(*url_to_fs(damaged), "shard-000000").samples[1].members["fixed_02.npy"]
    data = bytearray(tar.read_bytes())
    data[place.offset + 300] ^= 1
    tar.write_bytes(bytes(data))
    latents = LatentSet(damaged)
    assert latents.views(0, 1, [("fixed", 1)]).mean.shape == (1, 4, 8, 8)
    with pytest.raises(
        DamagedMember, match=r"member synthetic-0001\.fixed_02\.npy is truncated or corrupt; delete .*set/sh"
    ):
        latents.views(0, 1, [("fixed", 2)])
    tar.write_bytes(bytes(data[:3000]))
    with pytest.raises(UserError, match=r"random_15\.npy is truncated.*train\.encode"):
        LatentSet(damaged).views(0, 1, [("random", 15)])
    tar.unlink()
    with pytest.raises(UserError, match="tar cannot be read") as caught:
        LatentSet(damaged).views(0, 1, [("random", 15)])
    assert not isinstance(caught.value, DamagedMember)  # storage that fails may read tomorrow


def test_files_that_disagree_are_named(latent_folder: Path, lean: Path, tmp_path: Path) -> None:
    damaged = _copy(latent_folder, tmp_path / "set")
    table = damaged / "shard-000000.table.npz"
    data = bytearray(table.read_bytes())
    data[300] ^= 1
    table.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"shard-000000\.table\.npz cannot be read"):
        LatentSet(damaged).views(0, 0, WANTED)
    table.write_bytes((latent_folder / "shard-000002.table.npz").read_bytes())
    with pytest.raises(
        UserError, match=r"table\.npz was written for another tar: .* differs from the one in index\.json"
    ):
        LatentSet(damaged).views(0, 0, WANTED)
    (damaged / "latents.json").write_bytes((lean / "latents.json").read_bytes())
    with pytest.raises(UserError, match=r"lists views of another size in bytes than latents\.json"):
        LatentSet(damaged).views(1, 0, WANTED)
    stats = read_stats(*url_to_fs(latent_folder), "shard-000000")
    (damaged / "latents.json").write_bytes((latent_folder / "latents.json").read_bytes())
    table.write_bytes(dump_table(stats, [LatentSet(latent_folder).meta(0, 0)]))
    with pytest.raises(UserError, match=r"the arrays in the index table .* do not have 2 rows, .*; delete"):
        LatentSet(damaged).views(0, 0, WANTED)


def test_missing_unfinished_and_foreign_sets_read_differently(
    image_shards: ShardSet, latent_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"is not a latent set; write a latent set with `python -m train\.encode"):
        LatentSet(tmp_path)
    with pytest.raises(UserError, match="a set of images, not of latents"):
        LatentSet(image_shards.url)
    unfinished = _copy(latent_folder, tmp_path / "set")
    (unfinished / "index.json").unlink()
    with pytest.raises(UserError, match=r"is incomplete; to complete it, repeat the `python -m train\.encode"):
        LatentSet(unfinished)
    (unfinished / "index.json").write_text("[]")
    with pytest.raises(UserError, match=r"not a valid index of a shard set .*train\.encode"):
        LatentSet(unfinished)
    good = format_json(read_format(str(latent_folder)))
    for change in ({"schema_version": 9}, {"channels": 0}, {"embedded": "none"}, {"extra": 1}):
        (unfinished / "latents.json").write_bytes(json_bytes({**good, **change}))
        with pytest.raises(UserError, match=r"latents\.json is invalid"):
            read_format(str(unfinished))


def test_format_and_members_survive_the_round_trip(latent_folder: Path) -> None:
    form = read_format(str(latent_folder))
    assert parse_format(format_json(form)) == form
    numbers = np.arange(form.numbers("fixed")).astype(np.float16)
    again = np.load(io.BytesIO(dump_view(form, "fixed", numbers)), allow_pickle=False)
    np.testing.assert_array_equal(again, numbers)
    with pytest.raises(ValueError, match="float16"):
        dump_view(form, "fixed", numbers[1:])
    assert latent_name("a", "random", 3) == "a.random_03.npy"
    empty = dump_table(ShardStats("shard-000000", 0, "0" * 64, ()), [])
    assert np.load(io.BytesIO(empty), allow_pickle=False)["places"].shape == (0, 33, 3)


def test_every_member_has_its_place_in_the_table(latent_folder: Path) -> None:
    """The table's columns match the statistics; a shifted column would still pass all checksums."""
    latents = LatentSet(latent_folder)
    for view_set in VIEW_SETS:
        read = latents.views(0, 0, [(view_set, i) for i in range(VIEWS_PER_SET)])
        for i in range(VIEWS_PER_SET):
            numbers = _member(latent_folder, "shard-000000", 0, f"{view_set}_{i:02d}.npy")
            np.testing.assert_array_equal(read.mean[i].ravel(), numbers[:256])
    with pytest.raises(UserError, match="no view number 16 in the view set 'fixed'"):
        latents.views(0, 0, [("fixed", 16)])


def test_a_smaller_set_gives_the_objects_kept(latent_folder: Path) -> None:
    whole = LatentSet(latent_folder)
    kept = (np.array([1], np.int32), np.zeros(0, np.int32), np.array([0], np.int32))
    small = whole.narrowed(kept)
    assert (len(small), small.samples_per_shard, small.uids()) == (2, (1, 0, 1), ["synthetic-0001", "synthetic-0004"])
    assert len(whole.uids()) == 5
    np.testing.assert_array_equal(small.views(0, 0, WANTED).mean, whole.views(0, 1, WANTED).mean)
    np.testing.assert_array_equal(small.angles_deg(0, 0, WANTED), whole.angles_deg(0, 1, WANTED))
    assert small.meta(0, 0) == whole.meta(0, 1)
    again: LatentSet = pickle.loads(pickle.dumps(small))  # noqa: S301  (our own bytes)
    assert again.uids() == small.uids()
    assert small.narrowed(None).uids() == whole.uids()
    others = [whole, small, whole.narrowed((kept[0], kept[1], kept[1]))]
    assert len({latents.fingerprint for latents in others}) == 3
    assert again.fingerprint == small.fingerprint
    with pytest.raises(UserError, match="has 3 shards but the selection has 1"):
        LatentSet(latent_folder, kept=(np.zeros(1, np.int32),))


def test_latents_json_tells_the_kind_of_a_set(image_shards: ShardSet, latent_folder: Path, tmp_path: Path) -> None:
    assert isinstance(open_views(latent_folder), LatentSet)
    assert isinstance(open_views(image_shards.url), ShardSet)
    with pytest.raises(UserError, match=r"no shard set at .*make render"):
        open_views(tmp_path)
