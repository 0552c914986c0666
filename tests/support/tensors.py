"""Comparison of named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor


def assert_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that both have the same names and, as float32, the same values."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.float()), name
