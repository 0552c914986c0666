"""Compressed glTF files in Blender, in this process: they look like the files before compression."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.fault_models import textured
from tests.support.paths import ROOT

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene
from render.blender.__main__ import bundled_maps
from render.blender.textures import sanitize_textures

pytestmark = pytest.mark.integration

FOLDER = ROOT / "tests" / "golden" / "compressed"


def seen(path):
    """An image of the file, all of whose textures are there."""
    scene.build(path, "longest")
    assert not sanitize_textures(path.parent)
    name, environment = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), environment)
    cycles.configure(Settings(resolution=32, samples=64, noise_threshold=0.0), threads=1)
    return cycles.render_view(Pose(30.0, 15.0), 1, path.parent).astype(int)


def test_meshopt_files_look_as_before(tmp_path):
    def render(name):
        return seen(Path(shutil.copy(FOLDER / f"{name}.glb", tmp_path)))

    plain = render("plain")
    assert (plain[..., 3] > 0).mean() > 0.2
    for name in ("ext", "khr", "fallback"):
        difference = np.abs(render(name) - plain)
        assert difference.mean() < 0.5, name


@pytest.mark.parametrize("codec", ["etc1s", "uastc"])
def test_ktx2_textures_look_as_before(tmp_path, codec):
    pytest.importorskip("opengl_basisu", reason="the optional dependency `ktx2` is not installed")
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    pixels = np.stack([x * 255 // 63, y * 255 // 47, np.where(x < 32, 200, 40)], -1).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    plain = seen(textured(png.getvalue()).write(tmp_path / "plain" / "a.glb"))
    gltf = textured((FOLDER / f"{codec}.ktx2").read_bytes())
    gltf.document["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    gltf.document["extensionsUsed"] = gltf.document["extensionsRequired"] = ["KHR_texture_basisu"]
    assert np.abs(seen(gltf.write(tmp_path / "ktx2" / "a.glb")) - plain).mean() < 2
    assert np.abs(plain[..., :3] - plain[::-1, ::-1, :3]).mean() > 20  # so that a wrong side up would be seen
