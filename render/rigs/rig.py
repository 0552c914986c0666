"""Read a camera rig, which says from where an object is rendered and how it is lit, from a TOML file.

The rigs in this folder follow other projects' renderers; each file names its sources. A file of your own has the same
form:

    name = "three"
    version = 1
    projection = "perspective"          # or "orthographic"

    normalize = "longest"               # or "sphere", as --normalize

    [light]
    kind = "hdri"                       # or "white" with a strength, or "lamps" (render.rigs.lamps)

    [[views]]
    set = "random"                      # of the views' names: fixed_00 ..., random_00 ...
    count = 3
    elevation_deg = { uniform = [0, 30] }
    azimuth_deg = { spaced = 360 }
    distance = 1.5
    fov_deg = 40                        # with an orthographic projection instead: width = 1.2

A number holds for all views, and a list has one number per view. `uniform = [a, b]` draws a number per view,
`uniform_once = [a, b]` one per object, and `sphere = [a, b]` elevations that are uniform on the sphere between two
elevations. `choice = [...]` draws one of the numbers per view. `spaced = 360` spreads the views evenly from 0.
`relative = [...]` is added to the value of the first random view, the input view. `fit = 1` or `fit = [a, b]`, for
distances, is a multiple (of two numbers: drawn once per object) of the distance at which a length of 1 at the origin
fills the frame. Without `fov_deg`, cameras have the paper's lens of 35 mm on a sensor of 32 mm.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.camera import fov_deg, intrinsics
from dataset.errors import UserError
from dataset.format.schema import MAX_VIEWS, VIEW_SETS, NormalizeMode, Projection, ViewSet
from render.procedural.catalog import generator
from render.rigs.cameras import Pose
from render.rigs.lamps import Lamp, parse_lamps, stored_lamp
from render.rigs.values import check_keys, to_choice, to_number, to_text

FOLDER: Final = Path(__file__).parent
DEFAULT_RIG: Final = "isotropic3d"
Rule = Literal["values", "uniform", "uniform_once", "sphere", "choice", "spaced", "relative", "fit"]
LightKind = Literal["hdri", "white", "lamps"]
_FIELDS: Final = ("elevation_deg", "azimuth_deg", "fov_deg", "width", "distance")
_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "elevation_deg": (-90, 90),
    "azimuth_deg": (-720, 720),
    "distance": (0.1, 100),
    "fov_deg": (1, 170),
    "width": (0.01, 100),
}


@dataclass(frozen=True)
class Values:
    """How the values of one field are chosen for the views of a group."""

    rule: Rule
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class ViewGroup:
    """Views that belong to the same view set and are chosen together."""

    view_set: ViewSet
    count: int
    fields: Mapping[str, Values]  # elevation_deg, azimuth_deg, distance, and perhaps fov_deg or width


@dataclass(frozen=True)
class Rig:
    """A camera rig: the cameras and the light of every object of a set."""

    name: str
    version: int
    projection: Projection
    light: LightKind
    light_strength: float
    groups: tuple[ViewGroup, ...]
    normalize: NormalizeMode = "longest"
    lamps: tuple[Lamp, ...] = ()

    @property
    def label(self) -> str:
        """Name and version, as in the metadata of objects."""
        return f"{self.name} v{self.version}"

    def poses(self, seed: int, uid: str) -> dict[ViewSet, tuple[Pose, ...]]:
        """Return the cameras of the object `uid` by view set. `seed` is the seed of the shard set."""
        drawn: dict[ViewSet, list[Pose]] = {view_set: [] for view_set in VIEW_SETS}
        for place, group in sorted(enumerate(self.groups), key=lambda item: item[1].view_set != "random"):
            first = not drawn[group.view_set]
            stream = "" if group.view_set == "random" else f"{group.view_set}-"
            poses = _poses(group, "" if first else str(place), stream, (seed, uid), next(iter(drawn["random"]), None))
            drawn[group.view_set] += poses
        return {view_set: tuple(poses) for view_set, poses in drawn.items()}


def _poses(group: ViewGroup, number: str, stream: str, key: tuple[int, str], reference: Pose | None) -> list[Pose]:
    """Return the cameras of a group of views.

    Args:
        group: The group.
        number: Number of the group; empty for the first group of its view set.
        stream: Begin of the names of the random streams.
        key: Seed of the shard set, and uid of the object.
        reference: The input view; None if it is in this group.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for name in _FIELDS:
        if name not in group.fields:
            continue
        values = group.fields[name]
        shared = values.rule in ("uniform_once", "fit")  # by all groups of the view set
        rng = generator(f"{stream}{name.removesuffix('_deg')}s{'' if shared else number}", *key)
        start = 0.0 if reference is None else float(getattr(reference, name) or 0.0)
        columns[name] = _drawn(values, group.count, rng, start)
        if values.rule == "fit":
            lens = columns.get("fov_deg", np.full(group.count, fov_deg(intrinsics(1), 1)))
            columns[name] = columns[name] * 0.5 / np.tan(np.deg2rad(lens) / 2)
    return [Pose(**dict(zip(columns, map(float, view), strict=True))) for view in zip(*columns.values(), strict=True)]


def _drawn(values: Values, count: int, rng: np.random.Generator, start: float) -> NDArray[np.float64]:
    """Return `count` numbers by a rule. `start` is the value of the input view."""
    numbers: NDArray[np.float64] = np.array(values.numbers)
    low, high = float(numbers[0]), float(numbers[-1])
    found = np.broadcast_to(numbers, count) if len(numbers) == 1 else numbers
    match values.rule:
        case "uniform":
            found = rng.uniform(low, high, count)
        case "uniform_once" | "fit":
            found = np.full(count, rng.uniform(low, high))
        case "sphere":
            found = np.rad2deg(np.arcsin(rng.uniform(np.sin(np.deg2rad(low)), np.sin(np.deg2rad(high)), count)))
        case "choice":
            found = rng.choice(numbers, count)
        case "spaced":
            found = low / count * np.arange(count, dtype=np.float64)
        case "relative":
            found = start + numbers
    return found


@cache
def default_rig() -> Rig:
    """Return the rig of the paper."""
    return read_rig(DEFAULT_RIG)


def poses(seed: int, uid: str) -> dict[ViewSet, tuple[Pose, ...]]:
    """Return the 16 fixed and the 16 random cameras of the default rig for the object `uid`.

    `seed` is the seed of the shard set.
    """
    return default_rig().poses(seed, uid)


def shipped_rigs() -> list[str]:
    """Return the names of the rigs in this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_rig(name: str) -> Rig:
    """Read a rig by its name, or from a TOML file.

    Args:
        name: Name of a rig in this folder, such as "zero123", or path of a file that ends in .toml.

    Raises:
        UserError: There is no such rig, or the file is invalid.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if name not in shipped_rigs() and not name.endswith(".toml"):
        raise UserError(f"--rig {name}: there is no such rig; choose {', '.join(shipped_rigs())}, or a file name.toml")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--rig {name}: there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"--rig {name}: the file {path} is not readable TOML ({error})") from error
    return parse_rig(raw, str(path))


def stored_rig(raw: Mapping[str, Any]) -> Rig:
    """Convert a rig that `dataclasses.asdict` and JSON have converted to a mapping."""
    groups = tuple(
        ViewGroup(
            group["view_set"],
            group["count"],
            {name: Values(values["rule"], tuple(values["numbers"])) for name, values in group["fields"].items()},
        )
        for group in raw["groups"]
    )
    lamps = tuple(stored_lamp(lamp) for lamp in raw["lamps"])
    return Rig(**{**raw, "groups": groups, "lamps": lamps})


def parse_rig(raw: Mapping[str, Any], where: str) -> Rig:
    """Convert the content of a TOML file to a rig.

    Args:
        raw: The content.
        where: Path of the file, with which error messages begin.

    Raises:
        UserError: A value is missing, unknown or out of range.
    """
    check_keys(raw, {"name", "version", "projection", "normalize", "light", "views", "sources"}, where)
    light = dict(raw.get("light", {"kind": "hdri"}))
    check_keys(light, {"kind", "strength", "lamps"}, f"{where}: light")
    projection = to_choice(raw.get("projection", "perspective"), get_args(Projection), f"{where}: projection")
    groups = raw.get("views")
    if not isinstance(groups, list) or not groups:
        raise UserError(f"{where}: views is missing; add at least one [[views]]")
    rig = Rig(
        name=to_text(raw.get("name"), f"{where}: name"),
        version=int(to_number(raw.get("version"), f"{where}: version", 1, 1000)),
        projection=projection,
        light=to_choice(light.get("kind"), get_args(LightKind), f"{where}: light.kind"),
        light_strength=to_number(light.get("strength", 1.0), f"{where}: light.strength", 0, 1000),
        groups=tuple(_group(group, f"{where}: views[{i}]", projection) for i, group in enumerate(groups)),
        normalize=to_choice(raw.get("normalize", "longest"), get_args(NormalizeMode), f"{where}: normalize"),
        lamps=parse_lamps(light.get("lamps", []), f"{where}: light.lamps"),
    )
    if (rig.light == "lamps") != bool(rig.lamps):
        raise UserError(f'{where}: [[light.lamps]] and light.kind = "lamps" need each other')
    for view_set in VIEW_SETS:
        if (count := sum(group.count for group in rig.groups if group.view_set == view_set)) > MAX_VIEWS:
            raise UserError(f"{where}: the view set {view_set} has {count} views; at most {MAX_VIEWS} are possible")
    relative = any(values.rule == "relative" for group in rig.groups for values in group.fields.values())
    if relative and not any(group.view_set == "random" for group in rig.groups):
        raise UserError(f"{where}: values are relative to the first random view, but there is no random view")
    return rig


def _group(raw: Any, where: str, projection: Projection) -> ViewGroup:
    if not isinstance(raw, dict):
        raise UserError(f"{where} is {raw!r}, expected a table")
    check_keys(raw, {"set", "count", *_FIELDS}, where)
    count = int(to_number(raw.get("count"), f"{where}.count", 1, MAX_VIEWS))
    needed = {"elevation_deg", "azimuth_deg", "distance"} | ({"width"} if projection == "orthographic" else set())
    foreign = "fov_deg" if projection == "orthographic" else "width"
    if missing := sorted(needed - set(raw)):
        raise UserError(f"{where}.{missing[0]} is missing")
    if foreign in raw:
        raise UserError(f"{where}.{foreign} does not belong to a {projection} rig; remove it")
    fields = {name: _values(raw[name], count, name, f"{where}.{name}") for name in _FIELDS if name in raw}
    view_set = to_choice(raw.get("set"), VIEW_SETS, f"{where}.set")
    if view_set == "random" and any(values.rule == "relative" for values in fields.values()):
        raise UserError(f'{where}: random views cannot be relative to the first random view; use set = "fixed"')
    return ViewGroup(view_set, count, fields)


def _values(raw: Any, count: int, name: str, where: str) -> Values:
    low, high = _LIMITS[name]
    if isinstance(raw, dict):
        if len(raw) != 1 or next(iter(raw)) not in get_args(Rule)[1:]:
            raise UserError(f"{where} is {raw!r}; give a number, a list, or one of {', '.join(get_args(Rule)[1:])}")
        ((rule, given),) = raw.items()
    else:
        rule, given = "values", raw
    listed = given if isinstance(given, list) else [given]
    sizes = {"values": (1, count), "relative": (count,), "spaced": (1,), "fit": (1, 2), "choice": range(1, 101)}
    expected = sizes.get(rule, (2,))
    if len(listed) not in expected:
        sizes_text = " or ".join(map(str, sorted({min(expected), max(expected)})))
        raise UserError(f"{where} has {len(listed)} numbers, expected {sizes_text}")
    if rule == "sphere" and name != "elevation_deg":
        raise UserError(f"{where}: only elevations can be uniform on the sphere")
    if rule == "fit" and name != "distance":
        raise UserError(f"{where}: only distances can fit the frame")
    bounds = (-1000, 1000) if rule in ("relative", "spaced") else (low, high)
    return Values(rule, tuple(to_number(number, where, *bounds) for number in listed))
