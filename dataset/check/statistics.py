"""Compute statistics of the outcome rows of a set. Rows are added one at a time and are not kept in memory."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from dataset.format.outcomes import Outcome


@dataclass
class Distribution:
    """One value per object of a measured quantity, such as the render time, and the object with the largest value."""

    values: "array[float]" = field(default_factory=lambda: array("d"))
    largest: float = 0.0
    largest_uid: str = ""

    def add(self, uid: str, value: float) -> None:
        self.values.append(value)
        if not self.largest_uid or value > self.largest:
            self.largest, self.largest_uid = value, uid

    def percentile(self, q: float) -> float:
        """Return the percentile `q`, 0 to 100, of the values; `q` = 50 is the median. Without values, return 0."""
        return float(np.percentile(np.asarray(self.values), q)) if self.values else 0.0


@dataclass
class OutcomeCounts:
    """Counts of objects by status, reason and flag, and the render time and memory use of each object.

    Skipped objects have neither a render time nor a memory use.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # by `reason`
    skips: Counter[str] = field(default_factory=Counter)  # by `reason`
    flags: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    seconds: Distribution = field(default_factory=Distribution)
    peak_rss_mb: Distribution = field(default_factory=Distribution)

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
    def objects_per_hour(self) -> float:
        """Rendered objects per hour of one worker, counting the time of failed objects; 0 if no time was measured."""
        total = sum(self.seconds.values)
        return 3600 * self.statuses["ok"] / total if total else 0.0


def reason(row: Outcome) -> str:
    """Return a short text that says why an object failed or was skipped, such as "import: TooLarge".

    The text consists of the stage and the error class. If there is no error class, the text contains the flags instead;
    if there are no flags either, it contains the message. Reports group objects by this text.
    """
    return f"{row.stage or 'unknown'}: {row.error_class or ', '.join(row.flags) or row.message or 'unknown'}"
