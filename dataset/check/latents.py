"""Check the arrays and the index tables of a latent set. `dataset.check.verify` uses these checks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dataset.check.shard import SetKind, ShardCheck
from dataset.errors import UserError
from dataset.format.latent_index import LatentTable, load_table
from dataset.format.latents import (
    FLOAT16,
    LATENTS_FILE,
    LatentFormat,
    encode_again,
    encode_on,
    latent_names,
    table_file,
)
from dataset.format.schema import VIEW_SETS, Meta, ViewSet, parse_meta
from dataset.format.shards import ShardEntry, ShardStats


def latent_kind(url: str, form: LatentFormat) -> SetKind:
    """Return the `SetKind` for the latent set at `url`: its checks, and the remedies for its error messages.

    `form` is the format of the views' arrays, as read from the `latents.json` of that set.
    """

    def fault(name: str, data: bytes, meta: Meta | None) -> str:
        view_set: ViewSet = "fixed" if ".fixed_" in name else "random"
        header = form.headers[view_set]
        if not data.startswith(header) or len(data) != form.member_bytes(view_set):
            return f"not the array that {LATENTS_FILE} describes"
        return "" if np.isfinite(np.frombuffer(data, FLOAT16, offset=len(header))).all() else "has non-finite values"

    def validate(members: Mapping[str, bytes], where: str) -> Meta:
        about, *views = sorted(members, key=lambda name: not name.endswith(".meta.json"))
        meta = parse_meta(members[about], f"{where}/{about}")
        if set(members) != set(latent_names(meta.uid)):
            raise UserError(f"shard {where}: the object {meta.uid} has missing or unexpected members; {encode_on(url)}")
        for name in views:
            if problem := fault(name, members[name], meta):
                raise UserError(f"shard {where}, member {name}: {problem}; {encode_again(url, where)}")
        return meta

    return SetKind(
        names=lambda uid, _: latent_names(uid),
        is_member=lambda name: name in latent_names(name.partition(".")[0]),
        validate=validate,
        fault=fault,
        shard_remedy=lambda shard: encode_again(url, shard),
        missing_remedy=encode_on(url),
        set_remedy=f"delete it and {encode_on(url)}: it is copied from the shard set",
    )


class TableCheck:
    """Compares the index table of a latent shard with the shard's statistics and with the metadata in its tar.

    The camera angles are compared while the tar is read, the member offsets by `compare`.
    """

    def __init__(self, check: ShardCheck, fs: Any, root: str, form: LatentFormat, stats: ShardStats | None) -> None:
        self._check, self._stats, self._differing = check, stats, list[str]()
        self._table: LatentTable | None = None
        if stats is None:  # already reported, and its remedy writes the table again
            return
        try:
            self._table = load_table(fs, root, form, ShardEntry(stats.name, len(stats.samples), 0, stats.sha256))
        except UserError as error:
            check.add(table_file(check.name), str(error))
            return
        self._rows = {uid: row for row, uid in enumerate(self._table.uids)}
        validate = check.kind.validate

        def and_cameras(members: Mapping[str, bytes], where: str) -> Meta:
            meta = validate(members, where)
            self._compare_cameras(meta)
            return meta

        check.kind = replace(check.kind, validate=and_cameras)

    def _compare_cameras(self, meta: Meta) -> None:
        row, table = self._rows.get(meta.uid), self._table
        if row is None or table is None:
            return
        for name in ("elevation_deg", "azimuth_deg"):
            angles_deg = [[getattr(view, name) for view in meta.views[view_set]] for view_set in VIEW_SETS]
            if not np.array_equal(getattr(table, name)[row], angles_deg):
                self._differing.append(meta.uid)
                return

    def compare(self) -> None:
        """Report the differences found in the index table. Call this after the whole tar of the shard has been read."""
        if self._table is None or self._stats is None:
            return
        file, samples = table_file(self._check.name), self._stats.samples
        if self._table.uids != tuple(sample.uid for sample in samples):
            self._check.add(file, f"its objects differ from those in {self._check.name}.json")
            return
        suffixes = [name.removeprefix("x.") for name in latent_names("x")]
        for sample, places in zip(samples, self._table.places.tolist(), strict=True):
            if [list(sample.members.get(suffix, ())) for suffix in suffixes] != places:
                self._check.add(file, f"its offsets for {sample.uid} differ from {self._check.name}.json")
        for uid in self._differing:
            self._check.add(file, f"its cameras for {uid} differ from the metadata")
