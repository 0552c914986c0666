"""Make the projection, the representatives and the threshold of a table of known objects.

`train.model.recognition.table` describes the table. All functions are pure. Axis letters: `n` embeddings, `c` channels,
`d` dimensions after the projection.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIMENSIONS: Final = 128
SHRINKAGE: Final = 0.3
PRINCIPAL_COMPONENTS: Final = 256
MAX_REPRESENTATIVES: Final = 6500  # 1.7 MB in int8 at 256 channels
FOLDS: Final = 5
GOAL: Final = 0.8  # share of the unknown images that are to be warned about

VALIDATION: Final = "renders of validation objects"  # names of groups of images
PHOTOS: Final = "photographs of known kinds"

Floats = NDArray[np.float64]


def fit_projection(
    embeddings: Tensor, groups: Sequence[str], dimensions: int = DIMENSIONS, shrinkage: float = SHRINKAGE
) -> tuple[Tensor, Tensor]:
    """Fit a linear discriminant analysis to embeddings. Return the mean [c] and the projection [c, d], float32.

    The projection scales the covariance within groups to about the identity, and keeps the directions in which the
    groups differ most. It uses only the first PRINCIPAL_COMPONENTS principal components of the embeddings.

    Args:
        embeddings: Embeddings [n, c].
        groups: Name of the group of each embedding, such as the kind of the object.
        dimensions: Largest number of dimensions d.
        shrinkage: Multiple of the mean variance within groups that is added to each variance within groups.
    """
    values = embeddings.double().cpu()
    mean = values.mean(0)
    components = torch.linalg.eigh(torch.cov((values - mean).T, correction=0)).eigenvectors[:, -PRINCIPAL_COMPONENTS:]
    centered = (values - mean) @ components
    numbers = _numbered(groups)
    counts = torch.bincount(numbers).double()[:, None]
    centers = torch.zeros(len(counts), centered.shape[1], dtype=torch.float64).index_add_(0, numbers, centered) / counts
    deviations = centered - centers[numbers]
    within = deviations.T @ deviations / len(values)
    total = centered.T @ centered / len(values)
    size = len(within)
    level = max(shrinkage * float(within.trace()), 1e-9 * float(total.trace()), 1e-12) / size
    within = within + level * torch.eye(size, dtype=torch.float64)
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))
    _, directions = torch.linalg.eigh(whiten @ total @ whiten.T)
    return mean.float(), (components @ whiten.T @ directions[:, -dimensions:].flip(1)).float()


def _numbered(groups: Sequence[str]) -> Tensor:
    """Return the number [n] of each group name, counted from 0 in order of first appearance."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups])


def select_representatives(
    directions: Tensor, groups: Sequence[str | None], limit: int = MAX_REPRESENTATIVES
) -> NDArray[np.int64]:
    """Select rows that cover all rows, by farthest-point selection in each group. Return their indices, ascending.

    Each group gets a share of `limit` in proportion to its number of rows, at least one.

    Args:
        directions: Vectors [n, d] of length 1.
        groups: Group of each row; None is a group too.
        limit: Number of rows to select, except that each group has at least one.
    """
    rows: dict[str | None, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    share = min(1.0, limit / len(directions))
    chosen = [
        np.array(members)[_farthest_points(directions[members], max(1, int(share * len(members))))]
        for members in rows.values()
    ]
    return np.sort(np.concatenate(chosen))


def _farthest_points(directions: Tensor, count: int) -> list[int]:
    """Select `count` of the rows [n, d]: first the row nearest to the mean, then always the farthest from those."""
    first = int((directions @ directions.mean(0)).argmax())
    selected, nearest = [first], directions @ directions[first]
    nearest[first] = torch.inf
    for _ in range(count - 1):
        selected.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, directions @ directions[selected[-1]])
        nearest[selected[-1]] = torch.inf
    return selected


@dataclass(frozen=True)
class Distances:
    """Distances of images from the representatives: groups of images of known kinds by name, and unknown images."""

    known: Mapping[str, Floats]
    unknown: Floats


def choose_threshold(distances: Distances, max_false_share: float) -> float:
    """Return the threshold of the distance above which an image is called unknown.

    It is the lowest threshold that at most `max_false_share` (0 to 1) of the images of each known group exceed. If more
    than GOAL of the unknown images exceed it, it is raised: of the thresholds that at least GOAL of them exceed, the
    one with the largest difference between the shares of unknown and of known images above it is chosen.

    Raises:
        ValueError: There are no images of known kinds.
    """
    groups = [group for group in distances.known.values() if len(group)]
    if not groups:
        raise ValueError("no images of known kinds to choose a threshold from; give at least one")
    lowest = max(float(np.quantile(group, 1 - max_false_share, method="higher")) for group in groups)
    if share_above(distances.unknown, lowest) <= GOAL:
        return lowest
    everything = np.concatenate([*groups, distances.unknown])
    steps = np.unique([lowest, *everything[everything > lowest]])
    midpoints = (steps[:-1] + steps[1:]) / 2
    candidates = [each for each in [lowest, *midpoints] if share_above(distances.unknown, each) >= GOAL]
    gains = [
        share_above(distances.unknown, each) - float(np.mean([share_above(group, each) for group in groups]))
        for each in candidates
    ]
    return float(candidates[int(np.argmax(gains))])


def share_above(distances: Floats, threshold: float) -> float:
    """Return the share (0 to 1) of distances [n] above a threshold; 0 if there are none."""
    return float(np.mean(distances > threshold)) if len(distances) else 0.0


def cross_validated_warnings(distances: Distances, max_false_share: float) -> dict[str, int]:
    """Count the images above a threshold that was chosen without them: FOLDS thresholds, each for one fold of images.

    Image i of a group belongs to fold i modulo FOLDS. The arguments are those of `choose_threshold`.

    Returns:
        Number of images above their threshold, by the name of the known group, and "unknown" for unknown images.
    """
    warned = dict.fromkeys([*distances.known, "unknown"], 0)
    for fold in range(FOLDS):
        rest = Distances(
            {name: _without(group, fold) for name, group in distances.known.items()}, _without(distances.unknown, fold)
        )
        if not any(len(group) for group in rest.known.values()):
            continue
        threshold = choose_threshold(rest, max_false_share)
        for name, group in [*distances.known.items(), ("unknown", distances.unknown)]:
            warned[name] += int((group[fold::FOLDS] > threshold).sum())
    return warned


def _without(distances: Floats, fold: int) -> Floats:
    kept: Floats = distances[np.arange(len(distances)) % FOLDS != fold]
    return kept


def separation(distances: Distances) -> float | None:
    """Return the area under the ROC curve of all known and unknown images; None if there are none of one sort.

    This is the probability that an unknown image has a larger distance than an image of a known kind; ties count half.
    """
    known = np.concatenate([np.empty(0), *distances.known.values()])
    if not len(known) or not len(distances.unknown):
        return None
    larger = distances.unknown[:, None] > known
    equal = distances.unknown[:, None] == known
    return float((larger + 0.5 * equal).mean())


def describe(distances: Distances, threshold: float, max_false_share: float) -> dict[str, Any]:
    """Return what a threshold does to known and unknown images, for known.json and for `report`.

    The arguments are those of `choose_threshold`, and the threshold.
    """
    groups = {**distances.known, **({"unknown": distances.unknown} if len(distances.unknown) else {})}
    unseen = cross_validated_warnings(distances, max_false_share)
    rows = {
        name: {
            "images": len(group),
            "warned": int((group > threshold).sum()),
            "warned_share": round(share_above(group, threshold), 4),
            "warned_cross_validated": unseen[name],
            "median_distance": round(float(np.median(group)), 4),
        }
        for name, group in groups.items()
    }
    area = separation(distances)
    photos = separation(Distances({PHOTOS: distances.known[PHOTOS]}, distances.unknown)) if PHOTOS in groups else None
    return {
        "groups": rows,
        "roc_area": None if area is None else round(area, 4),
        "roc_area_photographs": None if photos is None else round(photos, 4),
    }


def report(statistics: Mapping[str, Any]) -> str:
    """Return lines of text on the `statistics` of a table: warnings per group of images, and the ROC areas."""
    lines = []
    for name, row in statistics["groups"].items():
        held_out = f"{row['warned_cross_validated']} with thresholds chosen without them"
        title = "unknown images (to be warned about)" if name == "unknown" else f"{name} (not to be warned about)"
        lines.append(f"{title}: {row['warned']} of {row['images']} warned ({row['warned_share']:.1%}); {held_out}")
    for key, name in (("roc_area", "all images"), ("roc_area_photographs", "photographs of known kinds only")):
        if statistics[key] is not None:
            lines.append(f"area under the ROC curve, known against unknown, {name}: {statistics[key]:.3f}")
    return "\n".join(lines)
