"""Drive headless Chromium over its debugging pipe: clicks, mouse moves and keys, with the standard library only."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

CHROMIUM: Final = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
)
_LIMIT_S: Final = 60.0
# What Chromium answers when the page in which it began to evaluate gave way to another one.
_LEFT: Final = ("navigated or closed", "context was destroyed", "Cannot find context", "Promise was collected")


class PageLeft(RuntimeError):
    """The page was replaced by another one before it could answer."""


class Page:
    """One page of a running browser. Every call raises RuntimeError on an error in the page or after _LIMIT_S."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._pending, self._number, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.requests: list[str] = []  # URLs that the page asked for
        self.errors: list[str] = []  # exceptions and console errors
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def open(
        self, page: Path | str, width: int = 1200, height: int = 900, dark: bool = False, touch: bool = False
    ) -> None:
        """Load a file from disk, or an http address, into a window of this size; wait until its scripts have run."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        url = page.as_uri() if isinstance(page, Path) else page
        self.call("Page.navigate", url=url)
        while self.value("document.readyState + location.protocol") != f"complete{url.partition(':')[0]}:":
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """Evaluate a JavaScript expression in the page, awaiting promises; in the next page if this one is replaced."""
        deadline = time.monotonic() + _LIMIT_S
        while True:
            try:
                answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
                break
            except PageLeft:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def move(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Move the mouse over an element, to this fraction of its width and height."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.box(selector)
        place = (box[0] + x * box[2], box[1] + y * box[3])
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        self.settle()
        return place

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, in pixels of the window."""
        find = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y, width, height = self.value(f"(({{x, y, width, height}}) => [x, y, width, height])({find})")
        return x, y, width, height

    def click(self, selector: str) -> None:
        x, y = self.move(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)
        self.settle()

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)
        self.settle()

    def settle(self) -> None:
        """Wait until pending changes have been painted."""
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, out: Path) -> None:
        self.settle()
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its answer."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _LIMIT_S
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    text = f"{method}: {answer['error']}"
                    raise PageLeft(text) if any(sign in text for sign in _LEFT) else RuntimeError(text)
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif (
            event.get("method") == "Runtime.exceptionThrown"
            or (event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error")
            or (event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"))
        ):
            self.errors.append(json.dumps(parameters))

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser page with its profile in `folder`; the browser is closed at the end of the `with` block."""
    to, back = folder / "to", folder / "back"
    os.mkfifo(to)
    os.mkfifo(back)
    # Chromium reads commands from descriptor 3 and answers on 4; the shell puts the two pipes there.
    command = ["sh", "-c", 'exec "$@" 3<"$0/to" 4>"$0/back"', str(folder), CHROMIUM, *_FLAGS]
    with subprocess.Popen(
        [*command, f"--user-data-dir={folder / 'profile'}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        write, read = os.open(to, os.O_WRONLY), os.open(back, os.O_RDONLY)
        try:
            yield Page(write, read)
        finally:
            os.close(write)  # the end of its commands ends the browser
            os.close(read)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
