"""The output folder of `train.encode`: write latents.json, copy tables, and find the shards that are finished."""

import logging
from typing import Any, Final

from dataset.attribution import ATTRIBUTION_FILE
from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, LatentFormat, encode_again, format_json, read_format, table_file
from dataset.format.manifest import MANIFEST_FILE
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.scores import DUPLICATES_NAME, scores_file
from dataset.format.shards import INDEX_NAME, SET_NAME, read_stats
from dataset.io.files import atomic_file, exists, url_to_fs, write_bytes_atomic, write_json_atomic
from dataset.io.resume import differences, settings_differ
from dataset.reading.shard_set import ShardSet

logger = logging.getLogger(__name__)

_BLOCK: Final = 1 << 20


def copy_tables(shards: ShardSet, fs: Any, root: str) -> None:
    """Copy the manifest, attribution, outcome tables, `set.json` and scores of a shard set; training filters read them.

    The files are copied in this order. Files that already exist in the latent set are kept. Copying ends, with a log
    message, at the first file that is missing in the shard set.

    Args:
        shards: Shard set to copy from.
        fs: fsspec file system of the latent set.
        root: Path of the latent set in `fs`.
    """
    source, there = url_to_fs(shards.url)
    tables = [f"{OUTCOMES_FOLDER}/{shard.name}.parquet" for shard in shards.index.shards]
    for name in (MANIFEST_FILE, ATTRIBUTION_FILE, *tables, SET_NAME):
        if exists(fs, f"{root}/{name}"):
            continue
        if not exists(source, f"{there}/{name}"):
            logger.info(
                "%s has no %s: training on the latents cannot filter by the contents of that file", shards.url, name
            )
            return
        with source.open(f"{there}/{name}", "rb") as file, atomic_file(fs, f"{root}/{name}") as copy:
            while data := file.read(_BLOCK):
                copy.write(data)
    _copy_scores(shards, fs, root)


def _copy_scores(shards: ShardSet, fs: Any, root: str) -> None:
    """Copy the scores of a shard set (`python -m dataset curate`), if it has any, for the filter --where of training.

    Unlike the other tables, scores may be computed again later. So files that differ are replaced.
    """
    source, there = url_to_fs(shards.url)
    if not exists(source, f"{there}/{scores_file(DUPLICATES_NAME)}"):
        return
    for name in (*(shard.name for shard in shards.index.shards), DUPLICATES_NAME):
        path = scores_file(name)
        if not exists(source, f"{there}/{path}"):
            return
        data = source.cat_file(f"{there}/{path}")
        if not exists(fs, f"{root}/{path}") or fs.cat_file(f"{root}/{path}") != data:
            write_bytes_atomic(fs, f"{root}/{path}", data)


def claim(fs: Any, root: str, out: str, form: LatentFormat) -> None:
    """Write latents.json into the output folder, or check that an existing latents.json has the same contents.

    Args:
        fs: fsspec file system of the output folder.
        root: Path of the output folder in `fs`.
        out: Path or URL of the output folder, for error messages.
        form: Format of the latent set.

    Raises:
        UserError: The folder contains a set of images, or a latent set that was encoded from other images, with another
            model or with other settings.
    """
    if not exists(fs, f"{root}/{LATENTS_FILE}"):
        if any(exists(fs, f"{root}/{name}") for name in (SET_NAME, INDEX_NAME)):
            raise UserError(f"{out} already contains an image set; choose another OUT")
        write_json_atomic(fs, f"{root}/{LATENTS_FILE}", format_json(form))
        return
    before, now = format_json(read_format(out)), format_json(form)
    if before.pop("pictures") != now.pop("pictures"):
        raise UserError(
            f"{out} was encoded from other images; choose another OUT, or give the SHARDS from which the encoding of "
            f"{out} was started"
        )
    if changed := differences(before, now):
        raise UserError(
            settings_differ(
                f"Encoding of {out}", changed.values(), "Give the same settings as before, or give another OUT."
            )
        )


def is_finished(fs: Any, root: str, name: str, out: str) -> bool:
    """Return whether a shard of the latent set is complete.

    A shard is complete if its table, which is written last, exists and its tar file has the recorded size.

    Args:
        fs: fsspec file system of the latent set.
        root: Path of the latent set in `fs`.
        name: Name of the shard, such as shard-000000.
        out: Path or URL of the latent set, for error messages.
    """
    if not all(exists(fs, f"{root}/{file}") for file in (f"{name}.json", table_file(name))):
        return False
    stats = read_stats(fs, root, name, encode_again(out, name))
    tar = f"{root}/{name}.tar"
    return exists(fs, tar) and bool(fs.size(tar) == stats.bytes)
