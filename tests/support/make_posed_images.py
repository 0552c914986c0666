"""Posed images as other programs write them: a lit disc in front of cameras, with Blender's or our camera files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.camera import spherical_to_c2w

RING = [(30.0, 22.5 * i) for i in range(16)]  # elevation and azimuth in degrees of the paper's fixed views
SPIRAL = [(-10.0 + 3 * i, 22.5 * i + 7) for i in range(16)]
FOV_DEG = 40.0


def write_image(path: Path, width: int = 16, height: int = 16, shade: int = 120, mode: str = "RGBA") -> None:
    """A disc of half the height in the middle of a transparent image, or of a white one with another `mode`."""
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    inside = np.hypot(x, y) < height / 4
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[inside] = (shade, 200 - shade // 2, 80, 255)
    image = Image.fromarray(rgba)
    if mode != "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def folder_entries(angles: Sequence[tuple[float, float]], **changes: Any) -> list[dict[str, Any]]:
    """Entries of a cameras.json with angles; `changes` are keys that all entries get."""
    return [
        {"file": f"{i:03d}.png", "azimuth_deg": a, "elevation_deg": e, "distance": 2.0, "fov_deg": FOV_DEG, **changes}
        for i, (e, a) in enumerate(angles)
    ]


def write_folder_object(
    folder: Path, angles: Sequence[tuple[float, float]] = tuple(RING + SPIRAL), shade: int = 0, **image: Any
) -> Path:
    """Write the images and the cameras.json of an object in the layout `folder`."""
    for i in range(len(angles)):
        write_image(folder / f"{i:03d}.png", shade=shade + i, **image)
    (folder / "cameras.json").write_text(json.dumps(folder_entries(angles)))
    return folder


def write_blender_object(folder: Path, views: int = 6, distance: float = 4.03) -> Path:
    """Write an object as the synthetic NeRF data have it: three splits, names without ending, one angle per file."""
    for split in ("train", "val", "test"):
        frames = []
        for i in range(views):
            c2w = spherical_to_c2w(10.0 + i, 50.0 * i + 3, distance)
            write_image(folder / split / f"r_{i}.png", shade=10 * i)
            frames.append({"file_path": f"./{split}/r_{i}", "rotation": 0.01, "transform_matrix": c2w.tolist()})
        content = {"camera_angle_x": 0.6911112070083618, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder
