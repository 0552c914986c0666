"""GLB files of procedural objects: the bytes that Blender's exporter writes."""

import numpy as np
import pytest

from render.procedural import catalog
from render.procedural.glb_file import GENERATOR
from render.procedural.primitives.color import to_linear
from render.procedural.primitives.mesh import TEXELS, paint_texture, refined, triangulate
from render.procedural.primitives.style import styled

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import procedural_glb  # noqa: E402  (it imports bpy)

pytestmark = pytest.mark.integration

SEED = 5
WARNINGS_AND_ERRORS = 1


def material(paint, rest, name):
    """A Principled BSDF material whose base color is plain, or a texture with the baked pattern."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = paint.roughness
    shader.inputs["Metallic"].default_value = paint.metallic
    if not callable(paint.base):
        shader.inputs["Base Color"].default_value = (*to_linear(paint.base), 1.0)
        return made
    image = bpy.data.images.new(name, TEXELS, TEXELS, alpha=False)
    rgba = np.ones((TEXELS, TEXELS, 4), np.float32)
    rgba[..., :3] = paint_texture(rest, paint.base) / np.float32(255)
    image.pixels.foreach_set(rgba.ravel())
    image.pack()
    texture = made.node_tree.nodes.new("ShaderNodeTexImage")
    texture.image = image
    made.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    return made


def export_by_blender(index, path):
    """Write a procedural object with Blender's exporter."""
    rng = catalog.object_rng(index, SEED)
    parts = styled(rng, procedural_glb.BUILDERS[catalog.kind_of(index, SEED)](rng))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for number, item in enumerate(parts):
        name = f"{number:02d}_{item.name}"
        surface, rest = refined(item.surface, item.rest) if callable(item.paint.base) else (item.surface, item.rest)
        mesh = triangulate(surface, rest)
        data = bpy.data.meshes.new(name)
        data.from_pydata(mesh.vertices.tolist(), [], mesh.triangles.tolist())
        data.polygons.foreach_set("use_smooth", np.full(len(mesh.triangles), not item.flat))
        if not item.flat:
            data.set_sharp_from_angle(angle=procedural_glb.SHARP_ANGLE_RAD)
        layer = data.uv_layers.new(name="UVMap")
        layer.data.foreach_set("uv", mesh.corners_uv.astype(np.float32).ravel())
        data.materials.append(material(item.paint, rest, name))
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, data))
    before = bpy.app.debug_value
    bpy.app.debug_value = WARNINGS_AND_ERRORS
    try:
        bpy.ops.export_scene.gltf(filepath=str(path), export_format="GLB", export_yup=True, export_animations=False)
    finally:
        bpy.app.debug_value = before


@pytest.mark.parametrize("index", [2, 7, 11, 23, 31])
def test_a_file_has_the_bytes_of_blenders_exporter(index, tmp_path):
    export_by_blender(index, tmp_path / "theirs.glb")
    procedural_glb.export(index, SEED, tmp_path / "ours.glb")
    theirs, ours = ((tmp_path / f"{name}.glb").read_bytes() for name in ("theirs", "ours"))
    assert GENERATOR.encode() in theirs, "another version of Blender's exporter: compare the bytes again"
    assert ours == theirs


def test_exporting_leaves_no_data_behind(tmp_path):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    procedural_glb.export(2, SEED, tmp_path / "a.glb")
    assert not len(bpy.data.meshes)
    assert not len(bpy.data.images)
