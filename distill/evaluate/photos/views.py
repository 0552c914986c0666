"""Make the views that the judge sees: sampled views of an image, and renders of the asset distilled from it.

Views are stored side by side in one PNG file, whose name contains a hash of everything that determines them.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.images.decode import BROKEN
from dataset.io.files import write_file_atomic
from dataset.io.progress import ProgressBar
from distill.evaluate.score import occupancy_of
from distill.nerf.field import load_field
from distill.output.preview import PREVIEW_ELEVATION_DEG, view_distance, view_renderer
from distill.output.turntable import ring
from distill.runs.job import Job
from train.model.ddim import sample_views
from train.model.multiview import MultiViewModel
from train.model.recognition.recognize import embed_input
from train.model.reference import with_reference_image
from train.sample import orthogonal_cameras

UInt8 = NDArray[np.uint8]
VIEWS: Final = 4  # sampled per image, and rendered per asset: front, right, back and left
FIELD: Final = "field.safetensors"
_KEY_LENGTH: Final = 12


@dataclass(frozen=True)
class SamplingSettings:
    """How views are sampled: the number of DDIM steps, and the device."""

    ddim_steps: int
    device: torch.device


def sample_all(
    jobs: Sequence[Job], loaded: Callable[[], MultiViewModel], settings: SamplingSettings, folder: Path
) -> dict[str, Path]:
    """Sample four views of each job's image from its embedding, as `python -m train.sample` does. Existing files stay.

    Args:
        jobs: The jobs: image, model, seed, guidance scale and elevation.
        loaded: Function that returns the model. It is called only if a file is missing.
        settings: Settings of sampling.
        folder: Folder of the files.

    Returns:
        The PNG file of each job, by the job's name.
    """
    files = {}
    for job in ProgressBar(jobs, desc="sample", unit="image"):
        request = job.request
        inputs = [
            request.image_sha256,
            request.model_sha256,
            request.elevation_deg,
            request.guidance_scale,
            request.settings.seed,
            settings.ddim_steps,
        ]
        files[job.name] = folder / f"{job.name}-{_key(inputs)}.png"
        if not files[job.name].is_file():
            write_strip(files[job.name], _sampled(job, loaded(), settings))
    return files


def _sampled(job: Job, model: MultiViewModel, settings: SamplingSettings) -> UInt8:
    request = job.request
    rgb = torch.from_numpy(np.ascontiguousarray(job.prepared.rgb)).permute(2, 0, 1)[None].to(settings.device)
    conditioned = with_reference_image(model, rgb, as_frame=False, elevation_deg=request.elevation_deg, azimuth_deg=0.0)
    images = sample_views(
        conditioned,
        embed_input(conditioned, job.model, rgb),
        orthogonal_cameras(conditioned, VIEWS, elevation_deg=request.elevation_deg),
        steps=settings.ddim_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.settings.seed),
    )[0]
    return quantize(images.permute(0, 2, 3, 1).float().cpu().numpy())


def render_all(jobs: Sequence[Job], size: int, device: torch.device, folder: Path) -> dict[str, Path]:
    """Render the asset of each finished job from four sides, without lighting. Existing files stay.

    Args:
        jobs: Finished jobs.
        size: Edge of the images in pixels.
        device: Device of the renderer.
        folder: Folder of the files.

    Returns:
        The PNG file of each job, by the job's name.
    """
    files = {}
    for job in ProgressBar(jobs, desc="render", unit="asset"):
        files[job.name] = folder / f"{job.name}-{_key([job.request.sha256, size])}.png"
        if not files[job.name].is_file():
            write_strip(files[job.name], _rendered(job, size, device))
    return files


def _rendered(job: Job, size: int, device: torch.device) -> UInt8:
    settings = job.request.settings
    field = load_field(job.out / FIELD, device)
    render = view_renderer(field, occupancy_of(field, settings.march, device), settings, size)
    return quantize(render(ring(VIEWS, PREVIEW_ELEVATION_DEG, view_distance(settings))).colors)


def quantize(images: NDArray[np.float32] | NDArray[np.float64]) -> UInt8:
    """Convert images with values in [0, 1], of any shape, to uint8. NaN becomes 0."""
    quantized: UInt8 = np.rint(np.nan_to_num(images).clip(0, 1) * 255).astype(np.uint8)
    return quantized


def write_strip(path: Path, images: UInt8) -> None:
    """Write images uint8 [f, h, w, 3] side by side as one PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), 1)).save(buffer, "PNG")
    write_file_atomic(path, buffer.getvalue())


def read_strip(path: Path) -> UInt8:
    """Read square images uint8 [f, h, h, 3] that `write_strip` wrote. Raises UserError for a damaged file."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except BROKEN as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); delete it and repeat the command") from error
    return np.stack(np.split(pixels, pixels.shape[1] // pixels.shape[0], 1))


def _key(inputs: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:_KEY_LENGTH]
