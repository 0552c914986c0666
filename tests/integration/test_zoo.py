"""Every file of the zoo, in this process: each has one outcome and does not affect the next object."""

import logging

import numpy as np
import pytest

from dataset.format.outcomes import Flag
from dataset.quality_flags import in_order
from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.fault_zoo import zoo
from tests.support.make_models import box_glb

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.textures import sanitize_textures  # noqa: E402

LIKE_A_BOX = {"two_scenes", "two_scenes_none_chosen", "scale_1e6", "scale_1e-6", "lights_and_cameras", "rigged"}


def rendered(path, scratch):
    """(one small picture, flags) of a file. Raises ObjectError."""
    flags: list[Flag] = list(scene.prepare(path))
    scene.normalize("longest")
    if sanitize_textures(path.parent):
        flags.append("missing-texture")
    name, environment = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), environment)
    cycles.configure(Settings(resolution=8, samples=1), threads=1)
    image = cycles.render_view(Pose(20.0, 30.0), 1, scratch)
    if not image[..., 3].any():
        raise scene.ObjectError("render", "Empty", "nothing is visible")
    return image, in_order(flags)


def outcome(path, scratch):
    """(image or None, error class, flags); a failure without a known class is "unexplained"."""
    try:
        image, flags = rendered(path, scratch)
    except scene.ObjectError as error:
        return None, error.failure.error_class if str(error) else "unexplained", ()
    return image, "", flags


def test_every_specimen_has_its_outcome_and_leaves_no_trace(tmp_path):
    good = box_glb(tmp_path / "good.glb", size=(1, 0.6, 0.8))
    alone, _ = rendered(good, tmp_path)
    box, _ = rendered(box_glb(tmp_path / "box.glb"), tmp_path)
    wrong = []
    for specimen in zoo(tmp_path / "models"):
        image, error, flags = outcome(specimen.path, tmp_path)
        if (error, flags) != (specimen.error, specimen.flags):
            wrong.append((specimen.name, error, flags))
        if specimen.name in LIKE_A_BOX and (image is None or not np.allclose(image, box, atol=2)):
            wrong.append((specimen.name, "is not like a box"))
        after, _ = rendered(good, tmp_path)
        if not np.array_equal(after, alone):
            wrong.append((specimen.name, "changes the next object"))
    assert not wrong
    assert not logging.getLogger("glTFImporter").handlers
    assert not bpy.context.preferences.filepaths.use_scripts_auto_execute


def test_a_thousand_places_of_one_mesh_are_measured_one_by_one(tmp_path):
    """Bounds are computed per instance, without an array of all points."""
    path = box_glb(tmp_path / "a.glb")
    scene.build(path, "longest")
    mesh = bpy.data.meshes[0]
    for x in range(50):
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(f"copy {x}", mesh))
    bpy.context.view_layer.update()
    sizes = [len(cloud) for cloud in scene._clouds()]
    assert len(sizes) == 51
    assert max(sizes) == len(mesh.vertices)
    assert len(scene.visible_points()) == sum(sizes)
