"""Make the HTML page of a distillation run, and the overview page of several runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from PIL import Image

from dataset.html.formats import format_bytes
from dataset.images.decode import BROKEN
from distill.view.curves import Mark, format_number, make_curve
from distill.view.page import Card, Section, make_page
from distill.view.run import StoredRun, format_duration

RELOAD_S: Final = 5.0
_RATE: Final = "views_per_s"
_NAMES: Final = {
    "sds": "Score distillation loss (Eq. 7)",
    "orient": "Orientation loss (Eq. 8)",
    "reference": "Reference view loss",
    "gradient_norm": "Norm of the gradient",
    _RATE: "Rendered views per second",
}
_WORDS: Final = {"sds": "SDS", "rss": "RSS", "gpu": "GPU", "mib": "MiB", "sha256": "SHA-256", "deg": "(degrees)"}
_PANELS: Final = "colors, normals and shape (white under one light)"


def run_page(run: StoredRun, *, served: bool = False, back: tuple[str, str] | None = None) -> str:
    """Return the page of one run as HTML text.

    Args:
        run: The run.
        served: Whether the page is served over HTTP, not written to a file. A served page has links to the files of the
            run, and reloads itself while the run is unfinished.
        back: Name and address of a page to link to at the top, such as the overview; None: no such link.

    Raises:
        UserError: a file of the run cannot be shown.
    """
    parts = (_result, _turntable, _losses, _previews, _numbers, _inputs)
    sections = [section for part in parts if (section := part(run))]
    if served:
        sections.append(_files(run))
    return make_page(
        run.name, sections, lead=_lead(run), back=back, reload_s=RELOAD_S if served and not run.finished else None
    )


def index_page(runs: Sequence[StoredRun], href: Callable[[StoredRun], str], *, served: bool = False) -> str:
    """Return the overview page of several runs as HTML text. It has one box per run, with a link to the run's page.

    Args:
        runs: The runs.
        href: Function that returns the address of the page of a run.
        served: Whether the page is served over HTTP, not written to a file. A served page reloads itself while a run is
            unfinished.

    Raises:
        UserError: a file of a run cannot be shown.
    """
    unfinished = [run for run in runs if not run.finished]
    done = f"{len(runs) - len(unfinished)} of {len(runs)} runs finished."
    section = Section("Runs", cards=[_card(run, href(run)) for run in runs])
    return make_page("Distillations", [section], lead=done, reload_s=RELOAD_S if served and unfinished else None)


def _lead(run: StoredRun) -> str:
    image = run.config.get("image")
    status = run.status[0].upper() + run.status[1:] + "."
    return f"From {image}, by the model {run.config.get('model')}. {status}" if image else status


def _card(run: StoredRun, href: str) -> Card:
    video = run.file("turntable.mp4")
    image = run.file("input.png")
    newest = [] if video or not run.previews else [run.previews[-1][1]]
    figures = _headline(run)
    return Card(run.name, href, run.status, figures=figures, images=[*([image] if image else []), *newest], video=video)


def _headline(run: StoredRun) -> list[tuple[str, str]]:
    """Return the most important numbers of a run that are known so far, each as name and value."""
    found: list[tuple[str, str]] = []
    took = run.metrics.get("took", {})
    if run.mesh:
        closed = "watertight" if run.mesh["watertight"] else "open"
        found.append(("mesh", f"{run.mesh['faces']:,} faces, {closed}"))
    if took:
        found.append(("time", format_duration(sum(took["seconds"].values()))))
    if run.losses.names and run.losses.rows:
        name = run.losses.names[0]
        steps, values = run.losses.of(name)
        found.append((f"{_shown(name)} loss, last tenth", format_number(sum(values[-_tenth(steps) :]) / _tenth(steps))))
    if took.get("peak_gpu_mib"):
        found.append(("GPU memory", f"{took['peak_gpu_mib'] / 1024:.1f} GiB peak"))
    return found


def _tenth(steps: Sequence[float]) -> int:
    return max(1, len(steps) // 10)


def _result(run: StoredRun) -> Section | None:
    image, glb = run.file("input.png"), run.file("mesh.glb") if run.finished else None
    if not image and not glb:
        return None
    return Section(
        "Result" if glb else "Input image",
        "\n\n".join(f"Warning: {warning}" for warning in run.warnings),
        numbers=_headline(run),
        images=[(image, _input_caption(image))] if image else [],
        glb=(glb, "The textured mesh.") if glb else None,
    )


def _input_caption(path: Path) -> str:
    """Return the caption of a prepared input image. It says whether the image is a cut-out: transparent at its edge."""
    caption = "The input image, as the model sees it"
    try:
        with Image.open(path) as image:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    except BROKEN:
        return f"{caption}."
    opaque = max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) > 127
    return f"{caption}: the whole image, with its background." if opaque else f"{caption}: the cut-out, on white."


def _turntable(run: StoredRun) -> Section | None:
    video, views = run.file("turntable.mp4"), run.file("views.png")
    if not video and not views:
        return None
    return Section(
        "Turntable",
        images=[(views, f"Eight views; the rows are {_PANELS}.")] if views else [],
        video=(video, f"One turn of the field: {_PANELS}.") if video else None,
    )


def _losses(run: StoredRun) -> Section | None:
    if not run.losses.rows:
        return None
    settings = run.config.get("settings", {})
    last = max(run.steps or 0, run.step)
    mark = Mark(settings["coarse_fraction"] * last, _fine(settings)) if "coarse_fraction" in settings else None
    curves = [
        make_curve(_NAMES.get(name, name), *run.losses.of(name), last_step=last, mark=mark, linear=name == _RATE)
        for name in (*run.losses.names, _RATE)
    ]
    return Section(
        "Losses",
        "Unweighted losses by step: single values pale, their running mean strong. The score distillation loss of a "
        "step depends on its timestep and views, so compare the means.",
        charts=[curve for curve in curves if curve],
    )


def _fine(settings: Mapping[str, Any]) -> str:
    """Describe the fine part of a run: its resolution, and whether it is lit."""
    lit = ", lit" if settings["shading"]["lit_probability"] else ""
    return f"{settings['fine_resolution']} px{lit}"


def _previews(run: StoredRun) -> Section | None:
    if not run.previews:
        return None
    return Section(
        "Previews",
        f"Four views; the rows are {_PANELS}.",
        series=[(path, f"Step {step:,}") for step, path in run.previews],
    )


def _numbers(run: StoredRun) -> Section | None:
    """Return the metrics, one table per part of the run."""
    parts = {name: part for name, part in run.metrics.items() if isinstance(part, dict)}
    rest = {name: value for name, value in run.metrics.items() if name not in parts and name != "warnings"}
    tables = [(_shown(name), list(_flat(part))) for name, part in {"run": rest, **parts}.items()]
    return Section("Metrics", tables=tables) if run.metrics else None


def _inputs(run: StoredRun) -> Section | None:
    if not run.config:
        return None
    request = {name: value for name, value in run.config.items() if name not in ("settings", "mesh", "warnings")}
    settings = list(_flat(run.config.get("settings", {})))
    return Section(
        "Request",
        figures=list(_flat(request)),
        folded=(f"All {len(settings)} settings", settings) if settings else None,
    )


def _files(run: StoredRun) -> Section:
    return Section(
        "Files",
        links=[
            (f"{path.name} ({format_bytes(path.stat().st_size)})", quote(path.name))
            for path in offered_files(run.folder)
        ],
    )


def offered_files(folder: Path) -> list[Path]:
    """Return the files in a run folder to which the page links: all files except hidden ones and symbolic links."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return rows of nested values, with names joined by colons and without empty values."""
    for name, value in values.items():
        shown = prefix + _shown(name)
        if isinstance(value, dict):
            yield from _flat(value, f"{shown}: ")
        elif value is not None:
            yield shown, _plain(value)


def _shown(name: str) -> str:
    """Return the name of a field in the form in which the page shows it."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return format_number(value)
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
