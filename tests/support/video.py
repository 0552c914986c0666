"""Read a video back, frame by frame."""

import subprocess
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def read(path: Path, height: int = HEIGHT, width: int = WIDTH) -> tuple[str, NDArray[np.uint8]]:
    """ffmpeg's description of a video, and its frames [f, h, w, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return done.stderr.decode(), np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
