"""The request of a run: what is stored of it, and what its hash depends on."""

from dataclasses import replace

from distill.config import DistillRequest
from distill.sds.schedule import PRESETS, newer_settings

TINY = DistillRequest("image", "model", "tiny", 15.0, 3.0, PRESETS["tiny"])
PAPER = DistillRequest("image", "model", "paper", 15.0, 10.0, PRESETS["paper"])


def test_newer_settings_are_stored_unless_they_are_as_before():
    """Runs of the preset tiny resume from older folders; those of the preset paper are recognized as different."""
    tiny, paper = TINY.as_json()["settings"], PAPER.as_json()["settings"]
    assert "low_elevation_probability" not in tiny["cameras"]
    assert "alpha_threshold" not in tiny["march"]
    assert paper["cameras"]["low_elevation_probability"] == 0.5
    assert paper["march"]["alpha_threshold"] == 0.01


def test_evaluations_store_newer_settings_only():
    assert newer_settings(PRESETS["tiny"]) == {}
    assert newer_settings(PRESETS["paper"]) == {"cameras.low_elevation_probability": 0.5, "march.alpha_threshold": 0.01}


def test_newer_settings_change_the_hash():
    cameras = replace(TINY.settings.cameras, low_elevation_probability=0.5)
    march = replace(TINY.settings.march, alpha_threshold=0.01)
    others = [replace(TINY.settings, cameras=cameras), replace(TINY.settings, march=march)]
    assert len({TINY.sha256, *(replace(TINY, settings=settings).sha256 for settings in others)}) == 3
