"""Keep the code that torch, Triton and Blender compile, so that later runs on the same machine start quickly."""

import os
from pathlib import Path
from typing import Final

INDUCTOR: Final = "TORCHINDUCTOR_CACHE_DIR"
TRITON: Final = "TRITON_CACHE_DIR"
CUDA: Final = "CUDA_CACHE_PATH"
CUDA_SIZE: Final = "CUDA_CACHE_MAXSIZE"
OPTIX: Final = "OPTIX_CACHE_PATH"
_FOLDERS: Final = {INDUCTOR: "inductor", TRITON: "triton"}
_CUDA_BYTES: Final = 4 * 2**30  # the driver's default can be smaller than the kernels of Cycles


def keep_compiled_code() -> None:
    """Set the cache folders of torch's compiler and of Triton, unless environment variables already set them.

    By default, the compiler's cache is in the folder for temporary files. The cache folders are `inductor` and `triton`
    in `isotropic3d/compiled`, below the folder in `XDG_CACHE_HOME`, or below `~/.cache`. Nothing is set if that folder
    cannot be written. Call this function before torch is imported; `train/__init__.py` and `distill/__init__.py` do so.
    """
    root = compiled_folder()
    if root is not None:
        for variable, name in _FOLDERS.items():
            os.environ.setdefault(variable, str(root / name))


def gpu_kernel_folders() -> dict[str, str]:
    """Return environment variables with which NVIDIA's driver keeps the GPU kernels of Blender, unless they are set.

    The folders are `cuda` and `optix`, beside those of `keep_compiled_code`. By default, the driver keeps kernels of
    OptiX in a folder for temporary files, and the size of the folder for kernels of CUDA is limited.
    """
    root = compiled_folder()
    if root is None:
        return {}
    values = {CUDA: str(root / "cuda"), CUDA_SIZE: str(_CUDA_BYTES), OPTIX: str(root / "optix")}
    return {name: os.environ.get(name, value) for name, value in values.items()}


def compiled_folder() -> Path | None:
    """Return the user's folder for compiled code. None if the user has none, or it cannot be written."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isotropic3d" / "compiled"
    except RuntimeError:  # the user has no home folder
        return None
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir() or folder == folder.parent)
    return root if root.is_absolute() and os.access(existing, os.W_OK | os.X_OK) else None
