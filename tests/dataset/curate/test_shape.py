"""Flatness, symmetry and distinct views of solids whose silhouettes are computed by ray casting."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dataset.camera import DISTANCE, intrinsics, spherical_to_c2w
from dataset.curate.shape import distinct_views, flatness, semi_axes, symmetry
from dataset.format.schema import View

SIDE, RAYS = 64, 3  # pixels; rays per pixel and direction
AZIMUTHS_DEG = np.arange(16) * 22.5
RANDOM_DEG = np.random.default_rng(5).uniform(-10, 40, 16)

Float = NDArray[np.float64]


def camera(elevation_deg: float, azimuth_deg: float) -> View:
    c2w = spherical_to_c2w(elevation_deg, azimuth_deg, DISTANCE)
    matrix = tuple(map(tuple, c2w.tolist()))
    K = tuple(map(tuple, intrinsics(2 * SIDE).tolist()))  # of images with twice the resolution of the views
    return View(elevation_deg, float(azimuth_deg), DISTANCE, matrix, K, 0.0, False)


CAMERAS = [camera(30, a) for a in AZIMUTHS_DEG] + [camera(e, a) for e, a in zip(RANDOM_DEG, AZIMUTHS_DEG, strict=True)]


def render(parts: list[tuple[Float, Float]], cameras: list[View] = CAMERAS) -> NDArray[np.float32]:
    """Gray views [f, s, s, 4] of the union of boxes, each with its center [3] and half size [3]."""
    place = (np.arange(SIDE * RAYS) + 0.5) / RAYS
    x, y = np.meshgrid(place, place)
    K = intrinsics(SIDE)
    local = np.stack([(x - K[0, 2]) / K[0, 0], -(y - K[1, 2]) / K[1, 1], -np.ones_like(x)], -1)
    views = []
    for each in cameras:
        c2w = np.array(each.c2w)
        directions = local @ c2w[:3, :3].T
        directions = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
        hit = np.zeros(x.shape, bool)
        for center, half in parts:
            a, b = ((center + sign * half - c2w[:3, 3]) / directions for sign in (-1, 1))
            hit |= np.minimum(a, b).max(-1) < np.maximum(a, b).min(-1)
        alpha = hit.reshape(SIDE, RAYS, SIDE, RAYS).mean((1, 3))
        views.append(np.stack([0.5 * alpha, 0.5 * alpha, 0.5 * alpha, alpha], -1))
    return np.array(views, np.float32)


def render_ellipsoid(half: Float) -> NDArray[np.float32]:
    """Silhouettes [f, s, s, 4] of an ellipsoid with the semi-axes `half` [3], at the center."""
    place = (np.arange(SIDE * RAYS) + 0.5) / RAYS
    x, y = np.meshgrid(place, place)
    K = intrinsics(SIDE)
    local = np.stack([(x - K[0, 2]) / K[0, 0], -(y - K[1, 2]) / K[1, 1], -np.ones_like(x)], -1)
    views = []
    for each in CAMERAS:
        c2w = np.array(each.c2w)
        origin, directions = c2w[:3, 3] / half, local @ c2w[:3, :3].T / half
        a, b, c = (directions**2).sum(-1), directions @ origin, origin @ origin - 1
        alpha = (b * b > a * c).reshape(SIDE, RAYS, SIDE, RAYS).mean((1, 3))
        views.append(np.repeat(alpha[..., None], 4, axis=-1))
    return np.array(views, np.float32)


def box(x: float, y: float, z: float, at: tuple[float, float, float] = (0, 0, 0)) -> tuple[Float, Float]:
    return np.array(at, float), np.array([x, y, z]) / 2


def flat(*parts: tuple[Float, Float]) -> float:
    return flatness(semi_axes(render(list(parts)), CAMERAS))


@pytest.mark.parametrize("half", [(0.2, 0.1, 0.15), (0.15, 0.15, 0.02), (0.15, 0.03, 0.1), (0.1, 0.1, 0.1)])
def test_semi_axes_of_an_ellipsoid_are_its_own(half: tuple[float, float, float]) -> None:
    axes = semi_axes(render_ellipsoid(np.array(half)), CAMERAS)
    np.testing.assert_allclose(axes, sorted(half, reverse=True), rtol=0.04, atol=0.003)


def test_sheets_are_flat_in_every_orientation() -> None:
    assert flat(box(0.9, 0.9, 0.001)) > 0.95
    assert flat(box(0.9, 0.001, 0.9)) > 0.95  # edge-on at azimuth 90, where its silhouette is thinner than a pixel
    assert flat(box(0.001, 0.9, 0.6)) > 0.95


def test_an_infinitely_thin_sheet_is_flat() -> None:
    """Views from its edge do not show it at all."""
    views = render([box(0.9, 1e-9, 0.9)])
    assert views[[4, 12], ..., 3].max() == 0
    assert flatness(semi_axes(views, CAMERAS)) == pytest.approx(1)


def test_a_board_of_a_tenth_of_its_width_has_its_own_thickness() -> None:
    """Seen edge-on, the front edge of a large board is closer than its center, and so looks thicker."""
    assert flat(box(0.9, 0.09, 0.9)) == pytest.approx(0.9, abs=0.05)
    assert flat(box(0.45, 0.45, 0.045)) == pytest.approx(0.9, abs=0.05)
    assert flat(box(0.9, 0.9, 0.18)) == pytest.approx(0.8, abs=0.06)


def test_cubes_and_rods_are_not_flat() -> None:
    assert flat(box(0.6, 0.6, 0.6)) < 0.2
    assert flat(box(0.08, 0.08, 1)) < 0.5
    assert flat(box(1, 0.08, 0.08)) < 0.7
    assert semi_axes(np.zeros((32, SIDE, SIDE, 4), np.float32), CAMERAS).tolist() == [0, 0, 0]
    assert flatness(np.zeros(3)) == 0


def test_symmetric_objects_have_symmetry_1() -> None:
    base = box(0.8, 0.3, 0.2)
    assert symmetry(render([base], CAMERAS[:16])[..., 3]) == pytest.approx(1, abs=1e-3)
    left_right = [base, box(0.1, 0.1, 0.4, (0.35, 0.1, 0.2)), box(0.1, 0.1, 0.4, (-0.35, 0.1, 0.2))]
    assert symmetry(render(left_right, CAMERAS[:16])[..., 3]) == pytest.approx(1, abs=1e-3)


def test_a_plane_between_two_cameras_is_found() -> None:
    turned = [camera(30, a + 11.25) for a in AZIMUTHS_DEG]
    assert symmetry(render([box(0.8, 0.3, 0.2)], turned)[..., 3]) == pytest.approx(1, abs=1e-3)


def test_an_asymmetric_object_has_less() -> None:
    bent = [box(0.8, 0.15, 0.15), box(0.15, 0.5, 0.15, (0.3, 0.25, 0)), box(0.15, 0.15, 0.5, (-0.3, 0, 0.25))]
    assert symmetry(render(bent, CAMERAS[:16])[..., 3]) < 0.8
    assert symmetry(np.zeros((16, SIDE, SIDE), np.float32)) == 0


def test_symmetry_equals_the_definition_written_as_loops() -> None:
    alpha = np.random.default_rng(1).random((6, 5, 5)).astype(np.float32)
    scores = []
    for plane in range(6):
        overlaps = []
        for view in range(6):
            one, other = alpha[view], np.fliplr(alpha[(plane - view) % 6])
            overlaps.append(np.minimum(one, other).sum() / np.maximum(one, other).sum())
        scores.append(np.mean(overlaps))
    assert symmetry(alpha) == pytest.approx(max(scores), rel=1e-5)


def test_distinct_views_count_what_differs() -> None:
    same = np.repeat(render([box(0.5, 0.5, 0.5)], CAMERAS[:1]), 16, axis=0)
    assert distinct_views(same) == 1
    assert distinct_views(np.zeros_like(same)) == 0
    blank = same.copy()
    blank[5:] = 0  # views that do not show the object
    assert distinct_views(blank) == 1
    colors = same.copy()
    colors[8:, ..., 0] += 0.3 * colors[8:, ..., 3]  # redder from the other side
    assert distinct_views(colors) == 2
    long = render([box(1, 0.2, 0.2)], CAMERAS[:16])
    assert 6 <= distinct_views(long) <= 8  # the opposite side looks the same
    asymmetric = render([box(0.8, 0.15, 0.15), box(0.15, 0.15, 0.5, (0.3, 0.25, 0.2))], CAMERAS[:16])
    assert distinct_views(asymmetric) == 16
