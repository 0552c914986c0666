"""Stray faces, which do not affect the size of an object."""

import numpy as np

from render.blender.geometry.coincident import Faces
from render.blender.geometry.strays import stray_faces, surfaces


def boxes(*boxes_: tuple[tuple[float, float, float], float]) -> Faces:
    """Return cubes of six squares each, given by center and side."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    positions = np.concatenate([corners * side + center for center, side in boxes_])
    polygons = np.concatenate([np.array(sides) + 8 * k for k in range(len(boxes_))]).reshape(-1)
    starts = np.arange(0, len(polygons), 4)
    return Faces(positions, polygons, starts, np.zeros(len(starts), int), np.zeros((len(polygons), 0)))


def test_a_tiny_part_far_away_is_a_stray() -> None:
    faces = boxes(((0, 0, 0), 1), ((100, 0, 0), 0.02))
    assert stray_faces(faces).tolist() == [False] * 6 + [True] * 6


def test_a_larger_part_is_not_a_stray() -> None:
    assert not stray_faces(boxes(((0, 0, 0), 1), ((100, 0, 0), 0.1))).any()  # 1 % of the area


def test_a_small_part_nearby_is_not_a_stray() -> None:
    assert not stray_faces(boxes(((0, 0, 0), 1), ((1.2, 0, 0), 0.02))).any()


def test_an_ordinary_object_has_no_strays() -> None:
    assert not stray_faces(boxes(((0, 0, 0), 1))).any()
    assert not stray_faces(Faces(np.empty((0, 3)), *[np.empty(0, int)] * 3, np.empty((0, 0)))).any()


def test_faces_that_touch_form_a_surface() -> None:
    label = surfaces(boxes(((0, 0, 0), 1), ((1, 0, 0), 1), ((5, 0, 0), 1)))  # the first two share a side's corners
    assert label.tolist() == [label[0]] * 12 + [label[12]] * 6
    assert label[0] != label[12]
