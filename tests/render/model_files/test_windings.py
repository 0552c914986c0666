"""Faces in both windings on the same vertices."""

import numpy as np

from render.model_files.windings import reversed_twins


def test_twins_on_the_same_vertices_are_those_of_opposite_winding() -> None:
    corners = np.array([0, 1, 2, 2, 1, 0, 0, 2, 3, 2, 3, 0, 4, 5, 6])
    assert reversed_twins(corners, np.arange(0, 15, 3)).tolist() == [True, True, False, False, False]
    assert reversed_twins(np.empty(0, int), np.empty(0, int)).tolist() == []
