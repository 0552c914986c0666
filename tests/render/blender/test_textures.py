"""Textures of the open scene, in this process: plain instead of missing, small instead of large, none from outside."""

import numpy as np
import pytest

from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.fault_models import png, textured
from tests.support.make_models import Gltf

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.textures import MAX_SIDE, sanitize_textures  # noqa: E402

pytestmark = pytest.mark.integration


def seen(gltf: Gltf, tmp_path, name):
    """(a picture of the object, whether it misses a texture)."""
    scene.build(gltf.write(tmp_path / name / f"{name}.glb"), "longest")
    missing = sanitize_textures(tmp_path / name)
    map_name, path = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(map_name, 40.0), path)
    cycles.configure(Settings(resolution=16, samples=1024, noise_threshold=0.0), threads=1)
    return cycles.render_view(Pose(20.0, 10.0), 1, tmp_path), missing


def without_texture(slot, **surface):
    """The same square whose material never had the texture, with these values in its place."""
    gltf = textured({"uri": "gone.png"}, slot)
    for key in ("textures", "images"):
        del gltf.document[key]
    material = gltf.document["materials"][0]
    material.pop(slot, None)
    material.pop("emissiveFactor", None)
    material["pbrMetallicRoughness"].pop(slot, None)
    material["pbrMetallicRoughness"] |= surface
    return gltf


GRAY = {"baseColorFactor": [0.8, 0.8, 0.8, 1.0]}
CASES = [("baseColorTexture", GRAY), ("normalTexture", {}), ("emissiveTexture", {}), ("metallicRoughnessTexture", {})]


@pytest.mark.parametrize(("slot", "surface"), CASES)
def test_a_missing_texture_is_as_if_there_were_none(tmp_path, slot, surface):
    gltf = textured({"uri": "gone.png"}, slot)
    if slot == "metallicRoughnessTexture":
        del gltf.document["materials"][0][slot]
        gltf.document["materials"][0]["pbrMetallicRoughness"] = {slot: {"index": 0}}  # factors of 1
    image, missing = seen(gltf, tmp_path, "missing")
    assert missing
    plain, complete = seen(without_texture(slot, **surface), tmp_path, "plain")
    assert not complete
    np.testing.assert_allclose(image.astype(int), plain.astype(int), atol=2)


def test_a_scaled_emission_is_dark_without_its_texture(tmp_path):
    """The factor puts a node between the picture and the surface."""
    gltf = textured({"uri": "gone.png"}, "emissiveTexture")
    gltf.document["materials"][0]["emissiveFactor"] = [1.0, 0.5, 0.2]
    image, missing = seen(gltf, tmp_path, "missing")
    plain, _ = seen(without_texture("emissiveTexture"), tmp_path, "plain")
    assert missing
    np.testing.assert_allclose(image.astype(int), plain.astype(int), atol=2)


def test_a_large_texture_is_scaled_and_looks_the_same(tmp_path):
    large, missing = seen(textured(png(MAX_SIDE + 904, 40)), tmp_path, "large")
    assert not missing
    texture = next(image for image in bpy.data.images if image.name == "Image_0")
    assert tuple(texture.size) == (MAX_SIDE, 40 * MAX_SIDE // (MAX_SIDE + 904))
    small, _ = seen(textured(png(8, 8)), tmp_path, "small")
    np.testing.assert_allclose(large.astype(int), small.astype(int), atol=2)


@pytest.mark.parametrize("name", ["../outside.png", "ABSOLUTE", "link.png"])
def test_an_image_outside_is_missing_whatever_the_format_that_named_it(tmp_path, name):
    """FBX names its pictures in a binary form, so Blender is asked after the import."""
    (tmp_path / "in").mkdir()
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(8, 8))
    (tmp_path / "in" / "link.png").symlink_to(outside)
    path = tmp_path / "in" / "a.glb"
    scene.build(textured(png(8, 8)).write(path), "longest")
    node = next(n for m in bpy.data.materials for n in m.node_tree.nodes if n.type == "TEX_IMAGE")
    named = node.image = bpy.data.images.load(str(outside if name == "ABSOLUTE" else tmp_path / "in" / name))
    assert sanitize_textures(path.parent)
    assert not named.has_data
    assert node.image != named
    if name != "link.png":  # the same file, when the source's folder holds it
        node.image = named
        assert not sanitize_textures(path.parent, tmp_path)
        assert named.has_data


@pytest.mark.slow
def test_a_texture_of_16k_needs_a_moment_and_no_more_memory_afterwards(tmp_path):
    scene.build(textured(png(16384, 16384)).write(tmp_path / "a.glb"), "longest")
    before = resident_mb()
    assert not sanitize_textures(tmp_path)
    assert resident_mb() - before < 300  # 1,024 MB while it is decoded


def resident_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
