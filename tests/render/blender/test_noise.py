"""An object whose images are noisy is flagged when it is rendered."""

from pathlib import Path

import pytest

from dataset.format.manifest import Asset
from render.settings import Settings
from render.workers.protocol import RenderJob
from tests.support.cases.document import Document, cube
from tests.support.make_models import box_glb

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender.__main__ import run_job

pytestmark = pytest.mark.integration


def flags(path: Path, samples: int) -> set[str]:
    settings = Settings(resolution=16, samples=samples, noise_threshold=0.0)
    job = RenderJob(Asset("a", "test"), str(path), "0" * 64, 0, settings, str(path.with_suffix(".tar")))
    reply = run_job(job, threads=1)
    assert reply.failure is None
    return set(reply.flags)


def test_a_rough_metal_of_one_sample_is_noisy_and_a_glowing_box_is_not(tmp_path: Path) -> None:
    metal = Document()
    white = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1]}}
    metal.node(mesh=metal.mesh(cube(), metal.add("materials", white)))
    metal.glb(tmp_path / "metal.glb")
    assert "noisy" in flags(tmp_path / "metal.glb", 1)
    assert "noisy" not in flags(box_glb(tmp_path / "glow.glb"), 1)
