"""The images in examples/ need no notice, and their README lists all of them."""

import re

import pytest

from dataset.images.prepare import prepare_image
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, split_of
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
PICTURES = sorted(EXAMPLES.glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_it_is_a_cut_out_that_is_named(picture):
    assert f"`{picture.name}`" in (EXAMPLES / "README.md").read_text()
    prepared = prepare_image(picture, 64)
    assert prepared.notices == ()
    assert 0.1 < (prepared.rgba[..., 3] > 0).mean() < 0.9


def test_the_renders_are_of_test_objects():
    names = re.findall(r"`(?:procedural)?(-[a-z]+-\d{6})`", (EXAMPLES / "README.md").read_text())
    assert len(names) == 8
    assert {split_of(f"procedural{name}", VALIDATION_SHARE, TEST_SHARE) for name in names} == {"test"}
