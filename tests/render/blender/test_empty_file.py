"""An empty file: nothing of the object before it, and no preferences of the user."""

import pytest

from tests.support.make_models import box_glb

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import empty_file, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.cameras import Light  # noqa: E402
from render.blender.cycles import configure  # noqa: E402
from render.settings import Settings, environment_maps  # noqa: E402

pytestmark = pytest.mark.integration


def contents():
    """Names of all data in the open file, by type."""
    collections = [name for name in dir(bpy.data) if isinstance(getattr(bpy.data, name), bpy.types.bpy_prop_collection)]
    return {name: sorted(getattr(bpy.data, name).keys()) for name in collections if len(getattr(bpy.data, name))}


def settings():
    """Values of all plain render settings of the open scene."""
    here = bpy.context.scene
    return {
        (group, key): getattr(target, key)
        for group, target in (("render", here.render), ("view", here.view_settings), ("cycles", here.cycles))
        for key, kind in target.bl_rna.properties.items()
        if kind.type in ("BOOLEAN", "INT", "FLOAT", "ENUM") and not getattr(kind, "is_array", False)
    }


def test_nothing_remains_of_an_object(tmp_path):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    before = contents(), settings(), bpy.context.scene.frame_current
    scene.build(box_glb(tmp_path / "box.glb"), "longest")
    name, path = next(iter(environment_maps(bundled_maps()).items()))
    scene.light_scene(Light(name, 40.0), path)
    configure(Settings(32, 1), 1)
    bpy.context.scene.frame_set(7)
    bpy.app.handlers.render_init.append(lambda *_: None)
    assert contents() != before[0]
    assert settings() != before[1]
    empty_file.open_empty_file()
    assert (contents(), settings(), bpy.context.scene.frame_current) == before
    assert not bpy.app.handlers.render_init
    assert not bpy.app.handlers.render_stats


def test_the_first_file_of_a_process_resets_the_preferences():
    empty_file._reset_preferences.cache_clear()
    bpy.context.preferences.filepaths.use_scripts_auto_execute = True
    bpy.context.preferences.edit.undo_steps = 77
    empty_file.open_empty_file()
    assert bpy.context.preferences.edit.undo_steps != 77
    assert not bpy.context.preferences.filepaths.use_scripts_auto_execute
    bpy.context.preferences.edit.undo_steps = 77
    empty_file.open_empty_file()
    assert bpy.context.preferences.edit.undo_steps == 77
    bpy.ops.wm.read_factory_settings(use_empty=True)
