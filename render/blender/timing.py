"""Measure the wall time of each part of rendering an object, partly from Cycles' status lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# import: file -> scene. light: environment map. sync: scene -> Cycles, until its first sample. sample: sampling and
# denoising, which Cycles' status lines do not separate (benchmarks.render.denoise_share separates them by disabling
# the denoiser). write: image -> file -> array -> WebP. passes: rendering and reading the passes.
PARTS: Final = ("import", "light", "sync", "sample", "write", "passes")


class PartTimer:
    """Adds up the wall time in seconds of each named part of a rendering."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the wall time of the `with` block to the part `name`, one of PARTS."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def rounded(self) -> dict[str, float]:
        """Return a mapping: name of the part -> wall time in seconds, rounded to 0.1 ms."""
        return {name: round(value, 4) for name, value in self.seconds.items()}


class RenderClock:
    """Records when a rendering starts, takes its first sample and ends.

    The methods `on_status` and `on_post` are handlers that Blender calls during the rendering.
    """

    def __init__(self) -> None:
        self.called = self.sampling = self.done = time.perf_counter()
        self._waiting = False

    def start(self) -> None:
        """Record the start time. Call this method just before the rendering."""
        self.called = self.sampling = self.done = time.perf_counter()
        self._waiting = True

    def on_status(self, status: str, *_: object) -> None:
        """Record the current time if `status` reports the first sample. Handler of Blender's event `render_stats`.

        Blender calls this method with each new status line of Cycles.
        """
        if self._waiting and "Sample 0/" in status:
            self.sampling, self._waiting = time.perf_counter(), False

    def on_post(self, *_: object) -> None:
        """Record the current time: the image is finished. Handler of Blender's event `render_post`."""
        self.done = time.perf_counter()

    def add_to(self, timer: PartTimer) -> None:
        """Add the durations of the last rendering to the parts `sync`, `sample` and `write` of `timer`.

        If Cycles did not report a first sample, the whole time until the image was finished counts as `sync`.
        """
        if self._waiting:
            self.sampling = self.done
        timer.seconds["sync"] += self.sampling - self.called
        timer.seconds["sample"] += self.done - self.sampling
        timer.seconds["write"] += time.perf_counter() - self.done
