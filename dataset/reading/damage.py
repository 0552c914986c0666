"""Replace damaged objects during training. Stop training when more than a given share of the objects is damaged.

The object that replaces a damaged one depends only on the position in the training order, so a resumed run reads the
same objects.
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
    """Collects the damaged objects that a training run has read. Thread-safe.

    An object is counted once, however often it is read. An instance counts the damaged objects that its own rank reads
    and, after `merge`, also those that other ranks have read. When an instance is pickled, its count is left out: the
    copy in another process starts at zero.

    Args:
        objects: Number of objects in the set.
        max_share: Largest tolerated share of damaged objects: 0.001 allows 8 damaged objects in a set of 8,000, and
            none in a set of fewer than 1,000.

    Raises:
        UserError: `max_share` is not in [0, 1).
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
        """Uid of each damaged object, with a description of the damage."""
        with self._lock:
            return dict(self._reasons)

    def restore(self, reasons: Mapping[str, str]) -> None:
        """Add damaged objects that an earlier process of the same run has read: its `reasons`, uid -> description."""
        with self._lock:
            self._reasons = {**reasons, **self._reasons}

    def merge(self, reasons: Mapping[str, str]) -> None:
        """Add the damaged objects that the other ranks have read. `reasons` is the union of all ranks' `reasons`.

        Raises:
            UserError: In total, more objects are damaged than allowed.
        """
        before = len(self.reasons)
        self.restore(reasons)
        if len(self.reasons) > max(before, self.allowed):
            self._refuse(f"the ranks read {len(self.reasons)} damaged objects")

    def log_all(self) -> None:
        """Log the uid of every damaged object with a description of the damage. Call this at the end of a run."""
        if reasons := self.reasons:
            lines = [f"{len(reasons)} damaged objects were replaced ({self.allowed} allowed):"]
            lines += (f"  {uid}: {what}" for uid, what in sorted(reasons.items()))
            logger.warning("\n".join(lines))

    def add(self, uid: str, what: str) -> None:
        """Log and count the damaged object `uid`. `what` describes the damage.

        Raises:
            UserError: More objects are damaged than allowed.
        """
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
            f"{what}. {count} of {self.objects} objects are damaged so far ({named}), but --max-corrupt-fraction "
            f"{self.max_share:g} allows at most {self.allowed}; repair the set (`python -m dataset verify` says how) "
            "or raise --max-corrupt-fraction"
        )


def read_or_replace(
    order: Order, i: int, damage: Damage | None, uid: Callable[[int, int], str], read: Callable[[int, int, int], T]
) -> T:
    """Read item number `i` of a training order; if its object is damaged, read a replacement object instead.

    An object is replaced only if a member that `read` reads is damaged; damage in its other members does not matter.
    When the storage fails, nothing is replaced: a repeated run might succeed in reading the object and would then train
    on different objects.

    Args:
        order: The training order.
        i: Number of the item of this rank, counted from 0 since the start of training.
        damage: Counts the damaged objects. None: raise an error instead of replacing.
        uid: Function that returns the uid of an object, called as `uid(shard, sample)`.
        read: Function that reads an object, called as `read(epoch, shard, sample)`.

    Returns:
        The result of `read`.

    Raises:
        DamagedMember: A member is damaged and `damage` is None.
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
    raise UserError(
        f"the object of item {i} in the training order and {_ATTEMPTS - 1} objects to replace it are all damaged; "
        "`python -m dataset verify` says how to repair the set"
    )
