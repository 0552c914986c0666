"""Matrices rounded to int8 by rows."""

import torch

from train.model.recognition.int8 import Int8Rows, round_rows


def test_rounding_changes_an_entry_by_at_most_half_a_step_of_its_row():
    matrix = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    matrix[1] *= 1000
    matrix[2] = 0
    rounded = round_rows(matrix)
    error = (rounded.values() - matrix).abs().amax(1)
    assert bool((error <= matrix.abs().amax(1) / 127 * 0.501).all())
    assert rounded.integers.dtype == torch.int8
    assert bool((rounded.integers[[0, 1, 3, 4]].abs().amax(1) == 127).all())


def test_shapes_that_do_not_fit_are_found():
    assert round_rows(torch.ones(2, 3)).is_consistent()
    assert not Int8Rows(torch.ones(2, 3, dtype=torch.int8), torch.ones(3)).is_consistent()
    assert not Int8Rows(torch.ones(2, dtype=torch.int8), torch.ones(2)).is_consistent()
    assert not Int8Rows(torch.ones(2, 3), torch.ones(2)).is_consistent()
