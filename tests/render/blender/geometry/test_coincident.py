"""Coincident faces: which are found, and which one remains."""

from collections.abc import Sequence

import numpy as np
import pytest

from render.blender.geometry.coincident import (
    SAME_PLANE,
    SHRINK,
    Faces,
    area_vectors,
    doubled_share,
    plan_repair,
)

SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
HALVES = [[0, 1, 2], [0, 2, 3]]


def make(
    positions: Sequence[Sequence[float]],
    polygons: Sequence[Sequence[int]],
    look: Sequence[int] | None = None,
    colors: np.ndarray | None = None,
) -> Faces:
    corners = np.array([vertex for polygon in polygons for vertex in polygon])
    counts = np.array([len(polygon) for polygon in polygons])
    return Faces(
        np.array(positions, float),
        corners,
        np.cumsum(counts) - counts,
        np.array(look if look is not None else [0] * len(polygons)),
        np.zeros((len(corners), 0)) if colors is None else colors,
    )


def plan(faces: Faces):
    return plan_repair(faces, 1.0, np.zeros(len(faces.starts), bool))


def test_faces_that_only_touch_are_left_alone() -> None:
    result = plan(make(SQUARE, HALVES))
    assert not result.drop.any()
    assert not result.layer.any()
    assert not result.doubled.any()


def test_of_equal_faces_the_first_remains() -> None:
    faces = make(SQUARE, [*HALVES, [1, 2, 0], [3, 0, 2]])  # from another corner
    result = plan(faces)
    assert result.drop.tolist() == [False, False, True, True]
    assert not result.both_sides.any()
    assert doubled_share(faces, result) == 1.0


def test_of_two_windings_that_look_alike_one_remains_for_both_sides() -> None:
    result = plan(make(SQUARE, [*HALVES, [2, 1, 0], [3, 2, 0]]))
    assert result.drop.tolist() == [False, False, True, True]
    assert result.both_sides.tolist() == [True, True, False, False]


def test_two_windings_of_different_materials_both_remain_apart() -> None:
    result = plan(make(SQUARE, [*HALVES, [2, 1, 0], [3, 2, 0]], look=[0, 0, 1, 1]))
    assert not result.drop.any()
    assert result.layer.tolist() == [0, 0, 1, 1]


def test_texture_coordinates_make_faces_look_different() -> None:
    polygons = [[0, 1, 2], [2, 1, 0]]
    same = np.array([[0, 0], [1, 0], [1, 1], [1, 1], [1, 0], [0, 0]], float)
    assert plan(make(SQUARE, polygons, colors=same)).drop.tolist() == [False, True]
    other = same.copy()
    other[3:] += 0.25
    different = plan(make(SQUARE, polygons, colors=other))
    assert different.drop.tolist() == [False, False]
    assert different.layer.tolist() == [0, 1]


def test_own_vertices_in_the_same_places_count() -> None:
    noise = 1e-6
    moved = (np.array(SQUARE) + noise).tolist()
    result = plan(make(SQUARE + moved, [*HALVES, [4, 5, 6], [4, 6, 7]]))
    assert result.drop.tolist() == [False, False, True, True]


def test_faces_farther_apart_than_the_tolerance_are_different() -> None:
    moved = np.add(SQUARE, [0, 0, 1e-3]).tolist()
    result = plan(make(SQUARE + moved, [*HALVES, [4, 5, 6], [4, 6, 7]]))
    assert not result.drop.any()
    assert not result.layer.any()


@pytest.mark.parametrize("turned", [False, True])
def test_overlaps_with_other_corners_are_moved_apart(turned: bool) -> None:
    other = [[0, 1, 3], [1, 2, 3]]
    result = plan(make(SQUARE, HALVES + ([face[::-1] for face in other] if turned else other)))
    assert not result.drop.any()
    assert result.layer.tolist() == [0, 0, 1, 1]
    assert result.doubled.all()


def test_three_overlapping_sheets_get_three_layers() -> None:
    small = [[0.2, 0.2, 0], [0.5, 0.2, 0], [0.5, 0.5, 0], [0.3, 0.25, 0], [0.45, 0.25, 0], [0.45, 0.4, 0]]
    result = plan(make(SQUARE + small, [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    assert result.layer.tolist() == [0, 1, 2]


def test_planes_in_any_direction_are_found() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
        positions = ((np.array(SQUARE) - 0.5) @ rotation.T + random.normal(size=3) * 0.3).tolist()
        result = plan(make(positions, [*HALVES, [0, 1, 3], [1, 2, 3]]))
        assert result.layer.tolist() == [0, 0, 1, 1]


def test_overlaps_agree_with_a_test_of_points() -> None:
    """Random triangles of one plane overlap where a dense grid has a point in both."""
    random = np.random.default_rng(1)
    triangles = random.uniform(0, 1, (40, 3, 2))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 201)] * 2), -1).reshape(-1, 2)
    inside = np.stack([_inside(grid, triangle) for triangle in triangles])
    positions = np.concatenate([triangles.reshape(-1, 2), np.zeros((120, 1))], 1)
    result = plan(make(positions.tolist(), np.arange(120).reshape(-1, 3).tolist()))
    shared = (inside[:, None] & inside[None]).sum(2) > 8
    np.fill_diagonal(shared, val=False)
    assert (result.doubled | ~shared.any(1)).all()  # those with common points are found
    assert not result.doubled[~shared.any(1) & (inside.sum(1) > 400)].any()


def _inside(points: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    sides = []
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        sides.append((b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0]))
    signs = np.stack(sides)
    return (signs > 0).all(0) | (signs < 0).all(0)


def test_a_closed_flat_grid_has_no_overlaps() -> None:
    n = 20
    places = np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"), -1).reshape(-1, 2) / n
    first = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
    polygons = [*np.stack([first, first + 1, first + n + 2], 1), *np.stack([first, first + n + 2, first + n + 1], 1)]
    result = plan(make(np.column_stack([places, np.zeros(len(places))]).tolist(), [p.tolist() for p in polygons]))
    assert not result.doubled.any()


def test_area_vectors_are_normals_times_areas() -> None:
    faces = make([*SQUARE, [0, 0, 2]], [[0, 1, 2, 3], [0, 1, 4], [2, 1, 0]])
    np.testing.assert_allclose(area_vectors(faces), [[0, 0, 1], [0, -1, 0], [0, 0, -0.5]])


def overlaps_by_clipping(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two counter-clockwise triangles [3, 2] overlap: clip one by the sides of the other."""
    points = list(first)
    for start, end in zip(second, np.roll(second, -1, 0), strict=True):
        normal = np.array([start[1] - end[1], end[0] - start[0]])
        heights = [float((point - start) @ normal) for point in points]
        clipped = []
        for number, (point, height) in enumerate(zip(points, heights, strict=True)):
            before, height_before = points[number - 1], heights[number - 1]
            if (height > 0) != (height_before > 0):
                clipped.append(before + (point - before) * (height_before / (height_before - height)))
            if height > 0:
                clipped.append(point)
        points = clipped
    return len(points) > 2


def test_overlaps_in_a_plane_are_those_that_clipping_finds() -> None:
    rng = np.random.default_rng(0)
    flat = rng.uniform(0, 1, (40, 1, 2)) + rng.uniform(-0.1, 0.1, (40, 3, 2))
    sides = flat[:, 1:] - flat[:, :1]
    turned = sides[:, 0, 0] * sides[:, 1, 1] < sides[:, 0, 1] * sides[:, 1, 0]
    flat[turned] = flat[turned][:, ::-1]
    positions = np.concatenate([flat.reshape(-1, 2), np.zeros((120, 1))], 1)
    shrunk = flat + SHRINK * (flat.mean(1, keepdims=True) - flat)
    expected = np.zeros(40, bool)
    for a in range(40):
        expected[a] = any(a != b and overlaps_by_clipping(shrunk[a], shrunk[b]) for b in range(40))
    assert 5 < expected.sum() < 38
    result = plan(make(positions.tolist(), np.arange(120).reshape(40, 3).tolist()))
    np.testing.assert_array_equal(result.doubled, expected)
    above = positions + [0, 0, 3 * SAME_PLANE] * np.repeat(np.arange(40), 3)[:, None]  # each in its own plane
    assert not plan(make(above.tolist(), np.arange(120).reshape(40, 3).tolist())).doubled.any()


def test_overlaps_are_tested_in_the_plane_of_each_pair() -> None:
    """Triangles in three tilted planes, in mixed order: only those of one plane are compared, along its own axes.

    The planes are perpendicular to each other: with the normal of a plane at another angle, the axes of the test would
    still separate the same triangles.
    """
    rng = np.random.default_rng(3)
    flat = rng.uniform(0, 1, (160, 1, 2)) + rng.uniform(-0.1, 0.1, (160, 3, 2))
    sides = flat[:, 1:] - flat[:, :1]
    turned = sides[:, 0, 0] * sides[:, 1, 1] < sides[:, 0, 1] * sides[:, 1, 0]
    flat[turned] = flat[turned][:, ::-1]
    plane = rng.integers(0, 3, 160)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotations = np.stack([np.roll(axes, turns, 1) for turns in range(3)])
    points = np.einsum("tij,tkj->tki", rotations[plane][:, :, :2], flat) + 0.2 * rotations[plane][:, None, :, 2]
    shrunk = flat + SHRINK * (flat.mean(1, keepdims=True) - flat)
    expected = np.zeros(160, bool)
    for a in range(160):
        others = np.flatnonzero((plane == plane[a]) & (np.arange(160) != a))
        expected[a] = any(overlaps_by_clipping(shrunk[a], shrunk[b]) for b in others)
    assert 20 < expected.sum() < 140
    result = plan(make(points.reshape(-1, 3).tolist(), np.arange(480).reshape(160, 3).tolist()))
    np.testing.assert_array_equal(result.doubled, expected)
