"""Use the app in headless Chromium: choose and upload images, run, reload, stop, resume, download, and see an error."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.support.app_server import NEEDS_GRADIO, RunningApp, running_app
from tests.support.browser import CHROMIUM, Page, browser
from tests.support.distill_micro import draw

pytestmark = [
    pytest.mark.integration,
    NEEDS_GRADIO,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in"),
]
LIMIT_S = 240.0
STEPS = 12  # of a draft
STEPS_SCALE = "0.12"
# Errors of Gradio's 3D viewer: without WebGPU it falls back to WebGL, and a model may be replaced while it is loaded.
VIEWER_ERRORS = ("during WebGPU creation", "Cannot read properties of null")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with running_app(tmp_path_factory.mktemp("app") / "out", "--steps-scale", STEPS_SCALE) as app:
        yield app


@pytest.fixture
def page(app: RunningApp, tmp_path: Path) -> Iterator[Page]:
    """A browser that shows the app. At the end there must have been no error and no request to another site."""
    with browser(tmp_path) as page:
        page.open(app.address, width=1280, height=1400)
        wait(page, "document.querySelector('button.gallery-item') && document.querySelector('.run-status, #status p')")
        yield page
        assert [error for error in page.errors if not any(known in error for known in VIEWER_ERRORS)] == []
        assert [url for url in page.requests if not url.startswith((app.address, "data:", "blob:"))] == []


def wait(page: Page, condition: str) -> None:
    """Until a JavaScript expression is true in the page."""
    deadline = time.monotonic() + LIMIT_S
    while not page.value(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"{condition}: {page.value('document.body.innerText')}"
        time.sleep(0.1)


def click_until(page: Page, selector: str, condition: str) -> None:
    """Click until a JavaScript expression is true: the first click may come before the page listens."""
    deadline = time.monotonic() + LIMIT_S
    while not page.value(f"Boolean({condition})"):
        assert time.monotonic() < deadline, condition
        page.click(selector)
        again = time.monotonic() + 5
        while not page.value(f"Boolean({condition})") and time.monotonic() < again:
            time.sleep(0.1)


def has_status(status: str, name: str = "") -> str:
    return f"document.querySelector('.run-status[data-status={status}][data-name*={name or 'draft'}]')"


def status_text(page: Page) -> str:
    return str(page.value("document.querySelector('#status').innerText"))


def choose_draft(page: Page) -> None:
    page.value("document.querySelector('#quality input').click()")
    wait(page, "document.querySelector('#quality input').checked")


def put_file(page: Page, path: Path) -> None:
    """Choose a file in the image component, as its file dialog does."""
    wait(page, "document.querySelector('#image input[type=file]')")
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#image input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def pixels(page: Page, selector: str, out: Path) -> Any:
    """Pixels [h, w, 3] of an element as they are on the screen."""
    page.move(selector)
    page.screenshot(out)
    x, y, width, height = page.box(selector)
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB").crop((int(x), int(y), int(x + width), int(y + height)))).astype(int)


def drag(page: Page, selector: str) -> None:
    x, y = page.move(selector)
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
    for step in range(1, 11):
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 12 * step, y=y, button="left", buttons=1)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 120, y=y, button="left", clickCount=1)
    page.settle()


def download(page: Page, kind: str, name: str, folder: Path) -> bytes:
    """Press a download button, and return the content of the file that it downloads."""
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.click(f"#download-{kind}")
    deadline = time.monotonic() + LIMIT_S
    while not (folder / name).is_file():  # it is renamed when it is complete
        assert time.monotonic() < deadline, name
        time.sleep(0.1)
    return (folder / name).read_bytes()


def test_from_an_image_to_a_mesh(page: Page, app: RunningApp, tmp_path: Path) -> None:
    click_until(page, "button.gallery-item", "document.querySelector('#cut-out img')")
    wait(page, "document.querySelector('#notices').innerText.includes('is centered')")
    choose_draft(page)
    click_until(page, "#start", has_status("running"))
    wait(page, "document.querySelector('#preview img')")
    page.open(app.address, width=1280, height=1400)  # reload in the middle of the run
    wait(page, has_status("running"))
    wait(page, "document.querySelector('#preview img')")
    wait(page, "document.querySelector('#status svg .strong')")
    wait(page, has_status("finished"))
    wait(page, "document.querySelector('#model canvas')")
    wait(page, "document.querySelector('#video video')?.readyState >= 2")
    wait(page, "document.querySelector('#sheet img')")
    mesh = trimesh.load(io.BytesIO(download(page, "glb", "mesh.glb", tmp_path)), file_type="glb", force="mesh")
    assert len(mesh.faces) > 100
    assert download(page, "ply", "mesh.ply", tmp_path).startswith(b"ply")
    assert download(page, "obj", "mesh-obj.zip", tmp_path).startswith(b"PK")
    deadline = time.monotonic() + 30
    while not 0.02 < ((before := pixels(page, "#model canvas", tmp_path / "a.png")).min(-1) < 230).mean() < 0.9:
        assert time.monotonic() < deadline, "the model is not drawn"
    drag(page, "#model canvas")
    time.sleep(1)
    after = pixels(page, "#model canvas", tmp_path / "b.png")
    assert (np.abs(after - before).max(-1) > 10).mean() > 0.01


def test_an_upload_is_stopped_fails_and_is_resumed(page: Page, app: RunningApp, tmp_path: Path) -> None:
    put_file(page, draw(tmp_path / "red box.png", (200, 40, 40)))
    wait(page, "document.querySelector('#cut-out img')")
    choose_draft(page)
    click_until(page, "#start", has_status("running", "red-box"))
    wait(page, "document.querySelector('#status svg')")
    page.click("#stop")
    wait(page, has_status("stopped", "red-box"))
    assert "can be resumed" in status_text(page)
    run = next(app.out.glob("red-box-*-draft-seed-0"))
    checkpoint = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(b"damaged")
    wait(page, "!document.querySelector('#resume').disabled")
    page.click("#resume")
    wait(page, has_status("failed", "red-box"))
    assert "checkpoint.safetensors" in status_text(page)
    (run / "checkpoint.safetensors").write_bytes(checkpoint)
    page.click("#resume")
    wait(page, has_status("finished", "red-box"))
    rows = (run / "losses.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in rows[1:]] == [str(step) for step in range(1, STEPS + 1)]


def test_unusable_uploads_get_a_message(page: Page, tmp_path: Path) -> None:
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    put_file(page, tmp_path / "drawing.svg")
    wait(page, "document.querySelector('.notices[data-error=yes]')")
    assert "is an SVG drawing" in page.value("document.querySelector('#notices').innerText")
    page.click("#start")
    wait(page, "document.querySelector('.toast-body')")
    assert "is an SVG drawing" in page.value("document.querySelector('.toast-body').innerText")
