"""Inside Blender: Cycles' settings, the camera, and one picture as an array.

The values follow SyncDreamer's script, which the paper (4.1) names, except where a comment says otherwise.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray
from PIL import Image

from dataset.camera import LENS_MM, SENSOR_MM
from dataset.errors import UserError
from dataset.schema import RendererValue
from render.settings import Settings
from render.views import Pose

Rgba = NDArray[np.uint8]  # [h, w, 4], straight alpha
GPU_BACKENDS: Final = ("OPTIX", "CUDA", "HIP", "METAL")  # best first
# Properties of scene.cycles. SyncDreamer takes 128 samples and a full-quality denoiser; the default here is 16.
CYCLES: Final[dict[str, RendererValue]] = {
    "use_adaptive_sampling": False,
    "use_denoising": True,
    "denoiser": "OPENIMAGEDENOISE",
    "denoising_quality": "BALANCED",
    "denoising_input_passes": "RGB_ALBEDO_NORMAL",
    "denoising_prefilter": "ACCURATE",
    "diffuse_bounces": 1,
    "glossy_bounces": 1,
    "transparent_max_bounces": 3,
    "transmission_bounces": 3,
    "filter_width": 0.01,
}
# Properties of scene.render, scene.display_settings and scene.view_settings: defaults of Blender 4 would be AgX.
FILM: Final[dict[str, RendererValue]] = {
    "film_transparent": True,
    "use_persistent_data": True,
    "use_compositing": False,
    "use_sequencer": False,
    "dither_intensity": 0.0,
    "resolution_percentage": 100,
}
COLOUR: Final[dict[str, RendererValue]] = {"view_transform": "Standard", "look": "None", "exposure": 0.0, "gamma": 1.0}
DISPLAY: Final = "sRGB"


def gpu_backend() -> str:
    """The best backend with a device here. Raises UserError when none has one: Cycles would use the CPU silently."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    offered = {entry[0] for entry in preferences.get_device_types(bpy.context)}
    for backend in GPU_BACKENDS:
        if backend in offered and preferences.get_devices_for_type(backend):
            return backend
    raise UserError("--device gpu: Cycles finds no GPU here (OptiX, CUDA, HIP or Metal); use --device cpu")


def configure(settings: Settings, threads: int) -> dict[str, RendererValue]:
    """Set up Cycles and a camera in the open scene; what was set, for the metadata. `threads` changes no pixel."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    device = _use_device(scene, settings)
    values = {**CYCLES, "samples": settings.samples}
    for target, properties in (
        (scene.cycles, values),
        (scene.render, FILM),
        (scene.view_settings, COLOUR),
        (
            scene.render.image_settings,
            {"file_format": "PNG", "color_mode": "RGBA", "color_depth": "8", "compression": 0},
        ),
    ):
        for name, value in properties.items():
            setattr(target, name, value)
    scene.display_settings.display_device = DISPLAY
    scene.render.resolution_x = scene.render.resolution_y = settings.resolution
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    _add_camera(scene)
    blender = f"Blender {bpy.app.version_string}"
    return {"name": "Cycles", "version": blender, "device": device, **values, **FILM, **COLOUR, "display": DISPLAY}


def _use_device(scene: Any, settings: Settings) -> str:
    if settings.device == "cpu":
        scene.cycles.device = "CPU"
        return "CPU"
    preferences = bpy.context.preferences.addons["cycles"].preferences
    backend = gpu_backend()
    preferences.compute_device_type = backend
    for device in preferences.get_devices_for_type(backend):
        device.use = device.type != "CPU"
    scene.cycles.device = "GPU"
    return backend


def _add_camera(scene: Any) -> None:
    data = bpy.data.cameras.new("camera")
    data.lens, data.sensor_width, data.clip_start = LENS_MM, SENSOR_MM, 0.01
    scene.camera = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(scene.camera)


def render_view(pose: Pose, noise_seed: int, scratch: Path) -> Rgba:
    """One picture of the open scene; `scratch` is a folder for Blender's PNG."""
    scene, path = bpy.context.scene, scratch / "view.png"
    scene.camera.matrix_world = Matrix(pose.c2w().tolist())
    scene.cycles.seed = noise_seed
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    with Image.open(path) as file:
        picture = np.array(file)
    path.unlink()
    picture[picture[..., 3] == 0] = 0  # the denoiser leaves colour where nothing is
    return picture


def warm_up() -> None:
    """Render one pixel's worth on the GPU: its kernels are built at first use, which takes minutes once."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_plane_add()
    configure(Settings(resolution=8, samples=1, device="gpu"), threads=1)
    with tempfile.TemporaryDirectory(prefix="isotropic3d-") as scratch:
        render_view(Pose(30.0, 0.0), 0, Path(scratch))
