"""Pictures of passes: colors of known values, and a white background."""

import numpy as np
import pytest

from dataset.report.pass_pictures import pass_picture


def test_near_is_light_far_is_dark_and_the_background_white():
    picture = pass_picture("depth", np.float32([[0, 1.5], [2.0, 2.5]]))
    assert picture[..., 0].tolist() == [[255, 230], [134, 38]]
    assert (picture[..., :1] == picture).all()


def test_equal_and_missing_depths_are_drawn():
    assert pass_picture("depth", np.full((2, 2), 1.5, np.float32)).tolist() == [[[230] * 3] * 2] * 2
    assert (pass_picture("depth", np.zeros((2, 2), np.float32)) == 255).all()


@pytest.mark.parametrize("name", ["normal", "camera-normal", "position"])
def test_axes_are_red_green_and_blue(name):
    vectors = np.float32([[[1, 0, -1], [np.nan] * 3]])
    assert pass_picture(name, vectors).tolist() == [[[255, 128, 0], [255, 255, 255]]]


def test_albedo_is_encoded_and_material_is_not():
    values = np.float32([[[0, 0.5, 1], [0, 0, 0]]])
    assert pass_picture("albedo", values).tolist() == [[[0, 188, 255], [255, 255, 255]]]
    assert pass_picture("material", values).tolist() == [[[0, 128, 255], [255, 255, 255]]]


def test_black_surfaces_are_black_where_the_surface_is_known():
    covered = np.array([[True, False]])
    assert pass_picture("albedo", np.zeros((1, 2, 3), np.float32), covered).tolist() == [[[0] * 3, [255] * 3]]


def test_a_mask_is_white_on_black():
    assert pass_picture("mask", np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
