"""Compute all scores of an object, and of all objects of a shard."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.curate.hashes import appearance, perceptual_hash
from dataset.curate.shape import distinct_views, flatness, semi_axes, symmetry
from dataset.curate.views import contrast, is_visible, reduce_views, texture
from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS, VIEW_SETS, VIEWS_PER_SET, Meta
from dataset.format.scores import ObjectScores
from dataset.reading.shard_set import DamagedMember, ShardSet, check_has_views


class ScoreTask(NamedTuple):
    """One shard to score.

    Attributes:
        url: Folder or fsspec URL of the set.
        tars: Fingerprint of the set, so that a worker opens it again when it has changed.
        shard: Number of the shard.
    """

    url: str
    tars: str
    shard: int


def score_shard(task: ScoreTask) -> list[ObjectScores]:
    """Return the scores of the objects of a shard, in the order of its tar.

    An object with damaged members gets a text in `damage` instead of scores.

    Raises:
        UserError: The shard or its statistics cannot be read.
    """
    shards = _reader(task.url, task.tars)
    return [_score_stored(shards, task.shard, sample) for sample in range(shards.samples_per_shard[task.shard])]


@lru_cache(maxsize=2)
def _reader(url: str, tars: str) -> ShardSet:
    return ShardSet(url)


def _score_stored(shards: ShardSet, shard: int, sample: int) -> ObjectScores:
    uid = shards.uid(shard, sample)
    try:
        meta = shards.meta(shard, sample)
        check_has_views(meta, ALL_VIEWS, shards.url)
        images = shards.views(shard, sample, ALL_VIEWS)
    except DamagedMember as error:
        return ObjectScores(uid, damage=" ".join(str(error).split()))
    except UserError:  # such as a failure of the storage, which does not concern this object alone
        raise
    except ValueError as error:
        return ObjectScores(uid, damage=f"{shards.url}: the images of {uid} have different sizes ({error})")
    return score_object(meta, images)


def score_object(meta: Meta, images: NDArray[np.uint8]) -> ObjectScores:
    """Compute the scores of one object.

    Args:
        meta: Metadata of the object, which contain the cameras.
        images: The 32 RGBA images in the order of ALL_VIEWS, uint8 [32, h, h, 4], with straight alpha.
    """
    views = reduce_views(images)
    fixed = views[:VIEWS_PER_SET]
    cameras = [camera for view_set in VIEW_SETS for camera in meta.views[view_set]]
    return ObjectScores(
        uid=meta.uid,
        coverage=float(images[..., 3].mean(dtype=np.float64) / 255),
        contrast=contrast(views),
        texture=texture(views),
        flatness=flatness(semi_axes(views, cameras)),
        symmetry=symmetry(fixed[..., 3]),
        visible_views=int(is_visible(views).sum()),
        distinct_views=distinct_views(fixed),
        hash=perceptual_hash(fixed),
        appearance=appearance(fixed),
    )
