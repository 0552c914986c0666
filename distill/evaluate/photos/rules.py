"""Rules that name images by their features: nearest render, class means, and a linear probe.

Each rule is fitted to features of renders with known kinds. The rule that names held-out renders best is chosen, so
that the choice does not depend on the images that are evaluated.

Axis letters: `n` images, `k` kinds, `d` features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

RuleName = Literal["nearest", "means", "probe"]
Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # features [n, d] -> scores [n, k], larger is likelier
TITLES: Final[Mapping[RuleName, str]] = {
    "nearest": "nearest render (cosine)",
    "means": "nearest class mean (cosine)",
    "probe": "linear probe (logistic regression)",
}
_WEIGHT_DECAY: Final = 1e-3
_ITERATIONS: Final = 100


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of n renders [n, d], and the number of the kind of each render [n], an index into `kinds`."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    kinds: tuple[str, ...]

    def where(self, mask: NDArray[np.bool_]) -> "LabelledFeatures":
        """Return the renders that the mask [n] selects."""
        return LabelledFeatures(self.features[mask], self.labels[mask], self.kinds)


def fit(rule: RuleName, renders: LabelledFeatures, device: torch.device | str = "cpu") -> Score:
    """Fit a rule to labelled renders. Kinds without a render get the score -inf, so they are never named.

    Args:
        rule: The rule.
        renders: The renders.
        device: Device on which the linear probe is fitted.

    Returns:
        A function of features [n, d] that returns scores [n, k].
    """
    fitted = {"nearest": _nearest, "means": _means}[rule](renders) if rule != "probe" else _probe(renders, device)
    absent = np.bincount(renders.labels, minlength=len(renders.kinds)) == 0

    def score(features: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = fitted(features)
        scores[:, absent] = -np.inf
        return scores

    return score


def _nearest(renders: LabelledFeatures) -> Score:
    order = np.argsort(renders.labels, kind="stable")
    bank = _normalized(renders.features[order]).T
    present, starts = np.unique(renders.labels[order], return_index=True)

    def score(features: NDArray[np.float32]) -> NDArray[np.float64]:
        cosines = _normalized(features) @ bank
        scores = np.full((len(features), len(renders.kinds)), -np.inf)
        scores[:, present] = np.maximum.reduceat(cosines, starts, axis=1)
        return scores

    return score


def _means(renders: LabelledFeatures) -> Score:
    sums = np.zeros((len(renders.kinds), renders.features.shape[1]))
    np.add.at(sums, renders.labels, _normalized(renders.features))
    means = _normalized(sums)
    return lambda features: _normalized(features) @ means.T


def _probe(renders: LabelledFeatures, device: torch.device | str) -> Score:
    """Fit logistic regression with weight decay to standardized features, by L-BFGS."""
    mean, deviation = renders.features.mean(0), renders.features.std(0) + 1e-6
    x = torch.from_numpy((renders.features - mean) / deviation).to(device)
    y = torch.from_numpy(renders.labels).to(device)
    weight = torch.zeros(len(renders.kinds), x.shape[1], device=device, requires_grad=True)
    bias = torch.zeros(len(renders.kinds), device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), y) + _WEIGHT_DECAY / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    matrix, offset = (tensor.detach().cpu().double().numpy() for tensor in (weight, bias))

    def score(features: NDArray[np.float32]) -> NDArray[np.float64]:
        logits = (features - mean) / deviation @ matrix.T + offset
        shifted = logits - logits.max(1, keepdims=True)
        log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return log_probabilities

    return score


def _normalized(vectors: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled.astype(np.float64)


def accuracy(score: Score, renders: LabelledFeatures) -> float:
    """Return the fraction of the renders whose kind a fitted rule names right; NaN without renders."""
    if not len(renders.labels):
        return float("nan")
    return float((score(renders.features).argmax(1) == renders.labels).mean())


def ranking(score: Score, features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the kinds [k] of one object, likeliest first, from the features [n, d] of n images of it.

    The scores of the images are averaged.
    """
    order: NDArray[np.int64] = np.argsort(-score(features).mean(0), kind="stable")
    return order


def best_rule(accuracies: Mapping[RuleName, float], order: Sequence[RuleName] = tuple(TITLES)) -> RuleName:
    """Return the rule with the highest accuracy; of several, the first in `order`. NaN counts as 0."""
    return max(order, key=lambda rule: np.nan_to_num(accuracies[rule]))
