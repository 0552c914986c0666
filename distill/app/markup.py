"""Make the HTML fragments of the page from templates, which escape all texts."""

import shlex
from collections.abc import Sequence
from typing import Any, Final

from dataset.html.templates import render_page
from distill.app.library import WORDS, RunState
from distill.view.curves import CURVE_HEIGHT, CURVE_WIDTH, make_curve
from distill.view.run import StoredRun, format_duration

_TEMPLATE: Final = "distill/app/parts.html"


def status_html(run: RunState | None, problem: str = "") -> str:
    """Return the state of a run: its status, steps, warnings and the curve of its first loss.

    Args:
        run: The run; None if there is none.
        problem: Why the results of the run cannot be shown; may be empty.
    """
    stored = run.stored if run else None
    chart = None
    if stored is not None and stored.losses.rows and stored.losses.names:
        name = stored.losses.names[0]
        last = max(stored.steps or 0, stored.step)
        chart = make_curve("Score distillation loss", *stored.losses.of(name), last_step=last)
    return _render(
        "status",
        run=run,
        word=WORDS[run.status] if run else "",
        step=stored.step if stored else 0,
        total=stored.steps if stored else None,
        warnings=[*(stored.warnings if stored else ()), *([problem] if problem else [])],
        chart=chart,
    )


def notices_html(notices: Sequence[str] = (), *, warning: str = "", error: str = "") -> str:
    """Return what there is to say about an image: sentences, a warning and an error, each of which may be empty."""
    return _render("notices", notices=notices, warning=warning, error=error)


def settings_html(stored: StoredRun | None, command: Sequence[str], problem: str = "") -> str:
    """Return the settings of a run and its command line.

    Args:
        stored: The files of the run; None if there are none yet.
        command: The command line; empty if it is not known.
        problem: Why the command line is not known.
    """
    return _render("settings", rows=_rows(stored), command=shlex.join(command), problem=problem)


def _rows(stored: StoredRun | None) -> list[tuple[str, str]]:
    if stored is None or not stored.config:
        return []
    config, settings = stored.config, stored.config.get("settings", {})
    took = stored.metrics.get("took", {}).get("seconds", {})
    rows = [
        ("Image", config.get("image")),
        ("Model", config.get("model")),
        ("Preset", config.get("preset")),
        ("Steps", settings.get("steps")),
        ("Seed", settings.get("seed")),
        ("Texture refined", "yes" if settings.get("texture") else "no"),
        ("Elevation", f"{config['elevation_deg']:g} degrees" if "elevation_deg" in config else None),
        ("Guidance scale", config.get("guidance_scale")),
        ("Background", config.get("background")),
        ("Background threshold", config.get("background_threshold")),
        ("Mesh", f"{stored.mesh['faces']:,} faces" if "faces" in stored.mesh else None),
        ("Texture", f"{size:,} pixels" if (size := stored.mesh.get("texture_size")) else None),
        ("Duration", format_duration(sum(took.values())) if took else None),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def _render(part: str, **values: Any) -> str:
    empty = {
        **{"run": None, "word": "", "step": 0, "total": None, "warnings": (), "chart": None, "rows": (), "command": ""},
        **{"notices": (), "warning": "", "error": "", "problem": ""},
    }
    sizes = {"curve_width": CURVE_WIDTH, "curve_height": CURVE_HEIGHT}
    return render_page(_TEMPLATE, {**empty, **sizes, **values, "part": part})
