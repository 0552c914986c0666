"""Run pages in headless Chromium: the model is drawn, the video plays, the slider moves, nothing is fetched."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.view import server
from distill.view.files import write_pages
from tests.support.browser import CHROMIUM, Page, browser
from tests.support.toy_run import finished, under_way

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in"),
]
MODEL, VIDEO = "document.querySelector('figure.model')", "document.querySelector('video')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/a (finished), runs/b (under way) and their pages: all.html, all-1.html, all-2.html."""
    folder = tmp_path_factory.mktemp("view")
    done = finished(folder / "runs" / "a")
    under_way(folder / "runs" / "b", done)
    write_pages([folder / "runs"], folder / "all.html")
    return folder


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    chromium.requests.clear()
    chromium.errors.clear()
    yield chromium
    assert chromium.errors == []


def wait(page: Page, condition: str) -> None:
    """Until a JavaScript expression is true in the page, which may load another one meanwhile."""
    deadline = time.monotonic() + 30
    while not page.value(f"Boolean({condition})"):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def painted(page: Page, selector: str, out: Path) -> np.ndarray:
    """Pixels [h, w, 3] of an element as they are on the screen."""
    page.move(selector)
    page.screenshot(out)
    x, y, width, height = page.box(selector)
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB").crop((int(x), int(y), int(x + width), int(y + height)))).astype(int)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_finished_run_from_disk(page: Page, folder: Path, width: int, tmp_path: Path) -> None:
    page.open(folder / "all-1.html", width=width)
    page.move("figure.model")
    wait(page, f"{MODEL}.dataset.state === 'ready'")
    assert page.value(f"Number({MODEL}.dataset.triangles)") > 100
    stage = painted(page, ".stage canvas", tmp_path / "model.png")
    assert 0.1 < (stage.min(-1) < 230).mean() < 0.9  # the model, and white around it
    page.move("video")
    wait(page, f"{VIDEO}.currentTime > 0.2")
    assert page.value(f"{VIDEO}.videoWidth / {VIDEO}.videoHeight") == 3
    first = page.value(f"{VIDEO}.currentTime")
    wait(page, f"{VIDEO}.currentTime !== {first}")
    chart = painted(page, "svg", tmp_path / "chart.png")
    assert ((chart[..., 0] < 60) & (chart[..., 1] > 80)).sum() > 100  # the strong line
    assert page.value("document.documentElement.scrollWidth") <= width
    assert all(url.startswith(("file:", "data:", "blob:null/")) for url in page.requests)
    assert sum(url.startswith("file:") for url in page.requests) == 1


def test_the_slider_goes_through_the_previews(page: Page, folder: Path) -> None:
    page.open(folder / "all-1.html")
    shown = "[...document.querySelectorAll('.series img')].filter((img) => img.offsetParent).map((img) => img.alt)"
    assert page.value(shown) == ["Step 6"]
    page.click(".series input")
    page.value("document.querySelector('.series input').focus()")
    page.key("ArrowLeft")
    assert page.value(shown) == ["Step 3"]
    assert page.value("document.querySelector('.series output').textContent") == "Step 3"
    page.key("ArrowRight")
    assert page.value(shown) == ["Step 6"]


def test_an_overview_leads_to_its_runs_and_back(page: Page, folder: Path) -> None:
    page.open(folder / "all.html")
    wait(page, f"{VIDEO}.currentTime > 0")
    page.click(".cards li:nth-child(2) a")
    wait(page, "document.querySelector('h1')?.textContent === 'b' && document.readyState === 'complete'")
    page.click(".back a")
    wait(page, "document.querySelectorAll('.cards li').length === 2")


def test_a_page_that_goes_while_it_is_asked_is_asked_again(page: Page, folder: Path) -> None:
    page.open(folder / "all.html")
    away = "location.pathname.endsWith('all-2.html') || new Promise(() => location.assign('all-2.html'))"
    assert page.value(away) is True


def test_a_served_run_under_way_loads_itself_again(
    page: Page, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.view.run_page.RELOAD_S", 0.2)
    going = under_way(tmp_path / "going", folder / "runs" / "a")
    with server.serve([going]) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            page.open(f"http://{server.HOST}:{serving.server_address[1]}/")
            assert "Step 4 of 6" in page.value("document.querySelector('.lead').textContent")
            rows = (folder / "runs" / "a" / "losses.csv").read_text().splitlines(keepends=True)
            (going / "losses.csv").write_text("".join(rows[:6]))
            for name in ("mesh.glb", "metrics.json"):
                (going / name).write_bytes((folder / "runs" / "a" / name).read_bytes())
            wait(page, "document.querySelector('.lead')?.textContent.includes('Finished')")
            wait(page, "document.readyState === 'complete' && !document.body.dataset.reload")
        finally:
            serving.shutdown()
            thread.join()
    assert all(url.startswith((f"http://{server.HOST}:", "data:", "blob:")) for url in page.requests)
