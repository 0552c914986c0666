"""Outcome rows in numbers: added one at a time, none of them kept."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from dataset.format.outcomes import Outcome


@dataclass
class Measured:
    """One number an object, 8 bytes each (percentiles need them all), and which object has the largest."""

    values: "array[float]" = field(default_factory=lambda: array("d"))
    largest: float = 0.0
    largest_uid: str = ""

    def add(self, uid: str, value: float) -> None:
        self.values.append(value)
        if not self.largest_uid or value > self.largest:
            self.largest, self.largest_uid = value, uid

    def percentile(self, q: float) -> float:
        """0 when nothing was measured."""
        return float(np.percentile(np.asarray(self.values), q)) if self.values else 0.0


@dataclass
class Tally:
    """Counters of objects; what was measured of those that were tried, that is not skipped."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # by `reason`
    skips: Counter[str] = field(default_factory=Counter)  # by `reason`
    flags: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    seconds: Measured = field(default_factory=Measured)
    peak_rss_mb: Measured = field(default_factory=Measured)

    def add(self, row: Outcome) -> None:
        self.statuses[row.status] += 1
        self.flags.update(row.flags)
        if row.status == "skipped":
            self.skips[reason(row)] += 1
            return
        if row.status == "failed":
            self.failures[reason(row)] += 1
        self.attempts[row.attempts] += 1
        self.seconds.add(row.uid, row.seconds)
        self.peak_rss_mb.add(row.uid, row.peak_rss_mb)

    @property
    def objects_an_hour(self) -> float:
        """Finished objects an hour of one worker's time, what failed ones took included; 0 when none was taken."""
        total = sum(self.seconds.values)
        return 3600 * self.statuses["ok"] / total if total else 0.0


def reason(row: Outcome) -> str:
    """Why an object has no sample, as a group that objects share: "stage: error class", for a skipped one its flags."""
    return f"{row.stage or 'unknown'}: {row.error_class or ', '.join(row.flags) or row.message or 'unknown'}"
