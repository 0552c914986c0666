"""Read the scores that `python -m dataset curate` wrote for a set, and test them with an expression (`--where`)."""

from collections.abc import Mapping
from pathlib import Path

from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, read_format
from dataset.format.manifest import UNKNOWN, Asset
from dataset.format.outcomes import Outcome
from dataset.format.scores import (
    DUPLICATES_NAME,
    ObjectScores,
    images_hash,
    parse_duplicates,
    parse_scores,
    scores_file,
)
from dataset.format.shards import Index, read_index
from dataset.io.files import exists, url_to_fs
from dataset.reading.expression import Value, parse_expression


class SetScores:
    """The scores of a complete set, read one shard at a time.

    For a latent set, the scores are those of the images from which it was encoded.

    Args:
        url: Folder or fsspec URL of a shard set or latent set.
        index: Content of `index.json`; None: read this file.

    Raises:
        UserError: The scores are missing, incomplete or outdated.
    """

    def __init__(self, url: str | Path, index: Index | None = None) -> None:
        self.url, self.index = str(url), index or read_index(url)
        self._fs, self._root = url_to_fs(url)
        self._is_latent = exists(self._fs, f"{self._root}/{LATENTS_FILE}")
        self._tars = image_tars(self.url, self.index)
        table = parse_duplicates(self._read(DUPLICATES_NAME), f"{self._root}/{scores_file(DUPLICATES_NAME)}")
        if not table.current or table.images_sha256 != images_hash(self._tars):
            raise self._unusable("outdated")
        self.clusters: Mapping[str, str] = table.clusters

    def shard(self, shard: int) -> dict[str, ObjectScores]:
        """Return the scores of the objects of one shard: uid -> scores.

        Raises:
            UserError: The score table of the shard is missing, damaged or outdated.
        """
        name = self.index.shards[shard].name
        table = parse_scores(self._read(name), f"{self._root}/{scores_file(name)}")
        if not table.current or table.images_sha256 != self._tars[shard]:
            raise self._unusable("outdated")
        return {row.uid: row for row in table.rows}

    def _read(self, name: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(f"{self._root}/{scores_file(name)}")
        except FileNotFoundError as error:
            raise self._unusable("missing or incomplete") from error
        return data

    def _unusable(self, state: str) -> UserError:
        remedy = f"run `python -m dataset curate {self.url}`"
        if self._is_latent:
            remedy = (
                "run `python -m dataset curate` for the shard set from which it was encoded, then repeat the command "
                "that encoded it, which copies the scores"
            )
        return UserError(f"the scores of the set {self.url} are {state}; {remedy}")


def image_tars(url: str, index: Index) -> tuple[str, ...]:
    """Return the sha256 of each tar of images; for a latent set, of the tars from which it was encoded.

    Args:
        url: Folder or fsspec URL of a shard set or latent set.
        index: Content of the set's `index.json`.
    """
    fs, root = url_to_fs(url)
    if exists(fs, f"{root}/{LATENTS_FILE}"):
        return read_format(url).pictures
    return tuple(shard.sha256 for shard in index.shards)


def find_scores(url: str | Path, index: Index) -> SetScores | None:
    """Return the scores of a set, or None if they are missing, incomplete, outdated or damaged."""
    try:
        return SetScores(url, index)
    except UserError:
        return None


class Condition:
    """The test of an expression (`--where`) on the objects of one set.

    Args:
        text: The expression.
        url: Folder or fsspec URL of the set.

    Raises:
        UserError: The expression is invalid, or it uses scores and the set has none.
    """

    def __init__(self, text: str, url: str | Path) -> None:
        self._expression = parse_expression(text)
        self._scores = SetScores(url) if self._expression.needs_scores else None
        self._shard, self._rows = -1, dict[str, ObjectScores]()

    def failure(self, shard: int, asset: Asset, row: Outcome) -> str:
        """Return why an object fails the condition; empty if it passes.

        Args:
            shard: Number of the object's shard. Call this for one shard after another.
            asset: Manifest row of the object.
            row: Outcome row of the object.

        Raises:
            UserError: The score table of the shard is missing, damaged or outdated.
        """
        values: dict[str, Value] = {
            "uid": asset.uid,
            "license": asset.license or UNKNOWN,
            "source": asset.source,
            "flags": row.flags,
            "seconds": row.seconds,
            "peak_rss_mb": row.peak_rss_mb,
            "attempts": row.attempts,
        }
        if self._scores is not None:
            scores = self._of(shard, asset.uid, self._scores)
            if scores is None or scores.damage:
                return "images damaged, scores unknown"
            values |= score_values(scores, self._scores.clusters.get(asset.uid, asset.uid))
        return "" if self._expression.matches(values) else f"not ({self._expression.text})"

    def _of(self, shard: int, uid: str, scores: SetScores) -> ObjectScores | None:
        if shard != self._shard:
            self._shard, self._rows = shard, scores.shard(shard)
        return self._rows.get(uid)


def score_values(scores: ObjectScores, cluster: str) -> dict[str, Value]:
    """Return the columns of `dataset.reading.expression.SCORE_COLUMNS` of one object.

    `cluster` is the uid of the first object of its cluster.
    """
    return {
        "coverage": scores.coverage,
        "contrast": scores.contrast,
        "texture": scores.texture,
        "flatness": scores.flatness,
        "symmetry": scores.symmetry,
        "visible_views": scores.visible_views,
        "distinct_views": scores.distinct_views,
        "empty": scores.empty,
        "flat": scores.flat,
        "duplicate": cluster != scores.uid,
        "cluster": cluster,
    }
