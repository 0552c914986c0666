"""Collect features of rendered objects of known kinds, from which the judge learns to name images.

Axis letters: `n` renders, `d` features.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dataset.errors import UserError, one_line
from dataset.format.schema import ALL_VIEWS, VIEWS_PER_SET
from dataset.images.prepare import composite_white
from dataset.io.files import write_file_atomic
from dataset.io.progress import ProgressBar
from dataset.reading.rendered_object import Place
from dataset.reading.shard_set import ShardSet
from distill.evaluate.photos.judge import Judge
from distill.evaluate.photos.rules import TITLES, LabelledFeatures, RuleName, Score, accuracy, best_rule, fit, ranking
from train.evaluate.tables import kind_of

logger = logging.getLogger(__name__)

OTHER: Final = "other"  # what `kind_of` returns for objects that are not procedural
_HELD_OUT_PERIOD: Final = 5  # one in so many objects of a kind is held out to choose the rule
_KEY_LENGTH: Final = 12


@dataclass(frozen=True)
class RenderedKind:
    """An object of a known kind in a shard set."""

    kind: str
    uid: str
    shards: ShardSet
    place: Place


@dataclass(frozen=True)
class ClassBank:
    """Features of all renders, in the order of their objects, and the uid of each render's object [n]."""

    renders: LabelledFeatures
    uids: tuple[str, ...]

    @property
    def objects(self) -> dict[str, int]:
        """The number of objects of each kind, in the order of the labels."""
        first = dict(zip(self.uids, self.renders.labels.tolist(), strict=True))
        counts = Counter(first.values())
        return {kind: counts[label] for label, kind in enumerate(self.renders.kinds)}

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which renders [n] are held out to choose the rule: all renders of every fifth object of each kind."""
        rank: dict[str, int] = {}
        counts: dict[int, int] = defaultdict(int)
        for uid, label in zip(self.uids, self.renders.labels.tolist(), strict=True):
            if uid not in rank:
                rank[uid] = counts[label]
                counts[label] += 1
        return np.array([rank[uid] % _HELD_OUT_PERIOD == 1 for uid in self.uids], bool)


@dataclass(frozen=True)
class FittedRules:
    """The rules fitted to all renders, and the rule that is best on held-out renders.

    The accuracies are those of the same rules fitted without the held-out renders: for single renders, and for objects,
    where the scores of all renders of an object are averaged.
    """

    scores: Mapping[RuleName, Score]
    accuracies: Mapping[RuleName, float]
    object_accuracies: Mapping[RuleName, float]
    held_out: int  # renders
    best: RuleName


def fit_rules(bank: ClassBank, device: torch.device | str = "cpu") -> FittedRules:
    """Fit all rules, first without the held-out renders to measure their accuracy, then to all renders."""
    held_out = bank.held_out
    rest, tested = bank.renders.where(~held_out), bank.renders.where(held_out)
    tested_uids = np.array(bank.uids)[held_out]
    accuracies, object_accuracies = dict[RuleName, float](), dict[RuleName, float]()
    for rule in TITLES:
        score = fit(rule, rest, device)
        accuracies[rule] = accuracy(score, tested)
        right = [_names_object(score, tested.where(tested_uids == uid)) for uid in dict.fromkeys(tested_uids.tolist())]
        object_accuracies[rule] = float(np.mean(right)) if right else float("nan")
    scores: dict[RuleName, Score] = {rule: fit(rule, bank.renders, device) for rule in TITLES}
    return FittedRules(scores, accuracies, object_accuracies, int(held_out.sum()), best_rule(accuracies))


def _names_object(score: Score, renders: LabelledFeatures) -> bool:
    """Return whether a rule names an object right from the renders of this one object."""
    return bool(ranking(score, renders.features)[0] == renders.labels[0])


def select_renders(sets: Sequence[ShardSet], kinds: Mapping[str, str], limit: int) -> list[RenderedKind]:
    """Return objects of known kinds in shard sets, at most `limit` per kind, chosen by a hash of their uids.

    Args:
        sets: The shard sets.
        kinds: Kinds by uid, of objects whose uid does not contain the kind.
        limit: Maximum number of objects per kind.

    Raises:
        UserError: the sets have objects of fewer than two known kinds.
    """
    found: dict[str, dict[str, RenderedKind]] = defaultdict(dict)
    for shards in sets:
        for shard, samples in enumerate(shards.samples_per_shard):
            for sample in range(samples):
                uid = shards.uid(shard, sample)
                kind = kinds.get(uid, kind_of(uid))
                if kind != OTHER:
                    found[kind].setdefault(uid, RenderedKind(kind, uid, shards, (shard, sample)))
    if len(found) < 2:
        raise UserError(
            f"the shard sets {', '.join(each.url for each in sets)} have objects of {len(found)} known kinds, and the "
            "judge needs two or more; give a procedural set, or the kinds of the objects with --labels"
        )
    return [
        each
        for kind in sorted(found)
        for each in sorted(found[kind].values(), key=lambda each: stable_hash(each.uid))[:limit]
    ]


def stable_hash(text: str) -> str:
    """Return the SHA-256 (hexadecimal) of a text, to order texts in a way that does not depend on their meaning."""
    return hashlib.sha256(text.encode()).hexdigest()


def open_bank(
    judge: Judge, objects: Sequence[RenderedKind], views: int, folder: Path, weights_sha256: str
) -> ClassBank:
    """Read the features of rendered objects from a file, or compute and store them.

    Args:
        judge: The network.
        objects: The objects.
        views: Number of random views of each object.
        folder: Folder of the file. Its name contains a hash of all inputs.
        weights_sha256: SHA-256 of the weights of the judge.
    """
    sets = list(dict.fromkeys(each.shards for each in objects))
    listed = [[each.kind, each.uid, sets.index(each.shards)] for each in objects]
    inputs = [weights_sha256, judge.size, views, [shards.fingerprint for shards in sets], listed]
    path = folder / f"judge-{stable_hash(json.dumps(inputs))[:_KEY_LENGTH]}.safetensors"
    features = _read(path, len(objects) * views)
    if features is None:
        features = _computed(judge, objects, views)
        write_file_atomic(path, save({"features": torch.from_numpy(features)}))
    kinds = tuple(sorted({each.kind for each in objects}))
    labels = np.repeat([kinds.index(each.kind) for each in objects], views).astype(np.int64)
    return ClassBank(
        LabelledFeatures(features, labels, kinds), tuple(each.uid for each in objects for _ in range(views))
    )


def _computed(judge: Judge, objects: Sequence[RenderedKind], views: int) -> NDArray[np.float32]:
    spread = [ALL_VIEWS[VIEWS_PER_SET + i * VIEWS_PER_SET // views] for i in range(views)]
    parts = []
    for each in ProgressBar(objects, desc="judge", unit="object"):
        parts.append(judge.features(composite_white(each.shards.views(*each.place, spread))))
    features: NDArray[np.float32] = np.concatenate(parts)
    return features


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            features: NDArray[np.float32] = file.get_tensor("features")
    except (OSError, SafetensorError) as error:
        logger.warning("%s is damaged (%s); its features are computed again", path, one_line(error))
        return None
    return features if len(features) == count else None
