"""Replace Blender's open file with an empty file. Runs inside Blender."""

from functools import cache

import bpy


def open_empty_file() -> None:
    """Replace the open file with an empty scene, and discard all data of the open file.

    The first call of a process also resets Blender's preferences and add-ons, which the user may have changed. This
    registers all add-ons again and takes 30 ms, so it is done only once.
    """
    _reset_preferences()
    # With a user's startup.blend, the settings of its scene would be used for rendering.
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True, load_ui=False)
    # Scripts in files must never run. The reset has turned them off, but only once per process, and reading the empty
    # file keeps the preferences: an add-on or an importer could have turned them on since.
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False


@cache
def _reset_preferences() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
