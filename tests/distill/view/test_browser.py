"""Opening a page: with a browser, without one, and with one that does not start."""

import logging
import webbrowser
from pathlib import Path

import pytest

from distill.view.browser import open_in_browser
from distill.view.files import write_pages
from tests.support.toy_run import finished


@pytest.mark.parametrize("variable", ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", None])
def test_a_browser_is_started_only_where_there_is_a_screen(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[str] = []
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "x")
    assert open_in_browser("file:///a.html") == bool(variable)
    assert opened == (["file:///a.html"] if variable else [])
    assert ("no browser can be opened here; open file:///a.html" in caplog.text) == (not variable)


def test_a_browser_that_does_not_start_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")

    def fail(address: str) -> bool:
        raise webbrowser.Error("none")

    monkeypatch.setattr(webbrowser, "open", fail)
    assert not open_in_browser("file:///a.html")
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert not open_in_browser("file:///a.html")


def test_the_page_of_a_run_is_one_file(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    assert write_pages([folder], folder / "page.html") == [folder / "page.html"]
    assert "data:" in (folder / "page.html").read_text()
