import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dataset.camera import project
from dataset.errors import UserError
from dataset.format.schema import ViewSet, member_names
from dataset.format.shards import read_stats
from dataset.io.files import url_to_fs
from dataset.reading.shard_set import DamagedMember, ShardSet
from tests.support.make_shards import make_shard_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("stream"), 5, resolution=32, objects_per_shard=2, seed=3)


# webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_reading_by_offset_gives_what_webdataset_gives(folder: Path) -> None:
    shards = ShardSet(folder)
    assert (len(shards), shards.samples_per_shard) == (5, (2, 2, 1))
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    truth = {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False)}
    assert shards.uids() == list(truth)
    for shard, sample in shards.objects(seed=0):
        uid = shards.uid(shard, sample)
        members = shards.read(shard, sample, member_names(uid))
        assert members == {name: truth[uid][name.removeprefix(f"{uid}.")] for name in member_names(uid)}
        assert shards.meta(shard, sample).uid == uid


def test_views_are_the_images_asked_for_in_that_order(folder: Path) -> None:
    shards = ShardSet(folder)
    wanted: list[tuple[ViewSet, int]] = [("random", 3), ("fixed", 0), ("random", 3)]
    views = shards.views(1, 0, wanted)
    assert views.shape == (3, 32, 32, 4)
    assert views.dtype == np.uint8
    for view, (view_set, index) in zip(views, wanted, strict=True):
        name = f"synthetic-0002.{view_set}_{index:02d}.webp"
        with Image.open(io.BytesIO(shards.read(1, 0, [name])[name])) as image:
            assert (np.asarray(image.convert("RGBA")) == view).all()


def test_images_and_cameras_belong_together(folder: Path) -> None:
    """Every pixel of a synthetic object lies inside the projected box +-0.5; left and right are symmetric."""
    shards = ShardSet(folder)
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), -1).reshape(-1, 3)
    for view_set in ("fixed", "random"):
        views = shards.meta(0, 0).views[view_set]
        pictures = shards.views(0, 0, [(view_set, i) for i in range(16)])
        for view, picture in zip(views, pictures, strict=True):
            pixels, depth = project(corners, view.c2w, view.K)
            assert depth.min() > 0
            y, x = np.nonzero(picture[..., 3])
            covered = np.stack([x, y], -1) + 0.5
            assert (covered.min(0) >= pixels.min(0)).all()
            assert (covered.max(0) <= pixels.max(0)).all()
            assert view.alpha_coverage == pytest.approx(picture[..., 3].mean() / 255)
            assert abs((x.min() + x.max() + 1) / 2 - 16) < 2


def test_order_follows_seed_epoch_rank(folder: Path) -> None:
    shards = ShardSet(folder)
    assert sorted(shards.objects(0)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    halves = [list(shards.objects(0, epoch=1, rank=rank, world=2)) for rank in range(2)]
    assert [len(half) for half in halves] == [2, 2]
    assert not set(halves[0]) & set(halves[1])


def test_a_set_can_be_pickled_and_read_by_threads(folder: Path) -> None:
    shards = ShardSet(folder)
    expected = [shards.views(*place, [("fixed", 5)]).tobytes() for place in shards.objects(1)]
    again: ShardSet = pickle.loads(pickle.dumps(shards))  # noqa: S301  (our own bytes)
    assert again.samples_per_shard == shards.samples_per_shard
    with ThreadPoolExecutor(8) as pool:
        places = list(shards.objects(1)) * 8
        read = list(pool.map(lambda place: again.views(place[0], place[1], [("fixed", 5)]).tobytes(), places))
    assert read == expected * 8


def test_a_url_in_memory_reads_like_a_folder(folder: Path) -> None:
    make_shard_set("memory://stream/set", 5, resolution=32, objects_per_shard=2, seed=3)
    local, remote = ShardSet(folder), ShardSet("memory://stream/set")
    assert remote.uids() == local.uids()
    for place in local.objects(0):
        names = member_names(local.uid(*place))[::7]
        assert remote.read(*place, names) == local.read(*place, names)


def test_a_corrupt_member_is_named_with_its_shard_and_the_remedy(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    place = read_stats(*url_to_fs(folder), "shard-000000").samples[1].members["fixed_02.webp"]
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[place.offset + 30] ^= 4
    (folder / "shard-000000.tar").write_bytes(bytes(data))
    shards = ShardSet(folder)
    assert shards.views(0, 1, [("fixed", 1)]).shape == (1, 8, 8, 4)
    with pytest.raises(UserError, match=r"shard-000000: member synthetic-0001\.fixed_02\.webp .*dataset verify"):
        shards.views(0, 1, [("fixed", 2)])


def test_truncated_missing_and_swapped_shards_are_explained(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    tar = folder / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(UserError, match="truncated"):
        ShardSet(folder).views(0, 1, [("random", 15)])
    tar.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ShardSet(folder).meta(0, 0)
    make_shard_set(tmp_path / "other", 2, resolution=16)
    (tmp_path / "other" / "shard-000000.json").rename(folder / "shard-000000.json")
    with pytest.raises(UserError, match="disagree"):
        ShardSet(folder).meta(0, 0)


def test_members_that_do_not_exist_are_explained(folder: Path) -> None:
    with pytest.raises(UserError, match="has no member"):
        ShardSet(folder).read(0, 0, ["synthetic-0000.depth_00.webp"])


def test_angles_are_those_of_the_metadata(folder: Path) -> None:
    shards = ShardSet(folder)
    wanted: list[tuple[ViewSet, int]] = [("random", 3), ("fixed", 15), ("random", 0)]
    views = [shards.meta(1, 1).views[view_set][index] for view_set, index in wanted]
    found = [tuple(row) for row in shards.angles_deg(1, 1, wanted).tolist()]
    assert found == [(view.elevation_deg, view.azimuth_deg) for view in views]


def test_damage_is_told_from_storage_that_fails(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    tar = folder / "shard-000000.tar"
    place = read_stats(*url_to_fs(folder), "shard-000000").samples[0].members["meta.json"]
    whole = tar.read_bytes()
    tar.write_bytes(whole[: place.offset] + b"!" + whole[place.offset + 1 :])
    with pytest.raises(DamagedMember, match=r"meta\.json"):
        ShardSet(folder).angles_deg(0, 0, [("fixed", 0)])
    tar.unlink()
    with pytest.raises(UserError, match="cannot be read") as caught:
        ShardSet(folder).angles_deg(0, 0, [("fixed", 0)])
    assert not isinstance(caught.value, DamagedMember)


def test_a_selection_survives_a_copy_to_another_process(folder: Path) -> None:
    kept = (np.array([1], np.int32), np.array([0, 1], np.int32), np.zeros(0, np.int32))
    shards = ShardSet(folder, kept=kept)
    again: ShardSet = pickle.loads(pickle.dumps(shards))  # noqa: S301  (our own bytes)
    assert again.uids() == shards.uids() == ["synthetic-0001", "synthetic-0002", "synthetic-0003"]
    assert len(again) == 3


def test_fingerprints_tell_selections_and_sets_apart(folder: Path, tmp_path: Path) -> None:
    numbers = ([[0, 1], [0, 1], [0]], [[0], [0, 1], [0]], [[1], [0, 1], [0]], [[], [0, 1], [0]])
    sets = [ShardSet(folder, kept=tuple(np.array(samples, np.int32) for samples in kept)) for kept in numbers]
    other = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2, seed=3)
    found = [shards.fingerprint for shards in (*sets, ShardSet(folder), ShardSet(other))]
    assert len(set(found)) == 6
    assert ShardSet(folder).fingerprint == found[4]
