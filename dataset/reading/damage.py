"""Replace damaged objects during training, and fail when more than a given share of the objects is damaged.

The replacement of an object depends only on its position in the training order, so a resumed run reads the same
objects.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeVar

from dataset.errors import UserError
from dataset.reading.epoch_order import Order
from dataset.reading.shard_set import DamagedMember

MAX_DAMAGED_SHARE: Final = 0.001
_ATTEMPTS: Final = 100
_NAMED: Final = 5  # objects in the error message

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Damage:
    """The damaged objects that a run has read. Thread-safe; a copy in another process starts empty.

    `max_share` is the largest tolerated share of the set's objects: 0.001 allows 8 damaged objects in a set of 8,000,
    and 0 in a set of fewer than 1,000. An object is counted once, however often it is read. A rank counts the objects
    that it reads and, after `merge`, those that the other ranks read.

    Raises UserError when `max_share` is not in [0, 1).
    """

    def __init__(self, objects: int, max_share: float = MAX_DAMAGED_SHARE) -> None:
        if not 0 <= max_share < 1:
            raise UserError(f"--max-corrupt-fraction is {max_share}; it must be at least 0 and below 1")
        self.objects, self.max_share = objects, max_share
        self.allowed = int(objects * max_share + 1e-9)
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Damage"], tuple[int, float]]:
        return Damage, (self.objects, self.max_share)

    @property
    def reasons(self) -> dict[str, str]:
        """Description of the damage of each damaged object, by uid."""
        with self._lock:
            return dict(self._reasons)

    def restore(self, reasons: Mapping[str, str]) -> None:
        """Add the damaged objects of an earlier process of the same run."""
        with self._lock:
            self._reasons = {**reasons, **self._reasons}

    def merge(self, reasons: Mapping[str, str]) -> None:
        """Add the damaged objects of the other ranks. Raises UserError when there are too many in total."""
        before = len(self.reasons)
        self.restore(reasons)
        if len(self.reasons) > max(before, self.allowed):
            self._refuse(f"the ranks read {len(self.reasons)} damaged objects")

    def log_all(self) -> None:
        """Log every damaged object and what was wrong with it, at the end of a run."""
        if reasons := self.reasons:
            lines = [f"{len(reasons)} damaged objects were replaced ({self.allowed} allowed):"]
            lines += (f"  {uid}: {what}" for uid, what in sorted(reasons.items()))
            logger.warning("\n".join(lines))

    def add(self, uid: str, what: str) -> None:
        """Log and count a damaged object. Raises UserError when there are now too many."""
        with self._lock:
            known = uid in self._reasons
            self._reasons[uid] = what
            count = len(self._reasons)
        if count > self.allowed:
            self._refuse(what)
        if not known:
            logger.warning("replaced a damaged object (%d so far, %d allowed): %s", count, self.allowed, what)

    def _refuse(self, what: str) -> NoReturn:
        uids = list(self.reasons)
        count = len(uids)
        named = ", ".join(uids[:_NAMED]) + (f" and {count - _NAMED} more" if count > _NAMED else "")
        raise UserError(
            f"{what}. {count} of {self.objects} objects are damaged so far ({named}); --max-corrupt-fraction "
            f"{self.max_share:g} allows at most {self.allowed}; repair the set or raise the fraction"
        )


def read_or_replace(
    order: Order, i: int, damage: Damage | None, uid: Callable[[int, int], str], read: Callable[[int, int, int], T]
) -> T:
    """Return `read(epoch, shard, sample)` for item i of the order, or for a replacement if its object is damaged.

    An object is replaced only if a member that `read` reads is damaged; damage in its other members does not matter.
    After a storage failure, an object is not replaced: a repeated run might succeed in reading it and would then use
    different objects.

    Raises:
        DamagedMember: A member is damaged and `damage` is None, which disables replacement.
        UserError: More objects are damaged than `damage` allows, or many replacements in a row are damaged.
    """
    for attempt in range(_ATTEMPTS):
        epoch, shard, sample = order.replacement(i, attempt) if attempt else order.item(i)
        try:
            return read(epoch, shard, sample)
        except DamagedMember as error:
            if damage is None:
                raise
            damage.add(uid(shard, sample), str(error))
    raise UserError(f"item {i}: its object and {_ATTEMPTS - 1} replacements for it are all damaged; repair the set")
