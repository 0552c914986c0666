"""An object with its true views, as evaluation reads it."""

import json

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS
from dataset.format.shards import write_index, write_shard
from dataset.images.prepare import composite_white
from dataset.io.files import url_to_fs
from dataset.reading.latent_set import open_views
from dataset.reading.rendered_object import read_object, view_name, view_number
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_sample, make_shard_set


def test_images_and_cameras_are_of_the_views_asked_for(tmp_path):
    shards = ShardSet(make_shard_set(tmp_path / "set", 2, 8))
    whole = read_object(shards, (0, 1))
    assert (whole.uid, whole.size, len(whole.views)) == (shards.uid(0, 1), 8, 32)
    assert np.array_equal(whole.images, shards.views(0, 1, ALL_VIEWS))
    assert np.array_equal(whole.angles_deg, shards.angles_deg(0, 1, ALL_VIEWS))
    assert np.array_equal(whole.on_white, composite_white(whole.images))
    assert (whole.c2w.shape, whole.K.shape, whole.fov_deg.shape) == ((32, 4, 4), (32, 3, 3), (32,))
    part = read_object(shards, (0, 1), [("random", 3), ("fixed", 2)])
    assert np.array_equal(part.images, whole.images[[19, 2]])
    assert part.views == (whole.views[19], whole.views[2])


def test_views_have_names():
    assert [view_name(number) for number in (0, 15, 16, 31)] == ["fixed_00", "fixed_15", "random_00", "random_15"]
    assert all(view_number(view_name(number)) == number for number in range(32))
    with pytest.raises(UserError, match="there is no view 'fixed_16'"):
        view_number("fixed_16")


@pytest.fixture
def fixed_only(tmp_path):
    """A set of one object, whose rig has the 16 fixed views only."""
    folder = make_shard_set(tmp_path / "set", 1, 8)
    fs, root = url_to_fs(folder)
    members = make_sample("synthetic-0000", 0, 8)
    about = json.loads(members["synthetic-0000.meta.json"])
    about |= {"schema_version": 2, "passes": [], "rig": "ring v1", "projection": "perspective"}
    about["views"]["random"] = []
    kept = {name: data for name, data in members.items() if ".random_" not in name}
    kept["synthetic-0000.meta.json"] = json.dumps(about).encode()
    write_shard(fs, root, "shard-000000", [("synthetic-0000", kept)])
    write_index(fs, root, num_shards=1, objects_per_shard=4)
    return folder


def test_all_views_of_another_rig_are_read(fixed_only):
    shards = ShardSet(fixed_only)
    assert shards.index.views == 16
    item = read_object(shards, (0, 0), None)
    assert item.keys == tuple(("fixed", index) for index in range(16))
    assert item.images.shape == (16, 8, 8, 4)


def test_missing_views_are_named_with_the_rig(fixed_only):
    message = r"lacks 16 of 32 needed views, among others random_00; its rig ring v1 has 16 fixed and 0 random views"
    with pytest.raises(UserError, match=message):
        read_object(ShardSet(fixed_only), (0, 0))
    with pytest.raises(UserError, match=message):
        open_views(fixed_only)
