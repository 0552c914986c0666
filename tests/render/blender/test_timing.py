"""Seconds by part, and the moments that Blender's handlers report."""

import pytest

from render.blender import timing
from render.blender.timing import PARTS, PartTimer, RenderClock


@pytest.fixture
def clock(monkeypatch):
    """A clock that says what is put into it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_parts_add_up(clock):
    timer = PartTimer()
    for seconds in (2.0, 3.0):
        with timer.part("import"):
            clock[0] += seconds
    assert timer.rounded() == {**dict.fromkeys(PARTS, 0.0), "import": 5.0}


def test_an_error_is_timed_too(clock):
    timer = PartTimer()

    def late_failure():
        with timer.part("light"):
            clock[0] += 1.0
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        late_failure()
    assert timer.seconds["light"] == 1.0


def test_a_rendering_is_split_at_its_first_sample_and_at_its_end(clock):
    rendering, timer = RenderClock(), PartTimer()
    rendering.start()
    for seconds, status in ((1.0, "Updating Images"), (2.0, "Scene | Sample 0/24"), (3.0, "Scene | Sample 0/24")):
        clock[0] += seconds
        rendering.on_status(status)
    rendering.on_post(None)
    clock[0] += 4.0
    rendering.add_to(timer)
    assert (timer.seconds["sync"], timer.seconds["sample"], timer.seconds["write"]) == (3.0, 3.0, 4.0)


def test_without_a_status_line_nothing_counts_as_sampling(clock):
    rendering, timer = RenderClock(), PartTimer()
    rendering.start()
    clock[0] += 2.0
    rendering.on_post()
    rendering.add_to(timer)
    assert (timer.seconds["sync"], timer.seconds["sample"]) == (2.0, 0.0)
