"""The settings of `benchmarks.render.plain_render`, importable without Blender."""

from dataclasses import dataclass
from typing import Final

from dataset.format.schema import RendererValue

# SyncDreamer's script where it says something, Blender's own defaults elsewhere.
PEOPLE: Final[dict[str, RendererValue]] = {
    "use_adaptive_sampling": False,
    "use_denoising": True,
    "denoiser": "OPENIMAGEDENOISE",
    "denoising_quality": "HIGH",
    "denoising_input_passes": "RGB_ALBEDO_NORMAL",
    "denoising_prefilter": "ACCURATE",
    "use_light_tree": True,
    "sampling_pattern": "AUTOMATIC",
    "diffuse_bounces": 1,
    "glossy_bounces": 1,
    "transparent_max_bounces": 3,
    "transmission_bounces": 3,
    "filter_width": 0.01,
}
RESOLUTION: Final = 256
PEOPLE_SAMPLES: Final = 128
REFERENCE_SAMPLES: Final = 1024


@dataclass(frozen=True)
class PlainJob:
    """What one process of `benchmarks.render.plain_render` does: views VIEWS of one file, as PNG files in the folder
    OUT.
    """

    uid: str
    path: str
    out: str
    seed: int
    samples: int
    denoise: bool
    threads: int
    views: list[int]
    # For the reference alone: other noise than what it judges, and two things that change no expected value, only time.
    noise_offset: int = 0
    light_tree: bool = True
    only_object: bool = False
