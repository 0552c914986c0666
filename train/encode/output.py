"""The folder that `train.encode` writes: one writer, one set, the pictures' tables beside the latents."""

from typing import Any, Final

from dataset.attribution import ATTRIBUTION_FILE
from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, LatentFormat, encode_again, format_json, read_format, table_file
from dataset.format.manifest import MANIFEST_FILE
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.shards import INDEX_NAME, SET_NAME, read_stats
from dataset.io.files import atomic_file, exists, url_to_fs, write_json_atomic
from dataset.reading.shard_set import ShardSet

_BLOCK: Final = 1 << 20


def copy_tables(shards: ShardSet, fs: Any, root: str) -> None:
    """Copy what the pictures' set says of its objects, as far as it is not there yet: training filters by it.

    Manifest, outcome tables, attribution and `set.json`: little beside the latents, and the credits go with them.
    """
    source, there = url_to_fs(shards.url)
    tables = [f"{OUTCOMES_FOLDER}/{shard.name}.parquet" for shard in shards.index.shards]
    for name in (MANIFEST_FILE, ATTRIBUTION_FILE, *tables, SET_NAME):
        if exists(fs, f"{root}/{name}"):
            continue
        if not exists(source, f"{there}/{name}"):
            print(f"note: {shards.url} holds no {name}: training on the latents cannot filter by what it would say")
            return
        with source.open(f"{there}/{name}", "rb") as file, atomic_file(fs, f"{root}/{name}") as copy:
            while data := file.read(_BLOCK):
                copy.write(data)


def claim(fs: Any, root: str, out: str, form: LatentFormat) -> None:
    """Write latents.json, or check that the set begun here is this one."""
    if not exists(fs, f"{root}/{LATENTS_FILE}"):
        if any(exists(fs, f"{root}/{name}") for name in (SET_NAME, INDEX_NAME)):
            raise UserError(f"{out}: holds a set of pictures; give another OUT")
        write_json_atomic(fs, f"{root}/{LATENTS_FILE}", format_json(form))
        return
    before, now = format_json(read_format(out)), format_json(form)
    if before.pop("pictures") != now.pop("pictures"):
        raise UserError(f"{out}: made from other pictures; give another OUT, or the SHARDS that it was begun with")
    if changed := [f"{key} was {before[key]}, now {now[key]}" for key in now if before[key] != now[key]]:
        raise UserError(
            f"{out}: encoded by another model or with other settings ({'; '.join(changed)}); "
            "repeat its command, or give another OUT"
        )


def is_finished(fs: Any, root: str, name: str, out: str) -> bool:
    """Whether a shard's table, written last, is there, and its tar is whole as far as its size tells."""
    if not all(exists(fs, f"{root}/{file}") for file in (f"{name}.json", table_file(name))):
        return False
    stats = read_stats(fs, root, name, encode_again(out, name))
    tar = f"{root}/{name}.tar"
    return exists(fs, tar) and bool(fs.size(tar) == stats.bytes)
