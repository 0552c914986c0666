"""Collect what the report of a shard set shows of the scores that `python -m dataset curate` computed."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dataset.format.scores import ObjectScores

NEAR_DUPLICATE: Final = "near-duplicate"
_ORDERED: Final = {  # name on the page -> score
    "texture": "texture",
    "contrast": "contrast",
    "flatness": "flatness",
    "symmetry": "symmetry",
    "views": "distinct_views",
}
_PLOTTED: Final = ("texture", "contrast", "flatness", "symmetry", "distinct_views")


@dataclass(frozen=True)
class TileScores:
    """The scores of one object, as shown in its tile.

    Attributes:
        scores: The scores.
        labels: Of "empty", "flat" and "near-duplicate" those that apply.
        cluster: Number of the object's cluster of near-duplicates, counted from 0; None if it is alone.
    """

    scores: ObjectScores
    labels: tuple[str, ...]
    cluster: int | None

    @property
    def summary(self) -> str:
        """The scores as one line of text."""
        return (
            f"texture {self.scores.texture:.3f}, contrast {self.scores.contrast:.2f}, "
            f"flatness {self.scores.flatness:.2f}, symmetry {self.scores.symmetry:.2f}, "
            f"{self.scores.distinct_views} of 16 views distinct"
        )


@dataclass
class ScoreStatistics:
    """The distributions of the scores of a set, and the number of objects with each label.

    Args:
        clusters: Uid of each near-duplicate -> uid of the first object of its cluster.
    """

    clusters: Mapping[str, str]
    values: dict[str, "array[float]"] = field(default_factory=lambda: {name: array("d") for name in _PLOTTED})
    labels: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._numbers = {uid: number for number, uid in enumerate(dict.fromkeys(self.clusters.values()))}

    def add(self, scores: ObjectScores) -> TileScores:
        """Add one object that has scores, and return what its tile shows."""
        for name, values in self.values.items():
            values.append(float(getattr(scores, name)))
        applies = {"empty": scores.empty, "flat": scores.flat, NEAR_DUPLICATE: scores.uid in self.clusters}
        labels = tuple(label for label, holds in applies.items() if holds)
        self.labels.update(labels)
        return TileScores(scores, labels, self._numbers.get(self.clusters.get(scores.uid, scores.uid)))


def score_data(tile: TileScores | None) -> list[tuple[str, str]]:
    """Return the values by which the page orders tiles: pairs of a name and a number as text.

    The texts are empty for an object without scores, and for the cluster of an object without near-duplicates.
    """
    if tile is None:
        return [(name, "") for name in (*_ORDERED, "cluster")]
    numbers = [(name, f"{getattr(tile.scores, column):.5g}") for name, column in _ORDERED.items()]
    return [*numbers, ("cluster", "" if tile.cluster is None else str(tile.cluster))]
