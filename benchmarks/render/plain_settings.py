"""The settings of `benchmarks.render.plain_render`, importable without Blender."""

from dataclasses import dataclass
from typing import Final

from dataset.format.schema import RendererValue

# Settings of SyncDreamer's script, and Blender's defaults for the others.
BASELINE: Final[dict[str, RendererValue]] = {
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
BASELINE_SAMPLES: Final = 128
REFERENCE_SAMPLES: Final = 1024


@dataclass(frozen=True)
class PlainJob:
    """The job of a `benchmarks.render.plain_render` process: render `views` of a file into the folder `out` as PNG."""

    uid: str
    path: str
    out: str
    seed: int
    samples: int
    denoise: bool
    threads: int
    views: list[int]
    # For reference images only: another noise seed, and two settings that affect the time but not the expected value.
    noise_offset: int = 0
    light_tree: bool = True
    only_object: bool = False
