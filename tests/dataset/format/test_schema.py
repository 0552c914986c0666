import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from dataset.camera import intrinsics, spherical_to_c2w
from dataset.errors import UserError
from dataset.format import schema
from dataset.format.outcomes import Outcome, dump_outcomes, from_json, parse_outcomes, to_json
from dataset.format.schema import SchemaError
from dataset.images.prepare import encode_webp
from tests.support.paths import ROOT


def make_meta(uid: str = "chair", resolution: int = 8) -> schema.Meta:
    view = schema.View(
        elevation_deg=30.0,
        azimuth_deg=22.5,
        distance=1.5,
        c2w=tuple(map(tuple, spherical_to_c2w(30, 22.5, 1.5).tolist())),
        K=tuple(map(tuple, intrinsics(resolution).tolist())),
        alpha_coverage=0.25,
        clipped=False,
    )
    return schema.Meta(
        schema_version=schema.SCHEMA_VERSION,
        uid=uid,
        source="folder",
        license="CC0-1.0",
        author="",
        asset_sha256="0" * 64,
        resolution=resolution,
        seed=7,
        hdri=schema.Hdri("city.exr", 12.5, 1.0),
        normalization=schema.Normalization("longest", 0.5, (0.0, 0.25, -1.0)),
        renderer={"engine": "cycles", "samples": 16, "denoise": True},
        views=dict.fromkeys(schema.VIEW_SETS, (view,) * schema.VIEWS_PER_SET),
    )


def make_members(meta: schema.Meta) -> dict[str, bytes]:
    picture = encode_webp(np.full((meta.resolution, meta.resolution, 4), 90, np.uint8))
    names = schema.member_names(meta.uid)
    return {names[0]: schema.dump_meta(meta), **dict.fromkeys(names[1:], picture)}


def test_meta_round_trip_and_deterministic_bytes():
    meta = make_meta()
    data = schema.dump_meta(meta)
    assert schema.parse_meta(data, "here") == meta
    assert schema.dump_meta(schema.parse_meta(data, "here")) == data


def test_a_whole_sample_validates():
    meta = make_meta()
    assert schema.validate_sample(make_members(meta), "shard-000000") == meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=3), "schema_version"),
        (lambda m: m.pop("license"), "license is missing"),
        (lambda m: m.update(seed=1.5), "seed"),
        (lambda m: m.update(uid="../evil"), "uid"),
        (lambda m: m.update(uid="a.b"), "uid"),
        (lambda m: m.update(asset_sha256="xyz"), "asset_sha256"),
        (lambda m: m["hdri"].update(strength="bright"), "hdri.strength"),
        (lambda m: m["normalization"].update(mode="biggest"), "normalization.mode"),
        (lambda m: m["normalization"].update(offset=[1, 2]), "normalization.offset"),
        (lambda m: m["views"]["fixed"].pop(), "views.fixed has 15"),
        (lambda m: m["views"]["random"][3].update(K=[[1, 2], [3, 4]]), r"views.random\[3\].K"),
        (lambda m: m["views"]["random"][3].update(alpha_coverage=1.5), "alpha_coverage"),
        (lambda m: m["views"]["random"][3].update(clipped=1), "clipped"),
        (lambda m: m["renderer"].update(samples=[1]), "renderer.samples"),
    ],
)
def test_bad_metadata_is_named(change, message):
    raw = json.loads(schema.dump_meta(make_meta()))
    change(raw)
    with pytest.raises(SchemaError, match=f"here: .*{message}"):
        schema.parse_meta(json.dumps(raw).encode(), "here")


def test_nan_never_enters_metadata():
    bad = dataclasses.replace(make_meta(), hdri=schema.Hdri("a.exr", float("nan"), 1.0))
    with pytest.raises(ValueError, match="JSON"):
        schema.dump_meta(bad)


def test_sample_with_missing_foreign_or_wrong_members():
    meta = make_meta()
    members = make_members(meta)
    without = {k: v for k, v in members.items() if k != "chair.fixed_03.webp"}
    with pytest.raises(SchemaError, match=r"lacks the members chair\.fixed_03\.webp"):
        schema.validate_sample(without, "s")
    with pytest.raises(SchemaError, match=r"unexpected members: chair\.pkl"):
        schema.validate_sample({**members, "chair.pkl": b""}, "s")
    small = encode_webp(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(SchemaError, match=r"random_00\.webp.*shape"):
        schema.validate_sample({**members, "chair.random_00.webp": small}, "s")


def test_member_names_are_33_and_ordered():
    names = schema.member_names("a")
    assert len(names) == 33
    assert names[:2] == ["a.meta.json", "a.fixed_00.webp"]
    assert names[-1] == "a.random_15.webp"
    with pytest.raises(SchemaError, match="numbered 0 to 99"):
        schema.member_name("a", "fixed", 100)


def test_outcomes_round_trip():
    rows = [
        Outcome("b", 1, "shard-000000", "failed", "import", "RuntimeError", "bad", 11, 2.5, 300.0, 2, "tail", ()),
        Outcome("a", 0, "shard-000000", "ok", seconds=1.5, flags=("clipped",)),
    ]
    assert parse_outcomes(dump_outcomes(rows), "t") == [rows[1], rows[0]]
    assert from_json(json.loads(json.dumps(to_json(rows[0])))) == rows[0]
    with pytest.raises(UserError, match="status must be one of"):
        Outcome("a", 0, "s", "lost")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"table t\.parquet cannot be read"):
        parse_outcomes(b"not parquet", "t.parquet")


@pytest.mark.integration
def test_reading_outcomes_never_aborts_the_process_at_exit():
    script = (
        "from dataset.format.outcomes import Outcome, dump_outcomes, parse_outcomes;"
        "parse_outcomes(dump_outcomes([Outcome('a', 0, 's', 'ok')]), 't')"
    )
    for _ in range(8):  # with Arrow's thread pools about every second process ended in SIGABRT
        assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
