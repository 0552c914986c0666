"""Export the progress of a run as Prometheus metrics, which Ray's dashboard can display.

    ray_isotropic3d_render_objects_ended_total{status="ok"}   objects of this run by status (ok, failed, skipped)
    ray_isotropic3d_render_objects                            objects of the whole set
    ray_isotropic3d_render_objects_left                       objects without a result
    ray_isotropic3d_render_objects_per_second                 rate over the last minute

Each metric has the label `set`, the URL of the shard set. Ray adds the prefix "ray_" and, for counters, the suffix
"_total".
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 60.0
PREFIX: Final = "isotropic3d_render_"


class Rate:
    """The number of events per second over the last `window_s` seconds.

    In the first `window_s` seconds, the rate is the average since this instance was created.
    """

    def __init__(self, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._clock, self._started = window_s, clock, clock()
        self._events: deque[tuple[float, int]] = deque()
        self._count = 0

    def add(self, events: int) -> None:
        self._events.append((self._clock(), events))
        self._count += events

    def per_second(self) -> float:
        now = self._clock()
        while self._events and self._events[0][0] < now - self._window_s:
            self._count -= self._events.popleft()[1]
        elapsed = min(self._window_s, now - self._started)
        return self._count / elapsed if elapsed > 0 else 0.0


class ProgressMetrics:
    """The metrics of one run. Background threads of Ray export their values, so a connection to Ray is required."""

    def __init__(self, shards: str, total: int, ended: int) -> None:
        """Create the metrics of a set of `total` objects, `ended` of which already have an outcome."""
        from ray.util.metrics import Counter, Gauge

        self._tags, self._left, self._rate = {"set": shards}, total - ended, Rate()
        keys = ("set",)
        self._ended = Counter(f"{PREFIX}objects_ended", "objects of this run, by how they ended", (*keys, "status"))
        self._left_gauge = Gauge(f"{PREFIX}objects_left", "objects of the set that have not ended", keys)
        self._rate_gauge = Gauge(f"{PREFIX}objects_per_second", "objects that ended, over the last minute", keys)
        Gauge(f"{PREFIX}objects", "objects of the set", keys).set(total, self._tags)
        self._left_gauge.set(self._left, self._tags)

    def update(self, ok: int = 0, failed: int = 0, skipped: int = 0) -> None:
        """Count the objects that were rendered (`ok`), failed or were skipped since the last call of this method.

        Call this method even if no object has ended, so that the rate falls to zero when the run stalls.
        """
        for status, count in (("ok", ok), ("failed", failed), ("skipped", skipped)):
            if count:
                self._ended.inc(count, {**self._tags, "status": status})
        self._left -= ok + failed + skipped
        self._rate.add(ok + failed + skipped)
        self._left_gauge.set(self._left, self._tags)
        self._rate_gauge.set(self._rate.per_second(), self._tags)
