"""What `dataset.check.verify` looks at in a latent set beside what it looks at in every set: arrays and tables."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dataset.check.shard import Kind, ShardCheck
from dataset.errors import UserError
from dataset.format.latent_index import Table, load_table
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


def latent_kind(url: str, form: LatentFormat) -> Kind:
    """How the shards of a latent set are checked."""

    def fault(name: str, data: bytes, meta: Meta | None) -> str:
        view_set: ViewSet = "fixed" if ".fixed_" in name else "random"
        header = form.headers[view_set]
        if not data.startswith(header) or len(data) != form.member_bytes(view_set):
            return f"not the array that {LATENTS_FILE} describes"
        return "" if np.isfinite(np.frombuffer(data, FLOAT16, offset=len(header))).all() else "not finite"

    def validate(members: Mapping[str, bytes], where: str) -> Meta:
        about, *views = sorted(members, key=lambda name: not name.endswith(".meta.json"))
        meta = parse_meta(members[about], f"{where}/{about}")
        if set(members) != set(latent_names(meta.uid)):
            raise UserError(f"{where}: not the members of {meta.uid}")
        if found := next((told for name in views if (told := fault(name, members[name], meta))), ""):
            raise UserError(f"{where}: {found}")
        return meta

    return Kind(
        names=latent_names,
        validate=validate,
        fault=fault,
        again=lambda shard: encode_again(url, shard),
        repeat=encode_on(url),
        anew=f"delete it and {encode_on(url)}: it is copied from the pictures",
    )


class TableCheck:
    """A shard's table held against its statistics and, as the tar passes, against the cameras in the metadata."""

    def __init__(self, check: ShardCheck, fs: Any, root: str, form: LatentFormat, stats: ShardStats | None) -> None:
        self._check, self._stats, self._differing = check, stats, list[str]()
        self._table: Table | None = None
        if stats is None:  # a problem by itself, and the remedy writes the table anew
            return
        try:
            self._table = load_table(fs, root, form, ShardEntry(stats.name, len(stats.samples), 0, stats.sha256))
        except UserError as error:
            check.add(table_file(check.name), str(error).removeprefix(f"{table_file(check.name)} "))
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
        """After the walk: add what is wrong with the table to the shard's findings."""
        if self._table is None or self._stats is None:
            return
        file, samples = table_file(self._check.name), self._stats.samples
        if self._table.uids != tuple(sample.uid for sample in samples):
            self._check.add(file, f"other objects than {self._check.name}.json says")
            return
        suffixes = [name.removeprefix("x.") for name in latent_names("x")]
        for sample, places in zip(samples, self._table.places.tolist(), strict=True):
            if [list(sample.members.get(suffix, ())) for suffix in suffixes] != places:
                self._check.add(file, f"other places of {sample.uid} than {self._check.name}.json says")
        for uid in self._differing:
            self._check.add(file, f"other cameras of {uid} than its metadata")
