"""Configure Cycles and the camera, and render one view to an array. Runs inside Blender.

The settings follow SyncDreamer's script, which the paper uses (section 4.1), except where a comment says otherwise.
"""

import math
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray
from PIL import Image

from dataset.camera import LENS_MM, SENSOR_MM
from dataset.format.schema import RendererValue
from render.blender.device import choose, use
from render.blender.screen_bounds import PixelBox
from render.blender.timing import PartTimer, RenderClock
from render.rigs.cameras import Pose
from render.settings import Settings

Rgba = NDArray[np.uint8]  # [h, w, 4], straight alpha
# Properties of scene.cycles. SyncDreamer uses 128 samples and a full-quality denoiser. docs/LOG.md lists the measured
# alternatives with their time and PSNR. The denoiser's prefilter is off: all samples of a pixel are at its center
# (filter_width), so albedo and normals have no noise, and a prefilter would only blur their edges.
CYCLES: Final[dict[str, RendererValue]] = {
    "use_denoising": True,
    "denoiser": "OPENIMAGEDENOISE",
    "denoising_quality": "BALANCED",
    "denoising_input_passes": "RGB_ALBEDO_NORMAL",
    "denoising_prefilter": "NONE",
    "sampling_pattern": "TABULATED_SOBOL",
    "use_light_tree": False,  # helps with many lamps; here the environment is the only light
    "diffuse_bounces": 1,
    "glossy_bounces": 1,
    "transparent_max_bounces": 3,
    "transmission_bounces": 3,
    "filter_width": 0.01,
}
# Properties of scene.render, scene.display_settings and scene.view_settings. Blender 4's default view is AgX.
FILM: Final[dict[str, RendererValue]] = {
    "film_transparent": True,
    "use_persistent_data": True,
    "use_compositing": True,
    "use_sequencer": False,
    "dither_intensity": 0.0,
    "resolution_percentage": 100,
}
COLOR: Final[dict[str, RendererValue]] = {"view_transform": "Standard", "look": "None", "exposure": 0.0, "gamma": 1.0}
DISPLAY: Final = "sRGB"
# Weight of the image before denoising in the result. Mixing the noisy and the denoised image gains 1 dB over the
# denoised image alone. The denoiser's guides (albedo, normal) say nothing about what a surface reflects or transmits,
# so it blurs reflections; there the noisy image gets most of the weight (docs/LOG.md).
NOISY_SHARE: Final = 0.2
MIRROR_NOISY_SHARE: Final = 0.95  # where all light is reflected or transmitted; interpolated in between
NOISY_SHARE_NODE: Final = "noisy share"
_CLOCK: Final = RenderClock()


def configure(settings: Settings, threads: int) -> dict[str, RendererValue]:
    """Set up Cycles and a camera in the open scene. Return the renderer settings, for the metadata of the object.

    `threads` is the number of CPU threads. It does not change the images.
    """
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    device, _ = choose(settings.device)
    use(scene, device)
    values = {
        **CYCLES,
        "samples": settings.samples,
        "use_adaptive_sampling": settings.noise_threshold > 0,
        "adaptive_threshold": settings.noise_threshold,
        "adaptive_min_samples": 4,  # below 16, so that the noise is first checked after 16 samples
    }
    for target, properties in (
        (scene.cycles, values),
        (scene.render, FILM),
        (scene.view_settings, COLOR),
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
    _add_noisy_mix(scene)
    _install_handlers()
    blender = f"Blender {bpy.app.version_string}"
    fixed: dict[str, RendererValue] = {
        "display": DISPLAY,
        "noisy_share": NOISY_SHARE,
        "mirror_noisy_share": MIRROR_NOISY_SHARE,
    }
    return {"name": "Cycles", "version": blender, "device": device, **values, **FILM, **COLOR, **fixed}


def _add_noisy_mix(scene: Any) -> None:
    """Mix the denoised and the noisy image in Blender's compositor, with a weight per pixel."""
    layer = bpy.context.view_layer
    layer.cycles.denoising_store_passes = True
    layer.use_pass_glossy_color = layer.use_pass_transmission_color = True
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    nodes.clear()
    passes, mirror, share = (nodes.new(f"CompositorNode{name}") for name in ("RLayers", "Math", "Math"))
    mirror.operation, share.operation, share.use_clamp = "ADD", "MULTIPLY_ADD", True
    share.name = NOISY_SHARE_NODE
    share.inputs[1].default_value, share.inputs[2].default_value = MIRROR_NOISY_SHARE - NOISY_SHARE, NOISY_SHARE
    mix = nodes.new("CompositorNodeMixRGB")
    for source, target in (
        (passes.outputs["GlossCol"], mirror.inputs[0]),
        (passes.outputs["TransCol"], mirror.inputs[1]),
        (mirror.outputs[0], share.inputs[0]),
        (share.outputs[0], mix.inputs["Fac"]),
        (passes.outputs["Image"], mix.inputs[1]),
        (passes.outputs["Noisy Image"], mix.inputs[2]),
        (mix.outputs["Image"], nodes.new("CompositorNodeComposite").inputs["Image"]),
    ):
        links.new(source, target)


def _install_handlers() -> None:
    """Register the handlers of the render clock. Call this for each scene: Blender removes handlers on a reset."""
    for handlers, handler in (
        (bpy.app.handlers.render_stats, _CLOCK.on_status),
        (bpy.app.handlers.render_post, _CLOCK.on_post),
    ):
        if handler not in handlers:
            handlers.append(handler)


def _add_camera(scene: Any) -> None:
    data = bpy.data.cameras.new("camera")
    data.lens, data.sensor_width, data.clip_start = LENS_MM, SENSOR_MM, 0.01
    scene.camera = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(scene.camera)


def render_view(
    pose: Pose, noise_seed: int, scratch: Path, box: PixelBox | None = None, timer: PartTimer | None = None
) -> Rgba:
    """Render one view of the open scene to an RGBA image [height, width, 4] with straight alpha.

    Args:
        pose: The camera.
        noise_seed: Cycles' sampling seed.
        scratch: Existing folder for a temporary PNG file.
        box: The pixels to render; all others are transparent. None: all pixels.
        timer: Timer to which the wall time of each part of the rendering is added; None: times are not measured.
    """
    scene, path = bpy.context.scene, scratch / "view.png"
    width, height = scene.render.resolution_x, scene.render.resolution_y
    box = box or PixelBox(0, 0, width, height)
    image = np.zeros((height, width, 4), np.uint8)
    if box.is_empty():
        return image
    place_camera(scene.camera, pose)
    scene.cycles.seed = noise_seed
    scene.render.filepath = str(path)
    render_only(scene.render, box)
    _CLOCK.start()
    bpy.ops.render.render(write_still=True)
    with Image.open(path) as file:
        image[box.top : box.bottom, box.left : box.right] = np.array(file)
    path.unlink()
    if timer:
        _CLOCK.add_to(timer)
    image[image[..., 3] == 0] = 0  # the denoiser leaves color in empty pixels
    return image


def place_camera(camera: Any, pose: Pose) -> None:
    """Give Blender's camera object the position and the lens of `pose`."""
    camera.matrix_world = Matrix(pose.c2w().tolist())
    if pose.width is not None:
        camera.data.type, camera.data.ortho_scale = "ORTHO", pose.width
    elif pose.fov_deg is not None:
        camera.data.lens = SENSOR_MM / 2 / math.tan(math.radians(pose.fov_deg) / 2)


def render_only(render: Any, box: PixelBox) -> None:
    """Restrict the rendering to the pixels in `box`.

    Blender's border settings are fractions of the image size, with y up. Blender converts them to pixels and rounds
    down. Every coordinate is therefore increased by 0.25 pixels, so that a rounding error cannot lose a pixel.

    Args:
        render: Blender's render settings, `scene.render`.
        box: The pixels to render.
    """
    width, height = render.resolution_x, render.resolution_y
    render.use_border = render.use_crop_to_border = True
    render.border_min_x, render.border_max_x = (box.left + 0.25) / width, (box.right + 0.25) / width
    render.border_min_y, render.border_max_y = (height - box.bottom + 0.25) / height, (height - box.top + 0.25) / height
