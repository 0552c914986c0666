"""The page of a run, and of several runs side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from distill.view.curves import Mark, chart, number
from distill.view.page import Card, Section, page
from distill.view.run import Run, duration

RELOAD_S: Final = 5.0
_RATE: Final = "views_per_s"
_NAMES: Final = {
    "sds": "Score distillation loss (Eq. 7)",
    "orient": "Orientation loss (Eq. 8)",
    "reference": "Reference view loss",
    "gradient_norm": "Norm of the gradient",
    _RATE: "Views rendered a second",
}
_WORDS: Final = {"sds": "SDS", "rss": "RSS", "gpu": "GPU", "mib": "MiB", "sha256": "SHA-256", "deg": "(degrees)"}
_PANELS: Final = "colours, normals, and the shape alone under one lamp"


def run_page(run: Run, *, served: bool = False, back: tuple[str, str] | None = None) -> str:
    """The page of one run. `served`: files can be downloaded, and an unfinished run's page reloads itself."""
    parts = (_result, _around, _losses, _previews, _numbers, _inputs)
    sections = [section for part in parts if (section := part(run))]
    if served:
        sections.append(_files(run))
    return page(
        run.name, sections, lead=_lead(run), back=back, reload_s=RELOAD_S if served and not run.finished else None
    )


def index_page(runs: Sequence[Run], href: Callable[[Run], str], *, served: bool = False) -> str:
    """Cards of several runs, each with a link to its own page."""
    unfinished = [run for run in runs if not run.finished]
    done = f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished."
    section = Section("Runs", cards=[_card(run, href(run)) for run in runs])
    return page("Distillations", [section], lead=done, reload_s=RELOAD_S if served and unfinished else None)


def _lead(run: Run) -> str:
    made = run.config.get("image")
    status = run.status[0].upper() + run.status[1:] + "."
    return f"From {made}, by the model {run.config.get('model')}. {status}" if made else status


def _card(run: Run, href: str) -> Card:
    film = run.file("turntable.mp4")
    picture = run.file("input.png")
    newest = [] if film or not run.previews else [run.previews[-1][1]]
    figures = _headline(run)
    return Card(
        run.name, href, run.status, figures=figures, images=[*([picture] if picture else []), *newest], video=film
    )


def _headline(run: Run) -> list[tuple[str, str]]:
    """The figures that matter most, as far as they are known."""
    found: list[tuple[str, str]] = []
    took = run.metrics.get("took", {})
    if run.mesh:
        closed = "watertight" if run.mesh["watertight"] else "open"
        found.append(("mesh", f"{run.mesh['faces']:,} faces, {closed}"))
    if took:
        found.append(("time", duration(sum(took["seconds"].values()))))
    if run.losses.names and run.losses.rows:
        name = run.losses.names[0]
        steps, values = run.losses.of(name)
        found.append((f"{_shown(name)} loss, last tenth", number(sum(values[-_tenth(steps) :]) / _tenth(steps))))
    if took.get("peak_gpu_mib"):
        found.append(("GPU memory", f"{took['peak_gpu_mib'] / 1024:.1f} GiB at most"))
    return found


def _tenth(steps: Sequence[float]) -> int:
    return max(1, len(steps) // 10)


def _result(run: Run) -> Section | None:
    picture, glb = run.file("input.png"), run.file("mesh.glb") if run.finished else None
    if not picture and not glb:
        return None
    return Section(
        "The result" if glb else "The picture",
        numbers=_headline(run),
        images=[(picture, "The picture, as the model saw it.")] if picture else [],
        glb=(glb, "The textured mesh.") if glb else None,
    )


def _around(run: Run) -> Section | None:
    film, views = run.file("turntable.mp4"), run.file("views.png")
    if not film and not views:
        return None
    return Section(
        "All around",
        images=[(views, f"From eight sides, by row: {_PANELS}.")] if views else [],
        video=(film, f"The field in one turn: {_PANELS}.") if film else None,
    )


def _losses(run: Run) -> Section | None:
    if not run.losses.rows:
        return None
    settings = run.config.get("settings", {})
    last = max(run.steps or 0, run.step)
    mark = Mark(settings["coarse_fraction"] * last, _fine(settings)) if "coarse_fraction" in settings else None
    charts = [
        chart(_NAMES.get(name, name), *run.losses.of(name), last_step=last, mark=mark, linear=name == _RATE)
        for name in (*run.losses.names, _RATE)
    ]
    return Section(
        "Losses",
        "By step, unweighted: every value pale, their running mean strong. A step's score distillation loss depends on "
        "its timestep and its views, so look at the mean.",
        charts=charts,
    )


def _fine(settings: Mapping[str, Any]) -> str:
    """What changes after the coarse part."""
    lit = ", lit" if settings["shading"]["lit_probability"] else ""
    return f"{settings['fine_resolution']} px{lit}"


def _previews(run: Run) -> Section | None:
    if not run.previews:
        return None
    return Section(
        "On its way",
        f"Four sides, by row: {_PANELS}.",
        series=[(path, f"Step {step:,}") for step, path in run.previews],
    )


def _numbers(run: Run) -> Section | None:
    """The metrics, a table for each of their parts."""
    parts = {name: part for name, part in run.metrics.items() if isinstance(part, dict)}
    rest = {name: value for name, value in run.metrics.items() if name not in parts}
    tables = [(_shown(name), list(_flat(part))) for name, part in {"run": rest, **parts}.items()]
    return Section("In numbers", tables=tables) if run.metrics else None


def _inputs(run: Run) -> Section | None:
    if not run.config:
        return None
    asked = {name: value for name, value in run.config.items() if name not in ("settings", "mesh")}
    settings = list(_flat(run.config.get("settings", {})))
    return Section(
        "What was asked",
        figures=list(_flat(asked)),
        folded=(f"All {len(settings)} settings", settings) if settings else None,
    )


def _files(run: Run) -> Section:
    return Section("Files", links=[(f"{path.name} ({size(path)})", quote(path.name)) for path in files(run.folder)])


def files(folder: Path) -> list[Path]:
    """The files of a run that a page offers: its own, no hidden ones, nothing that leads out of the folder."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


def size(path: Path) -> str:
    count = path.stat().st_size
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of nested values: names joined with dots, empty values left out."""
    for name, value in values.items():
        shown = prefix + _shown(name)
        if isinstance(value, dict):
            yield from _flat(value, f"{shown}: ")
        elif value is not None:
            yield shown, _plain(value)


def _shown(name: str) -> str:
    """A name of a file as people write it."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
