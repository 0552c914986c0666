"""The quality presets of the app: how many steps a run has, and how long it takes."""

from dataclasses import dataclass
from typing import Final, Literal

from distill.config import TextureChoice

QualityName = Literal["draft", "normal", "high"]


@dataclass(frozen=True)
class Quality:
    """A quality preset."""

    steps_scale: float
    """Number of steps, as a multiple of the default of `python -m distill`."""
    texture: TextureChoice
    minutes: float
    """Duration in minutes of a run with the bundled model on 2 CPU cores (docs/app.md)."""
    about: str


QUALITIES: Final[dict[QualityName, Quality]] = {
    "draft": Quality(0.25, "off", 1.7, "a quarter of the steps, colors not refined"),
    "normal": Quality(1.0, "auto", 5.5, "the settings of make distill"),
    "high": Quality(2.0, "auto", 10.0, "twice the steps"),
}


def describe(name: QualityName, *, measured: bool) -> str:
    """Return the label of a preset, such as "normal: about 5.5 min".

    Args:
        name: Name of the preset.
        measured: Whether the measured duration applies: runs with the bundled model on a CPU.
    """
    quality = QUALITIES[name]
    minutes = f", about {quality.minutes:g} min on 2 cores" if measured else ""
    return f"{name}: {quality.about}{minutes}"
