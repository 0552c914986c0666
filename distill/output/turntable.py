"""Turntable video and sheet of views of a scene, made with a function that renders the scene from given cameras.

A function of type `Render` maps camera-to-world matrices [f, 4, 4] (Blender axes) to images in [0, 1]: [f, h, w, 3], or
gray [f, h, w] or [f, h, w, 1]. A function of type `RenderRows` returns several such arrays for the same cameras, such
as colors and normals.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.camera import spherical_to_c2w
from dataset.images.prepare import contact_sheet
from dataset.io.files import write_file_atomic

Render = Callable[[NDArray[np.float64]], NDArray[np.float32]]
RenderRows = Callable[[NDArray[np.float64]], Sequence[NDArray[np.float32]]]
_FFMPEG: Final = (
    *("-crf", "18"),  # constant quality of libx264, visually lossless
    # Store that colors are BT.709. Otherwise players guess and show different colors.
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv,setparams=color_primaries=bt709:color_trc=bt709"),
    *(
        "-movflags",
        "+faststart",
        "-f",
        "mp4",
    ),  # the index first, so that browsers can play before the whole file is loaded
)


def ring(count: int, elevation_deg: float, distance: float) -> NDArray[np.float64]:
    """Return cameras that look at the origin, at equal angles on a circle around the vertical axis.

    Args:
        count: Number of cameras. The first camera has azimuth 0.
        elevation_deg: Elevation of the cameras in degrees.
        distance: Distance of the cameras from the origin in world units.

    Returns:
        Camera-to-world matrices [count, 4, 4].
    """
    return spherical_to_c2w(elevation_deg, np.arange(count) * 360.0 / count, distance)


def write_turntable(
    render: Render,
    path: Path,
    *,
    distance: float,
    elevation_deg: float = 15.0,
    frames: int = 60,
    fps: int = 20,
    frames_per_call: int = 4,
) -> None:
    """Write a video of one full turn around a scene, as a seamless loop (H.264, yuv420p, plays in browsers).

    Images with an odd width or height get one more white column or row, since the codec needs even sizes. The video is
    first written to a temporary file. This file replaces `path` only if it contains all frames.

    Args:
        render: Function that renders the scene from given cameras.
        path: The video file, .mp4.
        distance: Distance of the cameras from the origin in world units.
        elevation_deg: Elevation of the cameras in degrees.
        frames: Number of frames of the video.
        fps: Frames per second.
        frames_per_call: Number of frames that one call of `render` renders. A smaller number needs less memory.

    Raises:
        OSError: ffmpeg did not write all frames.
    """
    import imageio_ffmpeg  # type: ignore[import-untyped]

    cameras = ring(frames, elevation_deg, distance)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        _encode(_stream(render, cameras, frames_per_call), temporary, fps)
        written, _ = imageio_ffmpeg.count_frames_and_secs(str(temporary))
        if written != frames:
            raise OSError(
                f"ffmpeg wrote only {written} of {frames} frames of the video {path}; check the free disk space"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(render: Render, cameras: NDArray[np.float64], frames_per_call: int) -> Iterator[NDArray[np.uint8]]:
    for first in range(0, len(cameras), frames_per_call):
        for image in render(cameras[first : first + frames_per_call]):
            yield _even(_quantize(image))


def _encode(images: Iterator[NDArray[np.uint8]], path: Path, fps: int) -> None:
    """Write images [h, w, 3] of one size as a video."""
    import imageio_ffmpeg

    first = next(images)
    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=list(_FFMPEG),
    )
    writer.send(None)  # starts ffmpeg
    try:
        writer.send(first.tobytes())
        for image in images:
            writer.send(image.tobytes())
    finally:
        writer.close()


def write_views(
    render: RenderRows, path: Path, *, distance: float, elevation_deg: float = 15.0, views: int = 8
) -> None:
    """Write a PNG sheet of views of a scene: one column per camera, and one row per kind of image, such as normals.

    Args:
        render: Function that renders the rows from given cameras.
        path: The PNG file.
        distance: Distance of the cameras from the origin in world units.
        elevation_deg: Elevation of the cameras in degrees.
        views: Number of cameras, at equal angles on a circle around the vertical axis. The first camera has azimuth 0.
    """
    cameras = ring(views, elevation_deg, distance)
    images = [_quantize(image) for row in render(cameras) for image in row]
    captions = [f"{azimuth:g}°" for azimuth in np.arange(views) * 360.0 / views]
    buffer = io.BytesIO()
    contact_sheet(images, columns=views, captions=captions).save(buffer, format="PNG")
    write_file_atomic(path, buffer.getvalue())


def _quantize(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert an image [h, w], [h, w, 1] or [h, w, 3] with values in [0, 1] to uint8 [h, w, 3]."""
    gray_or_rgb = image.reshape(*image.shape[:2], -1)
    quantized: NDArray[np.uint8] = np.rint(np.clip(gray_or_rgb, 0.0, 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(quantized, (*image.shape[:2], 3))


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add a white row if the height of the image is odd, and a white column if its width is odd."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
