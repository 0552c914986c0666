"""Choose the device that Cycles renders on, and verify that a requested GPU is really used. Runs inside Blender.

Cycles silently falls back to the CPU when its GPU is not usable. Two checks detect this. Cycles must have enabled a GPU
of the chosen backend (such as OptiX), and a test image must render faster than one CPU core can render it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bpy

from dataset.errors import UserError
from dataset.io.scratch import scratch_folder
from render.blender.empty_file import open_empty_file
from render.settings import Device

GPU_BACKENDS: Final = ("OPTIX", "CUDA", "HIP", "METAL")  # best first
CPU: Final = "CPU"
CHECK_RESOLUTION: Final = 512
CHECK_SAMPLES: Final = 128
# In the scene below one CPU core reaches 1 to 3 million samples per second, a GPU tens of millions.
CORE_SAMPLES_PER_SECOND: Final = 8e6


def gpu_backend() -> str | None:
    """Return the first backend of GPU_BACKENDS that has a device on this machine, such as "OPTIX", or None."""
    preferences = _preferences()
    offered = {entry[0] for entry in preferences.get_device_types(bpy.context)}
    for backend in GPU_BACKENDS:
        if backend in offered and preferences.get_devices_for_type(backend):
            return backend
    return None


def choose(device: Device) -> tuple[str, str]:
    """Choose the device that Cycles renders on.

    Args:
        device: The requested device: auto, cpu or gpu.

    Returns:
        A pair: "CPU" or the name of a GPU backend, and a message for the user, or "" if there is nothing to report.

    Raises UserError when `device` is gpu and this machine has no GPU that Cycles supports.
    """
    if device == "cpu":
        return CPU, ""
    backend = gpu_backend()
    if backend is not None:
        return backend, ""
    no_gpu = "Cycles finds no GPU on this machine (OptiX, CUDA, HIP or Metal)"
    if device == "auto":
        return CPU, f"--device auto: {no_gpu}; rendering on the CPU"
    raise UserError(f"--device gpu is not possible, because {no_gpu}; use --device cpu")


def use(scene: Any, chosen: str) -> None:
    """Make Cycles render a scene on the CPU or on the first GPU that is visible to this process.

    Args:
        scene: The Blender scene.
        chosen: "CPU" or the name of a GPU backend, as `choose` returns it.

    Raises UserError when Cycles cannot use the GPU.
    """
    scene.cycles.denoising_use_gpu = chosen != CPU
    if chosen == CPU:
        scene.cycles.device = "CPU"
        return
    preferences = _preferences()
    preferences.compute_device_type = chosen
    gpus = [device for device in preferences.get_devices_for_type(chosen) if device.type == chosen]
    for device in preferences.devices:
        device.use = bool(gpus) and device.id == gpus[0].id
    scene.cycles.device = "GPU"
    if not preferences.has_active_device():
        raise UserError(f"Cycles can use none of the {chosen} devices; check the GPU driver, or use --device cpu")


def warm_up(chosen: str) -> str:
    """Compile the GPU's kernels and measure the rendering speed. Return this speed as text.

    The first compilation on a machine takes minutes; Cycles then reuses the compiled kernels.

    `chosen` is the name of the GPU backend. Raises UserError when the speed shows that Cycles does not use the GPU.
    """
    with scratch_folder() as scratch:
        _open_plane(chosen)
        _render(scratch, samples=1)
        bpy.context.scene.cycles.use_denoising = False
        return check_rate(chosen, lambda: _render(scratch, CHECK_SAMPLES), time.perf_counter)


def check_rate(chosen: str, render: Callable[[], None], clock: Callable[[], float]) -> str:
    """Measure how many samples per second Cycles renders. Return this rate as text.

    Args:
        chosen: Name of the GPU backend, for the error message.
        render: Function that renders the test image once.
        clock: Function that returns the current time in seconds.

    Raises UserError when the rate is so low that one CPU core could reach it.
    """
    started = clock()
    render()
    seconds = max(clock() - started, 1e-6)
    rate = CHECK_RESOLUTION**2 * CHECK_SAMPLES / seconds
    speed = f"{rate / 1e6:.1f} million samples per second"
    if rate < CORE_SAMPLES_PER_SECOND:
        raise UserError(
            f"Cycles does not really use the {chosen} device: the rendering reaches only {speed}, no more than one CPU "
            "core; check the GPU driver, or use --device cpu"
        )
    return speed


def _preferences() -> Any:
    return bpy.context.preferences.addons["cycles"].preferences


def _open_plane(chosen: str) -> None:
    """Open a scene with a gray plane that fills the image. Uses one thread, in case the CPU renders it."""
    open_empty_file()
    bpy.ops.mesh.primitive_plane_add(size=100)
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("gray")
    scene.render.engine = "CYCLES"
    use(scene, chosen)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location[2] = 1.5  # looks down
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = True  # compiles its kernels too
    scene.render.use_persistent_data = True
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_x = scene.render.resolution_y = CHECK_RESOLUTION
    scene.render.resolution_percentage = 100


def _render(scratch: Path, samples: int) -> None:
    scene = bpy.context.scene
    scene.cycles.samples = samples
    scene.render.filepath = str(scratch / "plane.png")
    bpy.ops.render.render(write_still=True)
