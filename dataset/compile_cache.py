"""Keep the code that torch and Triton compile, so that later runs on the same machine start quickly."""

import os
from pathlib import Path
from typing import Final

INDUCTOR: Final = "TORCHINDUCTOR_CACHE_DIR"
TRITON: Final = "TRITON_CACHE_DIR"
_FOLDERS: Final = {INDUCTOR: "inductor", TRITON: "triton"}


def keep_compiled_code() -> None:
    """Set the cache folders of torch's compiler and of Triton, unless environment variables already set them.

    By default, the compiler's cache is in the folder for temporary files. The cache folders are `inductor` and `triton`
    in `isotropic3d/compiled`, below the folder in `XDG_CACHE_HOME`, or below `~/.cache`. Nothing is set if that folder
    cannot be written. Call this function before torch is imported; `train/__init__.py` and `distill/__init__.py` do so.
    """
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isotropic3d" / "compiled"
    except RuntimeError:  # the user has no home folder
        return
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir() or folder == folder.parent)
    if root.is_absolute() and os.access(existing, os.W_OK | os.X_OK):
        for variable, name in _FOLDERS.items():
            os.environ.setdefault(variable, str(root / name))
