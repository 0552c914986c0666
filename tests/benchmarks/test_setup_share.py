"""The benchmark of time outside sampling: a checkout compared with itself."""

import json

import pytest

from benchmarks.render.setup_share import PARTS, Bench, main
from tests.support.make_models import box_glb

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")

pytestmark = pytest.mark.integration


def test_a_checkout_renders_the_same_shards_as_itself(tmp_path, capsys):
    (tmp_path / "boxes").mkdir()
    box_glb(tmp_path / "boxes" / "box.glb")
    main(Bench(objects=1, models=tmp_path, resolution=16, samples=1))
    *lines, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert (figures.pop("identical_shards"), figures.pop("objects")) == (2, 2)
    assert tuple(figures) == PARTS
    assert all(0.3 < ratio < 3 for ratio in figures.values())
    assert len(lines) == 2 * len(PARTS)
