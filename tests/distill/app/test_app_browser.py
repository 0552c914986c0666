"""Use the app in headless Chromium: choose and upload images, run, reload, stop, resume, download, and see an error."""

import io
import json
import re
import time
import zipfile
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
STEPS = 8  # of a draft
STEPS_SCALE = "0.08"
VIEWER_ERRORS = (  # of Gradio 6.31's 3D viewer, in full
    # It falls back to WebGL.
    re.compile(r"BJS - \[\d\d:\d\d:\d\d\]: A fatal error occurred during WebGPU creation/initialization\."),
    # A run was chosen, or a mesh made again, while the viewer was loading a model.
    re.compile(r"AbortError: New model is being loaded before previous model finished loading\."),
)


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
        assert [error for error in page.errors if not is_of_the_viewer(error)] == []
        assert [url for url in page.requests if not url.startswith((app.address, "data:", "blob:"))] == []


def is_of_the_viewer(error: str) -> bool:
    """Whether an error, as `Page` notes it, is one of the known errors of the 3D viewer."""
    shown = json.loads(error).get("args", [{}])
    text = str(shown[0].get("value", shown[0].get("description", ""))).splitlines()
    return len(shown) == 1 and any(known.fullmatch(text[0]) for known in VIEWER_ERRORS if text)


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


def open_accordion(page: Page, label: str, selector: str) -> None:
    """Open a folded part of the page until an element in it is shown."""
    button = f"[...document.querySelectorAll('button.label-wrap')].find(b => b.innerText.includes({label!r}))"
    if not page.value(f"Boolean(document.querySelector({selector!r})?.offsetParent)"):
        page.value(f"{button}.click()")
    wait(page, f"document.querySelector({selector!r})?.offsetParent")


def set_number(page: Page, selector: str, value: int) -> None:
    """Type a number into a component."""
    page.value(f"(field => {{ field.focus(); field.select(); }})(document.querySelector('{selector} input'))")
    page.type(str(value))
    page.value(f"document.querySelector('{selector} input').blur()")


def download(page: Page, kind: str, name: str, folder: Path) -> bytes:
    """Press a download button, and return the content of the file that it downloads."""
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.click(f"#download-{kind}")
    deadline = time.monotonic() + LIMIT_S
    while not (folder / name).is_file():  # it is renamed when it is complete
        assert time.monotonic() < deadline, name
        time.sleep(0.1)
    return (folder / name).read_bytes()


def test_only_known_errors_are_ignored() -> None:
    loading = "AbortError: New model is being loaded before previous model finished loading."
    known = [
        {"type": "object", "description": f"{loading}\n    at ar._updateModel (http://127.0.0.1/assets/lib.js:3:7)"}
    ]
    assert is_of_the_viewer(json.dumps({"type": "error", "args": known}))
    webgpu = "A fatal error occurred during WebGPU creation/initialization."
    assert is_of_the_viewer(json.dumps({"args": [{"type": "string", "value": f"BJS - [17:50:12]: {webgpu}"}]}))
    for other in (f"{loading} And more.", webgpu, "TypeError: Cannot read properties of null", ""):
        assert not is_of_the_viewer(json.dumps({"args": [{"type": "string", "value": other}]}))
    for unlike in ({"exceptionDetails": {"text": loading}}, {"entry": {"text": loading}}, {"args": [{}]}):
        assert not is_of_the_viewer(json.dumps(unlike))


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
    with zipfile.ZipFile(io.BytesIO(download(page, "usdz", "mesh.usdz", tmp_path))) as package:
        assert package.namelist()[0].endswith(".usda")
    deadline = time.monotonic() + 30
    while not 0.02 < ((before := pixels(page, "#model canvas", tmp_path / "a.png")).min(-1) < 230).mean() < 0.9:
        assert time.monotonic() < deadline, "the model is not drawn"
    drag(page, "#model canvas")
    time.sleep(1)
    after = pixels(page, "#model canvas", tmp_path / "b.png")
    assert (np.abs(after - before).max(-1) > 10).mean() > 0.01
    (tmp_path / "mesh.glb").unlink()
    open_accordion(page, "Advanced: the mesh", "#faces")
    set_number(page, "#faces", 200)
    steps = (folder := next(app.out.glob("cat-*-draft-seed-0"))) / "losses.csv"
    rows = steps.read_text()
    wait(page, "!document.querySelector('#new-mesh').disabled")
    page.click("#new-mesh")
    deadline = time.monotonic() + LIMIT_S
    while json.loads((folder / "done.json").read_text())["mesh"] != {"faces": 200, "texture_size": 512}:
        assert time.monotonic() < deadline, (folder / "done.json").read_text()
        time.sleep(0.1)
    wait(page, has_status("finished"))
    assert steps.read_text() == rows
    open_accordion(page, "Settings and command", "#settings table")
    wait(page, "document.querySelector('#settings').innerText.includes('--faces 200')")
    mesh = trimesh.load(io.BytesIO(download(page, "glb", "mesh.glb", tmp_path)), file_type="glb", force="mesh")
    assert 20 < len(mesh.faces) <= 200


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
