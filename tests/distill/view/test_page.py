"""The page holds everything itself, says what it shows, and its model appears in a browser."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.errors import UserError
from distill.mesh.export import MeshSettings, export_mesh
from distill.output.turntable import write_turntable
from distill.view.page import Section, make_page, write_page
from tests.support.browser import CHROMIUM, browser
from tests.support.paths import ROOT
from tests.support.result_page_tags import Tags


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a video and a magenta GLB."""
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (40, 20), (10, 120, 30)).save(folder / "small.png")
    write_turntable(lambda c2w: np.ones((len(c2w), 16, 16, 3), np.float32), folder / "turn.mp4", distance=2.0, frames=2)
    export_mesh(
        lambda x: 1000 * torch.exp(-20 * x.norm(dim=-1)),
        lambda x: torch.tensor([0.9, 0.05, 0.9]).expand(len(x), 3),
        1.0,
        folder / "mesh.glb",
        MeshSettings(resolution=24, faces=500, texture_size=32),
    )
    return folder


def everything(media: Path) -> list[Section]:
    return [
        Section(
            "Data & views",
            "First <paragraph>.\n\nSecond one.",
            figures=[("Seconds a view", "0.35"), ("a < b", '"yes"')],
            images=[(media / "small.png", 'A "green" field')],
        ),
        Section("Result", video=(media / "turn.mp4", "One turn"), glb=(media / "mesh.glb", "The mesh.")),
    ]


def test_nothing_points_outside_the_page(media: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "A page", everything(media))
    tags = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    targets = [(tag, a[key]) for tag, a in tags.tags for key in ("src", "href", "srcset", "poster", "data") if key in a]
    assert {tag for tag, _ in targets} == {"img", "video", "a"}
    assert all(target.startswith(("data:", "#")) for _, target in targets)
    assert not tags.named("link")
    policy = next(meta["content"] for meta in tags.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "*" not in policy


def test_structure_alternatives_and_escaping(media: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "Tom & <Jerry>", everything(media), lead="What it is.")
    tags = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(tags.named("h1")) == 1
    assert [link["href"] for link in tags.named("a")] == ["#" + section["id"] for section in tags.named("section")]
    (image,) = tags.named("img")
    assert image["alt"] == 'A "green" field'
    assert (image["width"], image["height"], image["class"]) == ("320", "160", "pixelated")
    (video,) = tags.named("video")
    assert {"controls", "loop", "autoplay", "muted", "playsinline"} <= video.keys()
    assert len(tags.named("th")) == len(tags.named("td")) == 2
    for text in ("Tom & <Jerry>", "First <paragraph>.", "Second one.", "a < b", '"yes"', "What it is."):
        assert text in tags.text
    assert not tags.named("paragraph")
    assert not tags.named("jerry")


def test_without_a_model_there_is_no_script(media: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "Pictures", everything(media)[:1])
    assert not Tags((tmp_path / "page.html").read_text(encoding="utf-8")).named("script")


def test_a_page_with_a_model_carries_three_js_and_its_copyright(media: Path) -> None:
    page = make_page("A page", [Section("Result", glb=(media / "mesh.glb", "The mesh."))])
    vendor = ROOT / "distill" / "view" / "vendor"
    assert "2010-2022 Three.js Authors" in page
    assert all((vendor / name).read_text() in page for name in ("three.min.js", "GLTFLoader.js"))
    assert "The MIT License" in (vendor / "LICENSE").read_text()
    revision = re.search(r'"(\d+)"', (vendor / "three.min.js").read_text())
    assert revision is not None
    assert f"version 0.{revision[1]}.0" in (vendor / "README.md").read_text()


def test_bad_files_are_named_and_no_page_is_left(media: Path, tmp_path: Path) -> None:
    text = media / "text.png"
    text.write_text("not an image")
    bad = [
        (Section("x", images=[(media / "absent.png", "")]), "absent.png"),
        (Section("x", images=[(text, "")]), "text.png"),
        (Section("x", images=[(media / "mesh.glb", "")]), "mesh.glb"),
        (Section("x", glb=(media / "small.png", "")), "small.png"),
    ]
    for section, name in bad:
        with pytest.raises(UserError, match=name):
            write_page(tmp_path / "page.html", "A page", [section])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in")
def test_a_browser_shows_the_textured_model_from_disk(media: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "A page", [Section("Result", glb=(media / "mesh.glb", "The mesh."))])
    with browser(tmp_path) as page:
        page.open(tmp_path / "page.html", width=600)
        deadline = time.monotonic() + 30
        share = 0.0
        while share <= 0.05 and time.monotonic() < deadline:  # the model is drawn some frames after the page is loaded
            page.screenshot(tmp_path / "page.png")
            with Image.open(tmp_path / "page.png") as image:
                red, green, blue = np.asarray(image.convert("RGB")).astype(int).transpose(2, 0, 1)
            share = ((red > 120) & (blue > 120) & (green < 80)).mean()
        assert page.value("document.querySelector('figure.model').dataset.state") == "ready"
        assert page.errors == []
    assert share > 0.05  # only the texture is magenta
