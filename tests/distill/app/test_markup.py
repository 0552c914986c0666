"""The HTML fragments of the page: what they show, and that texts are escaped."""

import json
from pathlib import Path

import pytest

from distill.app.library import read_state
from distill.app.markup import notices_html, settings_html, status_html
from distill.app.queue import TaskState
from tests.support.toy_run import finished, under_way

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("markup")
    under_way(out / "part", finished(out / "done"))
    return out


def test_a_run_under_way(out: Path) -> None:
    page = status_html(read_state("part", out / "part", TaskState("part", "running")))
    assert 'data-status="running"' in page
    assert "Step 4 of 6" in page
    assert '<progress max="6" value="4"' in page
    assert '<path class="strong"' in page


def test_a_page_without_runs() -> None:
    assert "There is no run yet" in status_html(None)


def test_texts_are_escaped(out: Path) -> None:
    failed = read_state(SCRIPT, out / "part", TaskState("a", "failed", SCRIPT))
    for page in (
        status_html(failed, SCRIPT),
        notices_html([SCRIPT], warning=SCRIPT, error=SCRIPT),
        settings_html(failed.stored, ["python", SCRIPT], SCRIPT),
    ):
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_warnings_of_the_run_are_shown(out: Path, tmp_path: Path) -> None:
    folder = under_way(tmp_path / "warned", out / "done")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "warnings": ["It is unlike anything."]}))
    assert "It is unlike anything." in status_html(read_state("warned", folder, None))


def test_settings_and_command(out: Path) -> None:
    page = settings_html(read_state("done", out / "done", None).stored, ["python", "-m", "distill", "a b.png"])
    for text in ("<th>Steps</th><td>6</td>", "faces</td>", "python -m distill &#39;a b.png&#39;"):
        assert text in page
