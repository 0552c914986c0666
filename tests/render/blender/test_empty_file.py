"""An empty file: nothing of the object before it, and no preferences or startup file of the user."""

import os
import subprocess
import sys

import pytest

from tests.support.make_models import box_glb
from tests.support.paths import ROOT

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import empty_file, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.cycles import configure  # noqa: E402
from render.rigs.cameras import Light  # noqa: E402
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
    lights.light_scene(Light(name, 40.0), path)
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
    bpy.context.preferences.edit.undo_steps = 77
    empty_file.open_empty_file()
    assert bpy.context.preferences.edit.undo_steps != 77
    bpy.context.preferences.edit.undo_steps = 77
    empty_file.open_empty_file()
    assert bpy.context.preferences.edit.undo_steps == 77
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_scripts_in_files_are_turned_off_for_every_file():
    for _ in range(2):
        bpy.context.preferences.filepaths.use_scripts_auto_execute = True
        empty_file.open_empty_file()
        assert not bpy.context.preferences.filepaths.use_scripts_auto_execute


SAVE_STARTUP_FILE = """
import bpy
bpy.ops.mesh.primitive_cube_add()
bpy.context.scene.render.resolution_percentage = 37
bpy.ops.wm.save_homefile()
"""
OPEN_EMPTY_FILE = """
import bpy
from render.blender.empty_file import open_empty_file
bpy.ops.wm.read_homefile(load_ui=False)
for _ in range(2):
    print([obj.name for obj in bpy.data.objects], bpy.context.scene.render.resolution_percentage)
    open_empty_file()
print(len(bpy.data.objects), len(bpy.data.meshes), bpy.context.scene.render.resolution_percentage)
"""


def test_the_startup_file_of_the_user_is_not_used(tmp_path):
    environment = {**os.environ, "BLENDER_USER_CONFIG": str(tmp_path)}

    def output(code):
        command = [sys.executable, "-c", code]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=120
        )
        return ran.stdout.splitlines()

    output(SAVE_STARTUP_FILE)
    assert (tmp_path / "startup.blend").is_file()
    lines = output(OPEN_EMPTY_FILE)
    assert "'Cube'" in lines[0]
    assert lines[0].endswith(" 37"), "Blender does not read the startup file: this test shows nothing"
    assert lines[1:3] == ["[] 100", "0 0 100"]
