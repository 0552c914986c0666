"""Shorter schedules change only what their names say, and keep the order of the phases."""

from dataclasses import replace

from benchmarks.distill.schedules import SCHEDULES, shortened
from distill.sds.schedule import PRESETS, timestep_range


def test_the_full_schedule_is_that_of_the_preset():
    for settings in PRESETS.values():
        assert shortened(settings, "full") == settings


def test_fast_is_half_the_steps_of_the_same_schedule():
    paper = PRESETS["paper"]
    fast = shortened(paper, "fast")
    assert fast == replace(paper, steps=5000)
    for step in (0, 1000, 4999):
        assert timestep_range(fast, step) == timestep_range(paper, 2 * step)


def test_timesteps_of_fast_anneal_fall_faster():
    fast, annealed = (shortened(PRESETS["paper"], name) for name in ("fast", "fast-anneal"))
    assert timestep_range(annealed, 3000) == (20, 500)
    assert timestep_range(fast, 3000)[1] > 500


def test_all_schedules_are_shorter_and_valid():
    for name in SCHEDULES.keys() - {"full"}:
        settings = shortened(PRESETS["tiny"], name)
        assert 2 <= settings.steps < PRESETS["tiny"].steps
        assert 0 < settings.coarse_fraction < 1
