"""Compile Blender's kernels for an NVIDIA GPU in advance: `python -m render.gpu_kernels sm_90`.

The wheel of bpy contains compiled kernels for some GPUs, and intermediate code (PTX) for the others, among them A100
(sm_80), H100 and H200 (sm_90). Without compiled kernels, NVIDIA's driver compiles them at the first start on each
machine, for minutes, during which the GPU waits. This command does the same without a GPU, with `ptxas` of the package
triton, and writes the file into the folder of bpy, where Blender finds it. Use it for the image of a cluster's nodes.
"""

import argparse
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dataset.errors import UserError, run_cli

logger = logging.getLogger(__name__)
OLDEST: Final = 75  # the PTX in the wheel is for this and later compute capabilities
FIRST_BLACKWELL: Final = 100  # triton has a newer ptxas for these
_KERNELS: Final = "*/scripts/addons_core/cycles/lib"
_ARCHITECTURE: Final = re.compile(r"sm_(\d{2,3})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile the kernels for one architecture."""
    parser = argparse.ArgumentParser(
        prog="python -m render.gpu_kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "architecture", help="compute capability of the GPU: sm_80 (A100), sm_90 (H100, H200), sm_100 (B200), ..."
    )
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ptxas = ptxas_for(options.architecture)
    build(options.architecture, kernel_folder(), ptxas)


def kernel_folder() -> Path:
    """Return the folder of bpy that contains the kernels. Raises UserError when bpy is not installed."""
    spec = importlib.util.find_spec("bpy")
    folders = sorted(Path(spec.origin).parent.glob(_KERNELS)) if spec and spec.origin else []
    if not folders:
        raise UserError("the package bpy (Blender) is not installed, or has no kernels for GPUs; run `make setup`")
    return folders[-1]


def ptxas_for(architecture: str) -> Path:
    """Return the path of the compiler `ptxas` for an architecture such as sm_90.

    Raises UserError when the architecture is invalid or the package triton is not installed.
    """
    matched = _ARCHITECTURE.fullmatch(architecture)
    if matched is None or int(matched[1]) < OLDEST:
        raise UserError(f"{architecture!r} is not an architecture that can be compiled; give sm_{OLDEST} or later")
    spec = importlib.util.find_spec("triton")
    if spec is None or not spec.origin:
        raise UserError("the package triton, which contains the compiler, is not installed; run `make setup` on Linux")
    name = "ptxas-blackwell" if int(matched[1]) >= FIRST_BLACKWELL else "ptxas"
    return Path(spec.origin).parent / "backends/nvidia/bin" / name


def build(architecture: str, folder: Path, ptxas: Path) -> Path:
    """Compile the kernels, unless they exist, and return the path of the file.

    Args:
        architecture: Name of the architecture, such as sm_90.
        folder: Folder that contains the PTX and receives the kernels.
        ptxas: NVIDIA's compiler.

    Raises:
        UserError: The wheel has no PTX, or the compiler failed.
    """
    import zstandard  # bpy depends on it

    path, source = folder / f"kernel_{architecture}.cubin.zst", folder / f"kernel_compute_{OLDEST}.ptx.zst"
    if path.exists():
        logger.info("%s exists already", path)
        return path
    if not source.is_file():
        raise UserError(f"{source} is missing; this version of bpy cannot be compiled for other GPUs")
    logger.info("compiling %s for %s, which takes about ten minutes on one core", source.name, architecture)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        ptx, cubin = Path(name) / "kernel.ptx", Path(name) / "kernel.cubin"
        with source.open("rb") as packed, ptx.open("wb") as file:
            zstandard.ZstdDecompressor().copy_stream(packed, file)
        command = [str(ptxas), f"-arch={architecture}", "-O3", "-o", str(cubin), str(ptx)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{ptxas.name} cannot compile for {architecture}: {done.stderr.strip()[-500:]}")
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            temporary.write_bytes(zstandard.ZstdCompressor().compress(cubin.read_bytes()))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    logger.info("wrote %s after %.0f s", path, time.monotonic() - started)
    return path


if __name__ == "__main__":
    run_cli(main)
