"""The report in headless Chromium, opened from disk: a filter is clicked, an object is turned, nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.report.page import write_report
from tests.support.browser import CHROMIUM, Page, browser
from tests.support.troubled_set import troubled_set

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in"),
]
SHOWN = "[...document.querySelectorAll('.tile')].filter((tile) => tile.offsetParent).map((tile) => tile.dataset.uid)"
OK = [f"synthetic-{i:04d}" for i in range(4)]
ALL = [*OK, "crash", "bad", "left"]
FIRST = ".tile .turntable"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_report(troubled_set(folder / "set"), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, report: Path) -> Iterator[Page]:
    chromium.open(report)
    yield chromium
    assert chromium.errors == []
    assert all(url.startswith(("file:", "data:image/webp;base64,")) for url in chromium.requests)


def choose(page: Page, name: str, value: str) -> None:
    """What the browser does when a person takes an entry of a menu (which is no part of the page)."""
    find = f"document.querySelector('[name={name}]')"
    page.value(f"{find}.value = '{value}', {find}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    page.settle()


def test_filters_leave_the_tiles_that_match(page: Page) -> None:
    assert page.value(SHOWN) == ALL
    page.click("label:has([value=failed])")
    assert page.value(SHOWN) == ["crash", "bad"]
    assert page.value("document.querySelector('output').textContent") == "2 of 7 shown"
    page.click("label:has([value=ok])")
    choose(page, "license", "CC-BY-4.0")
    assert page.value(SHOWN) == ["synthetic-0001", "synthetic-0003"]
    choose(page, "flag", "clipped")
    assert page.value(SHOWN) == ["synthetic-0001"]
    choose(page, "source", "elsewhere")
    assert page.value(SHOWN) == []
    assert page.value("document.getElementById('nothing').offsetParent !== null")
    page.click("[type=reset]")
    assert page.value(SHOWN) == ALL
    page.click("[name=text]")
    page.type("-000")
    assert page.value(SHOWN) == OK
    page.type("2")
    assert page.value(SHOWN) == ["synthetic-0002"]


def test_a_name_in_a_distribution_filters_too(page: Page) -> None:
    page.click("button[data-flag=missing-texture]")
    assert page.value(SHOWN) == ["bad"]
    assert page.value("document.querySelector('[name=flag]').value") == "missing-texture"


def test_orders(page: Page) -> None:
    choose(page, "order", "-seconds")
    assert page.value(SHOWN)[:2] == ["crash", "synthetic-0001"]
    choose(page, "order", "coverage")
    shown = page.value(SHOWN)
    assert sorted(shown[:4]) == OK
    assert shown[4:] == ["crash", "bad", "left"]  # not measured: last, also in the other direction
    choose(page, "order", "-coverage")
    assert page.value(SHOWN) == [*reversed(shown[:4]), "crash", "bad", "left"]
    choose(page, "order", "uid")
    assert page.value(SHOWN) == sorted(ALL)


def pixels(page: Page, out: Path) -> np.ndarray:
    """Pixels [h, w, 3] of the first tile's image on the screen."""
    page.screenshot(out)
    x, y, width, height = page.box(FIRST)
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB").crop((int(x), int(y), int(x + width), int(y + height)))).astype(int)


def test_the_mouse_turns_an_object(page: Page, tmp_path: Path) -> None:
    view = f"document.querySelector('{FIRST}').dataset.view"
    shown = {}
    for at in (0.01, 0.26, 0.51, 0.99):
        page.move(FIRST, at)
        shown[page.value(view)] = pixels(page, tmp_path / "shot.png")
    assert list(shown) == ["0", "4", "8", "15"]
    assert all(image.min() < 200 for image in shown.values())  # something is painted
    front, side, back, _ = shown.values()  # a box, its sides colored differently
    assert np.abs(front - side).mean() > 5
    assert np.abs(front - back).mean() > 5
    page.move("h1")
    assert page.value(view) == "1"  # at rest again


def test_the_keyboard_turns_and_goes_on(page: Page) -> None:
    focused = "document.activeElement.closest('.tile')?.dataset.uid"
    view = "document.activeElement.dataset.view"
    page.value("document.querySelector('[type=reset]').focus()")
    page.key("Tab")
    assert page.value(focused) == "synthetic-0000"
    page.key("ArrowLeft")
    page.key("ArrowLeft")
    assert page.value(view) == "15"
    assert page.value("document.activeElement.ariaValueText") == "azimuth 337.5 degrees"
    page.key("ArrowRight")
    assert page.value(view) == "0"
    page.key("ArrowDown")
    assert page.value(focused) == "synthetic-0001"
    page.key("ArrowUp")
    assert page.value(focused) == "synthetic-0000"


def test_a_finger_turns_an_object(page: Page) -> None:
    x, y = page.move(FIRST, 0.03)
    assert page.value(f"document.querySelector('{FIRST}').dataset.view") == "0"
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    page.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + 60, "y": y}])
    page.settle()
    assert int(page.value(f"document.querySelector('{FIRST}').dataset.view")) > 5
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_a_failure_opens_and_no_script_of_it_runs(page: Page) -> None:
    stderr = "document.querySelector('.failed pre')"
    assert not page.value(f"{stderr}.checkVisibility({{contentVisibilityAuto: true}})")
    group = f"{stderr}.closest('.groups > details')"
    page.value(f"{group}.id = 'group'")
    page.click("#group > summary")
    page.click("#group li summary")
    assert page.value(f"{stderr}.checkVisibility({{contentVisibilityAuto: true}})")
    assert "<script>" in page.value(f"{stderr}.textContent")
    assert page.value("document.title").startswith("Shard set")


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1280, True)])
def test_it_fits_the_window_light_and_dark(
    chromium: Page, report: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    chromium.open(report, width=width, dark=dark)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    chromium.screenshot(tmp_path / "shot.png")
    with Image.open(tmp_path / "shot.png") as image:
        assert image.width == width
        corner = image.convert("L").getpixel((2, 2))
    assert (corner < 60) == dark
