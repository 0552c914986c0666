"""The preset that a model gets without --preset."""

import pytest

from distill.runs.plan import default_preset
from train.config.presets import EMBEDDED, PAPER, TINY


@pytest.mark.parametrize(
    ("image_size", "preset"), [(TINY.image_size, "tiny"), (EMBEDDED.image_size, "tiny"), (PAPER.image_size, "paper")]
)
def test_small_models_get_the_preset_tiny(image_size: int, preset: str) -> None:
    assert default_preset(image_size) == preset
