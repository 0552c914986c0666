"""Measure the wall time of each part of rendering an object, partly from Cycles' status lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# import: file -> scene. light: environment map. sync: scene -> Cycles, until its first sample. sample: sampling and
# denoising, which Cycles' status lines do not separate (benchmarks.render.denoise_share does, by leaving the denoiser
# out). write: picture -> file -> array -> WebP.
PARTS: Final = ("import", "light", "sync", "sample", "write")


class Stopwatch:
    """Adds up the seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in self.seconds.items()}


class RenderClock:
    """The moments of one rendering: called, first sample, picture done. The `on_` methods are Blender's handlers."""

    def __init__(self) -> None:
        self.called = self.sampling = self.done = time.perf_counter()
        self._waits = False

    def start(self) -> None:
        self.called = self.sampling = self.done = time.perf_counter()
        self._waits = True

    def on_status(self, status: str, *_: object) -> None:
        if self._waits and "Sample 0/" in status:
            self.sampling, self._waits = time.perf_counter(), False

    def on_post(self, *_: object) -> None:
        self.done = time.perf_counter()

    def add_to(self, watch: Stopwatch) -> None:
        """Book the rendering that has just returned; a status line that never came leaves all of it in `sync`."""
        if self._waits:
            self.sampling = self.done
        watch.seconds["sync"] += self.sampling - self.called
        watch.seconds["sample"] += self.done - self.sampling
        watch.seconds["write"] += time.perf_counter() - self.done
