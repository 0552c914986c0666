"""Replace Blender's open file with an empty file. Runs inside Blender."""

from functools import cache

import bpy


def open_empty_file() -> None:
    """Replace the open file with an empty scene, and discard all data of the open file.

    The first call of a process also resets Blender's preferences and add-ons, which the user may have changed. This
    registers all add-ons again and takes 30 ms, so it is done only once.
    """
    _reset_preferences()
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True, load_ui=False)


@cache
def _reset_preferences() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
