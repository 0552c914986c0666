from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from dataset.images.prepare import composite_white
from dataset.reading.shard_set import ShardSet
from dataset.report.contact_sheet import _spread, preview
from tests.support.make_shards import make_shard_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("preview"), 5, resolution=32, objects_per_shard=2)


def test_the_preview_shows_the_right_views_on_white(folder: Path, tmp_path: Path) -> None:
    assert preview(folder, tmp_path / "sheet.png", objects=2, views_per_set=4) == 2
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (32 + 14 + 2) + 2, 8 * (32 + 2) + 2, 3)
    shards = ShardSet(folder)
    for row, place in enumerate([(0, 0), (1, 0)]):  # objects 0 and 2 of 5
        views = shards.views(*place, [("fixed", 4), ("random", 12)])
        for column, view in zip((1, 7), views, strict=True):
            top, left = 2 + row * 48 + 14, 2 + column * 34
            expected = np.rint(composite_white(view) * 255)
            assert (sheet[top : top + 32, left : left + 32] == expected).all()


def test_the_preview_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        preview(folder, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 5, 6, 99])
def test_chosen_objects_are_distinct_even_and_skip_empty_shards(count: int) -> None:
    sizes = (2, 0, 3, 1)
    everything = [(shard, i) for shard, size in enumerate(sizes) for i in range(size)]
    chosen = _spread(sizes, count)
    places = [everything.index(place) for place in chosen]
    assert places[0] == 0
    assert len(set(places)) == min(count, 6)
    gaps = np.diff([*places, 6])
    assert gaps.max() - gaps.min() <= 1


def test_an_empty_set_and_an_unwritable_output_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no rendered objects"):
        preview(make_shard_set(tmp_path, 0), tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        preview(folder, tmp_path / "file" / "x.png")
    with pytest.raises(UserError, match="1 to 100"):
        preview(folder, tmp_path / "x.png", views_per_set=101)


def test_the_passes_of_the_first_view_are_shown(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path / "set", 3, resolution=32, passes=("depth", "mask"))
    assert preview(folder, tmp_path / "sheet.png", objects=2, passes=True) == 2
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (32 + 14 + 2) + 2, 3 * (32 + 2) + 2, 3)
    shards = ShardSet(folder)
    for row, place in enumerate([(0, 0), (0, 1)]):
        mask = shards.passes(*place, "mask", [("fixed", 0)])[0]
        top = 2 + row * 48 + 14
        assert (sheet[top : top + 32, 70 : 70 + 32] == np.where(mask, 255, 0)[..., None]).all()
        depth = sheet[top : top + 32, 36 : 36 + 32]
        assert (depth[~mask] == 255).all()
        assert (depth[mask] <= 230).all()


def test_a_set_without_passes_says_how_to_get_them(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no passes; render it again with --passes all"):
        preview(folder, tmp_path / "x.png", passes=True)
