"""Define the schema of a sample, which stores one rendered object, and validate samples.

A sample has 33 members: `UID.meta.json`, then `UID.fixed_00.webp` ... `UID.fixed_15.webp` and `UID.random_00.webp` ...
`UID.random_15.webp`. The images are lossless RGBA with straight alpha. WebDataset splits a member name at its first
dot, so a uid contains no dot.

A sample of schema version 2 has views of another camera rig, up to 100 in each view set, or passes
(`dataset.format.passes`), which follow the images: `UID.fixed_00.depth.png` and so on. Its metadata name the rig and
list the views and the passes.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from dataset.errors import UserError
from dataset.format.passes import PASSES, PassName, check_pass

SCHEMA_VERSION: Final = 1
EXTENDED_VERSION: Final = 2  # of a sample with another rig, or with passes
ViewSet = Literal["fixed", "random"]
ViewKey = tuple[ViewSet, int]  # view set, and index of the view in it
Projection = Literal["perspective", "orthographic"]
NormalizeMode = Literal["longest", "sphere"]
StoredMode = Literal[NormalizeMode, "given"]  # given: the size of the object is unknown, as in imported sets
VIEW_SETS: Final[tuple[ViewSet, ...]] = get_args(ViewSet)
VIEWS_PER_SET: Final = 16
MAX_VIEWS: Final = 100  # of a view set: their numbers have two digits
ALL_VIEWS: Final[tuple[ViewKey, ...]] = tuple((s, i) for s in VIEW_SETS for i in range(VIEWS_PER_SET))
_UID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUFFIX: Final = re.compile(rf"meta\.json|({'|'.join(VIEW_SETS)})_\d\d\.(webp|({'|'.join(PASSES)})\.png)")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
RendererValue = str | int | float | bool | None


class SchemaError(UserError):
    """A sample or its metadata violates the schema. The message names the sample and the metadata field."""


@dataclass(frozen=True)
class View:
    """Camera of one image. `c2w` is in the "blender" convention of `dataset.camera`, `K` is in pixels.

    For an orthographic camera, the focal lengths in `K` are pixels per world unit: pixel coordinates are K (x, y, 1).
    """

    elevation_deg: float
    azimuth_deg: float
    distance: float
    c2w: tuple[tuple[float, ...], ...]  # 4 x 4
    K: tuple[tuple[float, ...], ...]  # 3 x 3
    alpha_coverage: float  # mean alpha of the image, 0 to 1
    clipped: bool  # the object touches the image border


@dataclass(frozen=True)
class Hdri:
    """The environment light of an object: file name, rotation about the vertical axis, and brightness factor."""

    name: str
    rotation_deg: float
    strength: float


@dataclass(frozen=True)
class Normalization:
    """The map from the 3D model's points to normalized points, in Blender's axes: scale * (point + offset)."""

    mode: StoredMode
    scale: float
    offset: tuple[float, float, float]


@dataclass(frozen=True)
class Meta:
    """Metadata of one rendered object, as stored in the member `UID.meta.json`."""

    schema_version: int
    uid: str
    source: str
    license: str
    author: str
    asset_sha256: str
    resolution: int
    seed: int
    hdri: Hdri
    normalization: Normalization
    renderer: Mapping[str, RendererValue]
    views: Mapping[ViewSet, tuple[View, ...]]
    passes: tuple[PassName, ...] = ()  # in the order of `dataset.format.passes.PASSES`
    rig: str = ""  # name and version of the camera rig; empty: the 32 views of the paper
    projection: Projection = "perspective"

    @property
    def view_keys(self) -> tuple[ViewKey, ...]:
        """The views, in the order of their members."""
        return tuple((view_set, index) for view_set in VIEW_SETS for index in range(len(self.views[view_set])))


def check_uid(uid: str) -> str:
    """Return `uid` unchanged if it can be a file name, a WebDataset key and a component of a path.

    Raises:
        SchemaError: `uid` has other characters than A-Z, a-z, 0-9, _ and -, or not 1 to 128 characters.
    """
    if not _UID.fullmatch(uid):
        raise SchemaError(f"uid {uid!r} is invalid; use 1 to 128 of the characters A-Z a-z 0-9 _ - as a uid")
    return uid


def meta_name(uid: str) -> str:
    return f"{check_uid(uid)}.meta.json"


def member_name(uid: str, view_set: ViewSet, index: int) -> str:
    """Return the member name of one view, such as "UID.fixed_03.webp".

    Args:
        uid: Uid of the object.
        view_set: "fixed" or "random".
        index: Number of the view within the view set, 0 to 99.

    Raises:
        SchemaError: There is no such view, or the uid is not valid.
    """
    if view_set not in VIEW_SETS or not 0 <= index < MAX_VIEWS:
        raise SchemaError(
            f"there is no view number {index} in the view set {view_set!r}; the view sets are {VIEW_SETS}, and their "
            f"views are numbered 0 to {MAX_VIEWS - 1} at most"
        )
    return f"{check_uid(uid)}.{view_set}_{index:02d}.webp"


def pass_name(uid: str, view_set: ViewSet, index: int, name: PassName) -> str:
    """Return the member name of a pass of one view, such as "UID.fixed_03.depth.png".

    Raises:
        SchemaError: There is no such view, or the uid is not valid.
    """
    return f"{member_name(uid, view_set, index).removesuffix('.webp')}.{name}.png"


def member_names(uid: str, views: Sequence[ViewKey] = ALL_VIEWS, passes: Sequence[PassName] = ()) -> list[str]:
    """Return the names of the members of the object `uid`, in their order in a shard: by default 33.

    Args:
        uid: Uid of the object.
        views: The object's views, from `Meta.view_keys`.
        passes: The object's passes, of each view.
    """
    images = [member_name(uid, view_set, index) for view_set, index in views]
    return [meta_name(uid), *images, *(pass_name(uid, *view, name) for view in views for name in passes)]


def sample_names(uid: str, members: Mapping[str, bytes]) -> list[str]:
    """Return the names that the members of the sample of `uid` must have by its metadata, in their order in a shard.

    If the metadata are missing or damaged, the names are those of a sample of schema version 1.

    Args:
        uid: Uid of the object.
        members: Members of the sample (full member name -> data).
    """
    try:
        meta = parse_meta(members[meta_name(uid)], uid)
    except (KeyError, SchemaError):
        return member_names(uid)
    return member_names(uid, meta.view_keys, meta.passes)


def is_member_name(name: str) -> bool:
    """Return whether a sample can have a member of this name, such as "UID.meta.json" or "UID.fixed_00.webp"."""
    uid, _, suffix = name.partition(".")
    return bool(_UID.fullmatch(uid)) and bool(_SUFFIX.fullmatch(suffix))


def dump_meta(meta: Meta) -> bytes:
    """Convert metadata to JSON bytes. Equal metadata give equal bytes; `parse_meta` converts the bytes back."""
    values = asdict(meta)
    if meta.schema_version == SCHEMA_VERSION:
        del values["passes"], values["rig"], values["projection"]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class _Reader:
    """Typed access to the fields of a JSON object. Every error names the sample and the full path of the field."""

    def __init__(self, value: Any, where: str, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(value, dict):
            raise self.error("", f"is of the type {type(value).__name__}, expected a JSON object")
        self.value: dict[str, Any] = value

    def error(self, key: str, what: str) -> SchemaError:
        name = ".".join(part for part in (self.path, key) if part) or "metadata"
        return SchemaError(f"{self.where}: {name} {what}")

    def _get(self, key: str) -> Any:
        if key not in self.value:
            raise self.error(key, "is missing")
        return self.value[key]

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self.error(key, f"is {value!r}, expected text")
        return value

    def integer(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"is {value!r}, expected an integer")
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(key, f"is {value!r}, expected a finite number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise self.error(key, f"is {value!r}, expected true or false")
        return value

    def numbers(self, key: str, shape: tuple[int, ...]) -> Any:
        """Return the field `key`, an array of finite numbers of the given shape, as nested tuples."""
        value = self._get(key)
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise self.error(key, f"is not an array of numbers ({error})") from error
        if array.shape != shape or not np.isfinite(array).all():
            raise self.error(
                key, f"is an array of the shape {array.shape}, expected finite numbers in the shape {shape}"
            )
        return tuple(map(tuple, array.tolist())) if len(shape) == 2 else tuple(array.tolist())

    def nested(self, key: str) -> "_Reader":
        return _Reader(self._get(key), self.where, ".".join(part for part in (self.path, key) if part))

    def items(self, key: str, length: int) -> list["_Reader"]:
        value = self._get(key)
        if not isinstance(value, list) or len(value) != length:
            found = f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
            raise self.error(key, f"has {found}, expected a list of {length} entries")
        return [_Reader(item, self.where, f"{self.path}.{key}[{i}]".lstrip(".")) for i, item in enumerate(value)]


def _parse_view(reader: _Reader) -> View:
    view = View(
        elevation_deg=reader.number("elevation_deg"),
        azimuth_deg=reader.number("azimuth_deg"),
        distance=reader.number("distance"),
        c2w=reader.numbers("c2w", (4, 4)),
        K=reader.numbers("K", (3, 3)),
        alpha_coverage=reader.number("alpha_coverage"),
        clipped=reader.flag("clipped"),
    )
    if not 0 <= view.alpha_coverage <= 1:
        raise reader.error("alpha_coverage", f"is {view.alpha_coverage}, expected a number from 0 to 1")
    return view


def _parse_uid(reader: _Reader) -> str:
    uid = reader.text("uid")
    try:
        return check_uid(uid)
    except SchemaError as error:
        raise SchemaError(f"{reader.where}: the metadata name an unusable object: {error}") from error


def _parse_normalization(reader: _Reader) -> Normalization:
    mode = reader.text("mode")
    known = next((known for known in get_args(StoredMode) if known == mode), None)
    if known is None:
        raise reader.error("mode", f"is {mode!r}, expected one of {get_args(StoredMode)}")
    return Normalization(
        mode=known,
        scale=reader.number("scale"),
        offset=reader.numbers("offset", (3,)),
    )


def _parse_renderer(reader: _Reader) -> dict[str, RendererValue]:
    for key, value in reader.value.items():
        if not isinstance(value, str | int | float | bool | None):
            raise reader.error(key, f"is {value!r}, expected text, a number, true, false or null")
    return dict(reader.value)


def _parse_extension(reader: _Reader) -> tuple[tuple[PassName, ...], str, Projection]:
    names, projection = reader.value.get("passes"), reader.text("projection")
    if not isinstance(names, list) or names != [name for name in PASSES if name in names]:
        raise reader.error("passes", f"is {names!r}, expected some of {list(PASSES)}, in this order")
    known = next((known for known in get_args(Projection) if known == projection), None)
    if known is None:
        raise reader.error("projection", f"is {projection!r}, expected one of {get_args(Projection)}")
    return tuple(names), reader.text("rig"), known


def _parse_views(reader: _Reader, version: int) -> dict[ViewSet, tuple[View, ...]]:
    found: dict[ViewSet, tuple[View, ...]] = {}
    for view_set in VIEW_SETS:
        given = reader.value.get(view_set)
        count = VIEWS_PER_SET
        if version == EXTENDED_VERSION and isinstance(given, list) and len(given) <= MAX_VIEWS:
            count = len(given)
        found[view_set] = tuple(_parse_view(view) for view in reader.items(view_set, count))
    if not any(found.values()):
        raise reader.error("", "has no views, expected at least one")
    return found


def parse_meta(data: bytes, where: str) -> Meta:
    """Convert the JSON bytes of a metadata member to `Meta`.

    Args:
        data: Contents of the member.
        where: Path of the member, such as "shard-000000.tar/UID.meta.json", with which error messages begin.

    Raises:
        SchemaError: The metadata violate the schema.
    """
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise SchemaError(f"{where}: the metadata are not valid JSON ({error})") from error
    top = _Reader(raw, where)
    version = top.integer("schema_version")
    if version not in (SCHEMA_VERSION, EXTENDED_VERSION):
        readable = f"the versions {SCHEMA_VERSION} and {EXTENDED_VERSION}"
        raise top.error("schema_version", f"is {version}, but this program reads {readable} only")
    hdri = top.nested("hdri")
    extension = _parse_extension(top) if version == EXTENDED_VERSION else ()
    meta = Meta(
        version,
        _parse_uid(top),
        top.text("source"),
        top.text("license"),
        top.text("author"),
        top.text("asset_sha256"),
        top.integer("resolution"),
        top.integer("seed"),
        Hdri(hdri.text("name"), hdri.number("rotation_deg"), hdri.number("strength")),
        _parse_normalization(top.nested("normalization")),
        _parse_renderer(top.nested("renderer")),
        _parse_views(top.nested("views"), version),
        *extension,
    )
    if not _SHA256.fullmatch(meta.asset_sha256):
        raise top.error("asset_sha256", f"is {meta.asset_sha256!r}, expected 64 hexadecimal digits")
    if meta.resolution < 1:
        raise top.error("resolution", f"is {meta.resolution} pixels per side, expected at least 1")
    return meta


def validate_sample(members: Mapping[str, bytes], where: str) -> Meta:
    """Check the member names, the metadata and the images of one sample, and return the metadata.

    Args:
        members: The members of the sample (full member name -> data).
        where: Name or path of the shard, with which error messages begin.

    Raises:
        SchemaError: The sample violates the schema; the message describes the first violation only.
        UserError: An image cannot be decoded.
    """
    from dataset.images.prepare import decode_webp

    metas = [name for name in members if name.endswith(".meta.json")]
    if len(metas) != 1:
        raise SchemaError(
            f"{where}: the sample has {len(metas)} members named *.meta.json, expected 1; write the sample again"
        )
    meta = parse_meta(members[metas[0]], f"{where}/{metas[0]}")
    views = len(meta.view_keys)
    expected = member_names(meta.uid, meta.view_keys, meta.passes)
    if missing := [name for name in expected if name not in members]:
        raise SchemaError(f"{where}: the sample lacks the members {', '.join(missing)}; write the sample again")
    if foreign := sorted(set(members) - set(expected)):
        raise SchemaError(f"{where}: the sample has unexpected members: {', '.join(foreign)}; write the sample again")
    for name in expected[1 : 1 + views]:
        image = decode_webp(members[name], f"{where}/{name}")
        if image.shape != (meta.resolution, meta.resolution, 4):
            raise SchemaError(
                f"{where}/{name}: the image has the shape {image.shape}, but the metadata of the object say "
                f"{(meta.resolution, meta.resolution, 4)}"
            )
    for name in expected[1 + views :]:
        check_pass(name, members[name], f"{where}/{name}", meta.resolution)
    return meta
