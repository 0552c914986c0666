"""The option `--background`: which images are cut out, what is said, and rembg."""

import builtins
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dataset.errors import UserError
from dataset.images import background
from dataset.images.background import Background, remove_background
from dataset.images.prepare import OBJECT_FILL, Prepared, prepare_image


def disc_on(color: str | tuple[int, int, int], mode: str = "RGB") -> Image.Image:
    """A yellow disc of radius 40, left of the middle of 200x160 pixels."""
    picture = Image.new(mode, (200, 160), color)
    ImageDraw.Draw(picture).ellipse((30, 40, 110, 120), "yellow")
    return picture


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8))


def equal(one: Prepared, other: Prepared) -> bool:
    return one.rgba.tobytes() == other.rgba.tobytes() and one.rgb.tobytes() == other.rgb.tobytes()


def test_a_uniform_background_is_removed_and_announced_once() -> None:
    prepared = prepare_image(disc_on((40, 90, 160)), 128)
    assert abs((prepared.rgba[..., 3] > 127).mean() - np.pi / 4 * OBJECT_FILL**2) < 0.01
    assert (prepared.rgb[:8] == 1).all()
    assert prepared.notices == ("the plain background of the image was removed; give --background keep to keep it",)
    assert prepared.framing.startswith("the part that is not transparent, 81x81 pixels")


def test_the_same_object_on_white_and_on_a_color_is_prepared_alike() -> None:
    on_white, on_blue = (prepare_image(disc_on(color), 64).rgb for color in ("white", (40, 90, 160)))
    assert np.abs(on_white - on_blue).mean() < 0.01


def test_keep_uses_the_whole_image_and_says_so() -> None:
    prepared = prepare_image(disc_on((40, 90, 160)), 64, background="keep")
    assert prepared.framing.startswith("the whole image, 200x160 pixels")
    [notice] = prepared.notices
    assert "so the whole image is used" in notice


@pytest.mark.parametrize("picture", [disc_on("white"), disc_on((250, 250, 250)), disc_on((0, 0, 0, 0), "RGBA")])
def test_images_on_white_and_with_alpha_are_prepared_as_without_removal(picture: Image.Image) -> None:
    auto, kept = prepare_image(picture, 64), prepare_image(picture, 64, background="keep")
    assert equal(auto, kept)
    assert auto.notices == kept.notices == ()
    assert auto.framing == kept.framing


def test_clutter_is_used_whole_with_a_warning_that_names_the_extra() -> None:
    prepared = prepare_image(noise(), 64)
    [notice] = prepared.notices
    assert notice.startswith("the background of the image is kept, since the colors at its border vary too much; ")
    assert "a cut-out is needed" in notice
    assert "rembg[cpu]" in notice
    assert equal(prepared, prepare_image(noise(), 64, background="keep"))


def test_uniform_refuses_clutter_and_names_the_extra() -> None:
    with pytest.raises(UserError, match=r"the image cannot be removed, since the colors .* --background rembg, .*pip"):
        prepare_image(noise(), 64, background="uniform")


def test_uniform_opens_holes_of_an_image_on_white() -> None:
    picture = disc_on("white")
    ImageDraw.Draw(picture).ellipse((55, 65, 85, 95), "white")
    assert prepare_image(picture, 64).rgba[32, 32, 3] == 255
    assert prepare_image(picture, 64, background="uniform").rgba[32, 32, 3] == 0


@pytest.mark.parametrize("how", ["uniform", "rembg"])
def test_the_alpha_of_a_cut_out_is_kept_and_this_is_said(how: Background) -> None:
    picture = disc_on((0, 0, 0, 0), "RGBA")
    prepared = prepare_image(picture, 64, background=how)
    assert equal(prepared, prepare_image(picture, 64))
    assert any("already transparent" in notice for notice in prepared.notices)


def fake_rembg(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    package = ModuleType("rembg")
    package.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "rembg", package)
    background._rembg_session.cache_clear()


def test_rembg_gets_opaque_images_and_its_faint_alpha_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def remove(image: Image.Image, session: str) -> Image.Image:
        asked.append((image.mode, session))
        cut = image.convert("RGBA")
        cut.putalpha(Image.linear_gradient("L").resize(image.size))
        return cut

    fake_rembg(monkeypatch, remove=remove, new_session=lambda name: f"session of {name}")
    cut, said = remove_background(noise().convert("RGBA"), "rembg", "a.png")
    assert cut is not None
    alpha = np.asarray(cut.getchannel("A"))[:, 0]
    assert (alpha[:30] == 0).all()
    assert (alpha[-29:] == 255).all()
    assert (np.diff(alpha.astype(int)) >= 0).all()
    assert said == ["the background of a.png was removed by rembg"]
    assert asked == [("RGB", "session of isnet-general-use")]


def test_a_missing_model_of_rembg_is_named_with_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_session(name: str) -> None:
        raise OSError("no route to host")

    fake_rembg(monkeypatch, remove=None, new_session=new_session)
    with pytest.raises(UserError, match=r"isnet-general-use \(no route to host\); .* U2NET_HOME .*distillation\.md"):
        prepare_image(noise(), 64, background="rembg")


def test_without_rembg_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_rembg(name: str, *more: Any) -> Any:
        if name == "rembg":
            raise ImportError(name)
        return original(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_rembg)
    with pytest.raises(UserError, match=r"--background rembg requires rembg; run .*pip install"):
        prepare_image(disc_on("blue"), 64, background="rembg")


def test_an_image_in_which_rembg_finds_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rembg(
        monkeypatch,
        remove=lambda image, session: Image.new("RGBA", image.size, (0, 0, 0, 60)),
        new_session=lambda name: name,
    )
    with pytest.raises(UserError, match="rembg found no object in the image; give a cut-out, or --background keep"):
        prepare_image(noise(), 64, background="rembg")


def two_colors() -> Image.Image:
    """A red disc on green, with a square of nearly the same green beside it."""
    picture = disc_on((40, 160, 60))
    ImageDraw.Draw(picture).rectangle((4, 4, 30, 30), (60, 170, 80))
    return picture


def test_a_threshold_decides_what_belongs_to_the_background() -> None:
    default, low, high = (
        prepare_image(two_colors(), 64, background="uniform", background_threshold=threshold)
        for threshold in (None, 2.0, 20.0)
    )
    assert equal(default, low)
    assert not equal(default, high)
    assert equal(high, prepare_image(disc_on((40, 160, 60)), 64))  # the square is gone


def test_with_a_threshold_white_is_removed_like_any_other_background() -> None:
    picture = disc_on("white")
    ImageDraw.Draw(picture).rectangle((4, 4, 30, 30), (238, 240, 238))  # darker than noise on white
    assert not equal(prepare_image(picture, 64), prepare_image(disc_on("white"), 64))
    prepared = prepare_image(picture, 64, background_threshold=20.0)
    assert equal(prepared, prepare_image(disc_on("white"), 64, background="uniform"))


@pytest.mark.parametrize(
    ("how", "threshold", "message"),
    [
        ("auto", 0.4, "--background-threshold is 0.4; it must be between"),
        ("uniform", float("nan"), "--background-threshold is nan"),
        ("keep", 5.0, "no effect with --background keep; leave it out, or"),
        ("rembg", 5.0, "no effect with --background rembg"),
    ],
)
def test_an_unusable_threshold_is_refused(how: Background, threshold: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare_image(disc_on("white"), 64, background=how, background_threshold=threshold)


def test_a_cut_out_needs_no_threshold() -> None:
    prepared = prepare_image(disc_on((0, 0, 0, 0), "RGBA"), 64, background_threshold=9.0)
    assert any("already transparent" in notice for notice in prepared.notices)
