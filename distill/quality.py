"""The quality presets of `python -m distill` and of the app: how many steps a run has, and how long it takes."""

from dataclasses import dataclass
from typing import Final, Literal

TextureChoice = Literal["auto", "on", "off"]
QualityName = Literal["draft", "normal", "high"]


@dataclass(frozen=True)
class Quality:
    """A quality preset."""

    steps_scale: float
    """Number of steps, as a multiple of the number of the preset (`distill.sds.schedule.PRESETS`)."""
    texture: TextureChoice
    minutes: float
    """Measured duration in minutes of a run with the bundled model on 2 CPU cores (docs/app.md)."""
    about: str

    def steps(self, of_preset: int) -> int:
        """Return the number of steps of a run whose preset has `of_preset` steps."""
        return max(1, round(of_preset * self.steps_scale))


QUALITIES: Final[dict[QualityName, Quality]] = {
    "draft": Quality(0.25, "off", 1.7, "a quarter of the steps, colors not refined"),
    "normal": Quality(1.0, "auto", 5.5, "the steps and the colors of the preset"),
    "high": Quality(2.0, "auto", 11.0, "twice the steps"),
}


def quality_help() -> str:
    """Return the help text of the option `--quality`, which states the durations."""
    each = "; ".join(f"{name}: {quality.about}, {quality.minutes:g} min" for name, quality in QUALITIES.items())
    return (
        f"Number of steps and refinement of the colors. {each}. The durations are those of the bundled model on 2 CPU "
        "cores. --steps and --texture override this."
    )
