"""The labels of the quality presets on the page. The presets themselves: `distill.quality`."""

from distill.quality import QUALITIES, QualityName


def describe(name: QualityName, *, measured: bool) -> str:
    """Return the label of a preset, such as "draft: a quarter of the steps, about 1.7 min on 2 cores".

    Args:
        name: Name of the preset.
        measured: Whether the durations of `distill.quality` apply: runs with the bundled model on a CPU.
    """
    quality = QUALITIES[name]
    return f"{name}: {quality.about}{f', about {quality.minutes:g} min on 2 cores' if measured else ''}"
