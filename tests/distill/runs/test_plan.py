"""The preset that a model gets without --preset, and the digest of a model."""

import hashlib
from pathlib import Path

import pytest

from distill.runs.plan import default_preset, model_digest
from train.config.presets import EMBEDDED, PAPER, TINY


@pytest.mark.parametrize(
    ("image_size", "preset"), [(TINY.image_size, "tiny"), (EMBEDDED.image_size, "tiny"), (PAPER.image_size, "paper")]
)
def test_small_models_get_the_preset_tiny(image_size: int, preset: str) -> None:
    assert default_preset(image_size) == preset


def test_the_digest_covers_names_and_contents_of_all_files_with_an_effect(tmp_path: Path) -> None:
    for name in ("unet/config.json", "unet/weights", "image_tower/weights", "known/known.json", "other/weights"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = hashlib.sha256()
    for name in ("unet/config.json", "unet/weights", "image_tower/weights", "known/known.json"):
        expected.update(name.encode() + hashlib.sha256(name.encode()).digest())
    assert model_digest(tmp_path) == expected.hexdigest()
