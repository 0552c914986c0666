"""An object with its true views, as evaluation reads it."""

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS
from dataset.images.prepare import composite_white
from dataset.reading.rendered_object import read_object, view_name, view_number
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set


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
