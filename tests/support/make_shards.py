"""Small valid shard sets without Blender: boxes and ellipsoids, ray-cast with the real cameras.

Every view is geometrically correct, so the sets are also used in tests of training and distillation. A box has six
faces of different colors, an ellipsoid is colored by position; shape, size and colors depend on (seed, number).
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.attribution import write_attribution
from dataset.camera import DISTANCE, intrinsics, spherical_to_c2w
from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, Asset, write_manifest
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, dump_outcomes
from dataset.format.passes import PassName, Surface, encode_passes
from dataset.format.schema import (
    ALL_VIEWS,
    EXTENDED_VERSION,
    SCHEMA_VERSION,
    VIEW_SETS,
    VIEWS_PER_SET,
    Hdri,
    Meta,
    Normalization,
    View,
    ViewSet,
    dump_meta,
    member_name,
    meta_name,
    pass_name,
)
from dataset.format.shards import SET_NAME, shard_name, write_index, write_shard
from dataset.images.prepare import encode_webp
from dataset.io.files import url_to_fs, write_bytes_atomic, write_json_atomic

Float = NDArray[np.float64]
_LICENSES = ("CC0-1.0", "CC-BY-4.0")
_SOURCE, _AUTHOR = "synthetic", "tests"


def make_shard_set(
    folder: Path | str,
    num_objects: int,
    resolution: int = 32,
    objects_per_shard: int = 4,
    seed: int = 0,
    *,
    passes: tuple[PassName, ...] = (),
) -> Path:
    """Write a complete set (shards, outcomes, set.json, index.json) into `folder`, a path or a URL; returns it."""
    fs, root = url_to_fs(folder)
    uids = [f"synthetic-{i:04d}" for i in range(num_objects)]
    write_set_request(fs, root, [_asset(uid, i) for i, uid in enumerate(uids)], objects_per_shard, seed)
    num_shards = -(-num_objects // objects_per_shard)
    for shard in range(num_shards):
        name, places = (
            shard_name(shard),
            range(num_objects)[shard * objects_per_shard : (shard + 1) * objects_per_shard],
        )
        write_shard(fs, root, name, ((uids[i], make_sample(uids[i], i, resolution, seed, passes)) for i in places))
        rows = [Outcome(uid=uids[i], position=i, shard=name, status="ok", seconds=1.0, peak_rss_mb=1.0) for i in places]
        write_bytes_atomic(fs, f"{root}/{OUTCOMES_FOLDER}/{name}.parquet", dump_outcomes(rows))
    write_attribution(fs, root)
    write_index(fs, root, num_shards=num_shards, objects_per_shard=objects_per_shard)
    return Path(folder)


def write_set_request(fs: Any, root: str, assets: Sequence[Asset], objects_per_shard: int, seed: int = 0) -> None:
    """Write the manifest of some objects (or none) and the matching `set.json`."""
    buffer = io.BytesIO()
    with suppress(UserError) if not assets else nullcontext():  # an empty one is written, and refused
        write_manifest(buffer, assets)
    manifest = buffer.getvalue()
    write_bytes_atomic(fs, f"{root}/{MANIFEST_FILE}", manifest)
    asked = {
        "schema_version": SCHEMA_VERSION,
        "objects": len(assets),
        "objects_per_shard": objects_per_shard,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "source": "synthetic",
        "seed": seed,
    }
    write_json_atomic(fs, f"{root}/{SET_NAME}", asked)


def make_sample(
    uid: str, number: int, resolution: int = 32, seed: int = 0, passes: tuple[PassName, ...] = ()
) -> dict[str, bytes]:
    """The 33 members of one object, by full name, and its passes: those of a plane through the origin."""
    rng = np.random.default_rng([seed, number])
    half_size, palette = rng.uniform(0.2, 0.5, 3), rng.uniform(0.1, 0.9, (6, 3))
    half_size *= 0.5 / half_size.max()  # longest side 1
    elevations_deg = {"fixed": np.full(VIEWS_PER_SET, 30.0), "random": rng.uniform(-10, 40, VIEWS_PER_SET)}
    members: dict[str, bytes] = {}
    views: dict[ViewSet, tuple[View, ...]] = {}
    for view_set in VIEW_SETS:
        pictures = list(_views(number, half_size, palette, elevations_deg[view_set], resolution))
        views[view_set] = tuple(view for view, _ in pictures)
        members |= {member_name(uid, view_set, i): encode_webp(rgba) for i, (_, rgba) in enumerate(pictures)}
    about = replace(
        _meta(uid, number, resolution, seed, views),
        passes=passes,
        schema_version=EXTENDED_VERSION if passes else SCHEMA_VERSION,
    )
    for view_set, i in ALL_VIEWS if passes else ():
        c2w, K = (np.array(getattr(views[view_set][i], name)) for name in ("c2w", "K"))
        encoded = encode_passes(_plane(resolution), passes, c2w, K)
        members |= {pass_name(uid, view_set, i, name): data for name, data in encoded.items()}
    return {meta_name(uid): dump_meta(about), **members}


def _plane(resolution: int) -> Surface:
    """A plane at the origin's depth, which a ring of background pixels surrounds."""
    depth = np.pad(np.full((resolution - 2, resolution - 2), DISTANCE), 1)
    flat = np.ones((resolution, resolution))
    normal = np.broadcast_to([0.0, 0.0, 1.0], (*flat.shape, 3))
    return Surface(depth, normal, np.full((*flat.shape, 3), 0.5), 0.25 * flat, flat)


def _views(
    number: int, half_size: Float, palette: Float, elevations_deg: Float, resolution: int
) -> Iterator[tuple[View, NDArray[np.uint8]]]:
    K = intrinsics(resolution)
    for i, elevation_deg in enumerate(elevations_deg):
        azimuth_deg = i * 360.0 / VIEWS_PER_SET
        c2w = spherical_to_c2w(elevation_deg, azimuth_deg, DISTANCE)
        rgba = _picture(number, half_size, palette, c2w, resolution)
        alpha = rgba[..., 3]
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        view = View(
            elevation_deg=float(elevation_deg),
            azimuth_deg=azimuth_deg,
            distance=DISTANCE,
            c2w=tuple(map(tuple, c2w.tolist())),
            K=tuple(map(tuple, K.tolist())),
            alpha_coverage=float(alpha.mean() / 255),
            clipped=bool(border.any()),
        )
        yield view, rgba


def _picture(number: int, half_size: Float, palette: Float, c2w: Float, resolution: int) -> NDArray[np.uint8]:
    """Straight-alpha uint8 [h, w, 4], one ray through each pixel's center."""
    K = intrinsics(resolution)
    x, y = np.meshgrid(np.arange(resolution) + 0.5, np.arange(resolution) + 0.5)
    local = np.stack([(x - K[0, 2]) / K[0, 0], -(y - K[1, 2]) / K[1, 1], -np.ones_like(x)], -1)
    directions, origin = local @ c2w[:3, :3].T, c2w[:3, 3]
    cast = _cast_box if number % 2 == 0 else _cast_ellipsoid
    hit, colour = cast(origin, directions, half_size, palette)
    rgba = np.concatenate([colour, np.ones_like(colour[..., :1])], -1) * hit[..., None]
    quantised: NDArray[np.uint8] = np.rint(rgba * 255).astype(np.uint8)
    return quantised


def _cast_box(origin: Float, directions: Float, half_size: Float, palette: Float) -> tuple[NDArray[np.bool_], Float]:
    """(hit [h, w], color [h, w, 3]) of the box +-half_size; palette row 2 * axis + (1 on the positive side)."""
    safe = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    near = np.minimum((-half_size - origin) / safe, (half_size - origin) / safe)
    far = np.maximum((-half_size - origin) / safe, (half_size - origin) / safe)
    axis = near.argmax(-1)
    positive = np.take_along_axis(directions, axis[..., None], -1)[..., 0] < 0
    return near.max(-1) < far.min(-1), palette[2 * axis + positive]


def _cast_ellipsoid(
    origin: Float, directions: Float, half_size: Float, palette: Float
) -> tuple[NDArray[np.bool_], Float]:
    """(hit [h, w], color [h, w, 3]) of the ellipsoid of semi-axes half_size, colored by octant."""
    o, d = origin / half_size, directions / half_size
    a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum() - 1
    discriminant = b * b - a * c
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    point = o + t[..., None] * d  # on the unit sphere: its squares are weights that sum to 1
    rows = 2 * np.arange(3) + (point > 0)
    return discriminant > 0, np.clip((palette[rows] * (point**2)[..., None]).sum(-2), 0, 1)


def _asset(uid: str, number: int) -> Asset:
    """The manifest row of an object, consistent with `_meta`, and a title."""
    return Asset(uid, _SOURCE, _LICENSES[number % len(_LICENSES)], _AUTHOR, title=f"Object {number}")


def _meta(uid: str, number: int, resolution: int, seed: int, views: dict[ViewSet, tuple[View, ...]]) -> Meta:
    return Meta(
        schema_version=SCHEMA_VERSION,
        uid=uid,
        source=_SOURCE,
        license=_LICENSES[number % len(_LICENSES)],
        author=_AUTHOR,
        asset_sha256=hashlib.sha256(f"{seed}/{uid}".encode()).hexdigest(),
        resolution=resolution,
        seed=seed,
        hdri=Hdri("none.exr", 0.0, 1.0),
        normalization=Normalization("longest", 1.0, (0.0, 0.0, 0.0)),
        renderer={"name": "ray casting in numpy"},
        views=views,
    )
