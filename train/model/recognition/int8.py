"""Matrices whose rows are rounded to int8, with a scale per row."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_LEVELS: Final = 127


@dataclass(frozen=True)
class Int8Rows:
    """A matrix [m, c] whose entries are `integers` multiplied by the scale of their row."""

    integers: Tensor  # [m, c], int8
    scale: Tensor  # [m], float32

    def values(self) -> Tensor:
        """Return the matrix [m, c], float32."""
        return self.integers.float() * self.scale[:, None]

    def is_consistent(self) -> bool:
        """Return whether the types and shapes of both tensors fit together."""
        shapes = self.integers.ndim == 2 and self.scale.shape == self.integers.shape[:1]
        return shapes and self.integers.dtype == torch.int8


def round_rows(matrix: Tensor) -> Int8Rows:
    """Round a matrix [m, c]. The error of an entry is at most 1/254 of the largest absolute value of its row."""
    scale = (matrix.float().abs().amax(1) / _LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return Int8Rows((matrix.float() / scale[:, None]).round().to(torch.int8), scale)
