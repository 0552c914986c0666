"""Lamps of a rig: point, area and sun lights, whose energy and place may be random for each object.

    [[light.lamps]]
    type = "area"                  # point, area or sun
    energy = [300, 600]            # watts (sun: watts per square meter); two numbers: uniform between them
    x = [-1, 1]                    # place in world units; two numbers: uniform between them
    y = [-1, 1]
    z = [0.5, 1.5]
    size = 1.0                     # side of an area light, diameter of a point light
    shadow = true

A lamp shines at the origin: area and sun lights point there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from dataset.errors import UserError
from render.procedural.catalog import generator
from render.rigs.values import check_keys, to_choice, to_number

LampType = Literal["point", "area", "sun"]
MOST_LAMPS: Final = 16
Range = tuple[float, float]


@dataclass(frozen=True)
class Lamp:
    """A lamp. Values with two numbers are uniform between them, for each object."""

    type: LampType
    energy: Range
    x: Range
    y: Range
    z: Range
    size: float
    shadow: bool


@dataclass(frozen=True)
class PlacedLamp:
    """A lamp of one object: energy in watts (a sun: per square meter), and place in world units."""

    type: LampType
    energy: float
    place: tuple[float, float, float]
    size: float
    shadow: bool


def place_lamps(lamps: tuple[Lamp, ...], seed: int, uid: str) -> list[PlacedLamp]:
    """Draw the random values of lamps for the object `uid`. `seed` is the seed of the shard set."""
    placed = []
    for index, lamp in enumerate(lamps):
        rng = generator("lamp", index, seed, uid)
        energy, x, y, z = (float(rng.uniform(*values)) for values in (lamp.energy, lamp.x, lamp.y, lamp.z))
        placed.append(PlacedLamp(lamp.type, energy, (x, y, z), lamp.size, lamp.shadow))
    return placed


def stored_lamp(raw: Mapping[str, Any]) -> Lamp:
    """Convert a lamp that `dataclasses.asdict` and JSON have converted to a mapping."""
    energy, x, y, z = ((float(low), float(high)) for low, high in (raw[name] for name in ("energy", "x", "y", "z")))
    return Lamp(raw["type"], energy, x, y, z, raw["size"], raw["shadow"])


def parse_lamps(raw: Any, where: str) -> tuple[Lamp, ...]:
    """Convert the lamps of a TOML file. `where` is their place in the file. Raises UserError for invalid values."""
    if not isinstance(raw, list) or not all(isinstance(lamp, dict) for lamp in raw) or len(raw) > MOST_LAMPS:
        raise UserError(f"{where} is not a list of at most {MOST_LAMPS} tables [[light.lamps]]")
    return tuple(_lamp(lamp, f"{where}[{index}]") for index, lamp in enumerate(raw))


def _lamp(raw: dict[str, Any], where: str) -> Lamp:
    check_keys(raw, {"type", "energy", "x", "y", "z", "size", "shadow"}, where)
    shadow = raw.get("shadow", True)
    if not isinstance(shadow, bool):
        raise UserError(f"{where}.shadow is {shadow!r}, expected true or false")
    x, y, z = (_range(raw.get(axis), f"{where}.{axis}", -100, 100) for axis in "xyz")
    return Lamp(
        to_choice(raw.get("type"), get_args(LampType), f"{where}.type"),
        _range(raw.get("energy"), f"{where}.energy", 0, 1e6),
        x,
        y,
        z,
        to_number(raw.get("size", 0.1), f"{where}.size", 0, 1000),
        shadow,
    )


def _range(raw: Any, where: str, low: float, high: float) -> Range:
    listed = raw if isinstance(raw, list) else [raw, raw]
    if len(listed) != 2:
        raise UserError(f"{where} has {len(listed)} numbers, expected 1 or 2")
    first, last = (to_number(value, where, low, high) for value in listed)
    return first, last
