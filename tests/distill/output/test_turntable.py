"""Read back videos and sheets: number, order and colors of images; failed renders leave no files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dataset.camera import c2w_to_spherical
from distill.output.turntable import ring, write_turntable, write_views
from tests.support.video import HEIGHT, WIDTH, read


def by_azimuth(c2w: NDArray[np.float64], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float32]:
    """Red falls from 0.9 and green rises from 0.1 with the azimuth of the camera; blue is constant."""
    _, azimuth_deg, _ = c2w_to_spherical(c2w)
    turned = 0.8 * azimuth_deg / 360
    color = np.stack([0.9 - turned, 0.1 + turned, np.full_like(turned, 0.4)], -1)
    return np.broadcast_to(color[:, None, None], (len(c2w), height, width, 3)).astype(np.float32)


def test_a_turn_read_back(tmp_path: Path) -> None:
    asked: list[int] = []

    def render(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
        asked.append(len(c2w))
        return by_azimuth(c2w)

    write_turntable(render, tmp_path / "turn.mp4", distance=2.0, frames=10, fps=5, frames_per_call=4)
    described, frames = read(tmp_path / "turn.mp4")
    assert asked == [4, 4, 2]
    for property in ("Video: h264", "yuv420p(tv, bt709, progressive)", "64x48", "5 fps", "Duration: 00:00:02.00"):
        assert property in described
    expected = 255 * by_azimuth(ring(10, 15.0, 2.0))
    assert frames.shape == expected.shape
    np.testing.assert_allclose(frames, expected, atol=6)
    assert [path.name for path in tmp_path.iterdir()] == ["turn.mp4"]


def test_the_index_comes_first(tmp_path: Path) -> None:
    write_turntable(by_azimuth, tmp_path / "turn.mp4", distance=2.0, frames=2)
    data = (tmp_path / "turn.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_gain_a_white_edge(tmp_path: Path) -> None:
    write_turntable(lambda c2w: 0 * by_azimuth(c2w, 33, 41), tmp_path / "turn.mp4", distance=2.0, frames=2)
    _, frames = read(tmp_path / "turn.mp4", 34, 42)
    assert len(frames) == 2
    assert frames[:, -1].min() > 200
    assert frames[:, :, -1].min() > 200
    assert frames[:, :30, :38].max() < 20


def test_a_failed_render_leaves_the_old_video_alone(tmp_path: Path) -> None:
    (tmp_path / "turn.mp4").write_bytes(b"old")
    calls: list[int] = []

    def breaks(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
        calls.append(len(c2w))
        if len(calls) == 2:
            raise FloatingPointError("the field went wrong")
        return by_azimuth(c2w)

    with pytest.raises(FloatingPointError, match="went wrong"):
        write_turntable(breaks, tmp_path / "turn.mp4", distance=2.0, frames=8)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("turn.mp4", b"old")]


def test_lost_frames_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="4 of 8 frames"):
        write_turntable(lambda c2w: by_azimuth(c2w[:2]), tmp_path / "turn.mp4", distance=2.0, frames=8)
    assert list(tmp_path.iterdir()) == []


def test_sheet_holds_a_row_a_kind_front_first(tmp_path: Path) -> None:
    def colors_and_alpha(c2w: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return by_azimuth(c2w), by_azimuth(c2w)[..., 0]

    write_views(colors_and_alpha, tmp_path / "views.png", distance=2.0, views=4)
    with Image.open(tmp_path / "views.png") as image:
        sheet = np.asarray(image.convert("RGB")).astype(float) / 255
    cell_height, cell_width = sheet.shape[0] // 2, sheet.shape[1] // 4
    for place, azimuth_deg in enumerate([0, 90, 180, 270]):
        red = 0.9 - 0.8 * azimuth_deg / 360
        x = place * cell_width + cell_width // 2
        np.testing.assert_allclose(sheet[cell_height - 15, x], [red, 1 - red, 0.4], atol=0.01)
        np.testing.assert_allclose(sheet[-15, x], [red] * 3, atol=0.01)


def test_ring_is_even_and_starts_in_front() -> None:
    elevation, azimuth, distance = c2w_to_spherical(ring(8, 20.0, 1.7))
    np.testing.assert_allclose(elevation, 20.0)
    np.testing.assert_allclose(azimuth, np.arange(8) * 45.0, atol=1e-9)
    np.testing.assert_allclose(distance, 1.7)
    assert ring(1, 0.0, 2.0)[0, :3, 3] == pytest.approx([0, -2, 0])


def test_nothing_carries_the_final_name_before_the_end(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def render(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
        seen.append([path.name for path in tmp_path.iterdir()])
        return by_azimuth(c2w)

    write_turntable(render, tmp_path / "turn.mp4", distance=2.0, frames=8)
    assert all("turn.mp4" not in names for names in seen)
