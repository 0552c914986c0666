"""Removal of uniform and graded backgrounds: known shapes, shadows, holes, edges, and what is refused."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dataset.images.background_color import NotUniformError, fit_background
from dataset.images.uniform_background import WORKING_SIDE, remove_uniform_background

SIZE = 256
Y, X = np.mgrid[:SIZE, :SIZE] / SIZE
COLORS = [(0.9, 0.9, 0.88), (0.5, 0.5, 0.5), (0.1, 0.6, 0.2), (0.05, 0.05, 0.08), (0.9, 0.2, 0.6)]


def disc(x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Coverage [h, w] of a disc with an antialiased edge."""
    distance = np.hypot(X + 0.5 / SIZE - x, Y + 0.5 / SIZE - y)
    return np.clip((radius - distance) * SIZE + 0.5, 0, 1)


def picture_of(
    alpha: NDArray[np.float64], behind: NDArray[np.float64], color: tuple[float, float, float] = (0.95, 0.75, 0.1)
) -> Image.Image:
    mixed = alpha[..., None] * np.array(color) + (1 - alpha[..., None]) * behind
    return Image.fromarray(np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8))


def flat(color: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.broadcast_to(np.array(color), (SIZE, SIZE, 3))


def graded() -> NDArray[np.float64]:
    """A radial gradient with a vignette."""
    share = np.hypot(X - 0.4, Y - 0.6)[..., None]
    light = 1 - 0.5 * (((X - 0.5) ** 2 + (Y - 0.5) ** 2) ** 2 * 4)[..., None]
    return np.asarray(((1 - share) * np.array([0.5, 0.6, 0.8]) + share * np.array([0.25, 0.3, 0.5])) * light)


def iou(cut: Image.Image, alpha: NDArray[np.float64]) -> float:
    found = np.asarray(cut.getchannel("A")) > 127
    return float((found & (alpha > 0.5)).sum() / (found | (alpha > 0.5)).sum())


@pytest.mark.parametrize("color", COLORS)
def test_an_object_on_any_uniform_color_is_cut_out_exactly(color: tuple[float, float, float]) -> None:
    alpha = disc(0.45, 0.55, 0.3)
    cut = remove_uniform_background(picture_of(alpha, flat(color)))
    assert iou(cut, alpha) > 0.99
    assert np.abs(np.asarray(cut.getchannel("A")) / 255 - alpha).max() < 0.35  # the edge is feathered where it was


def test_the_colors_of_the_edge_are_those_of_the_object() -> None:
    alpha = disc(0.5, 0.5, 0.3)
    rgba = np.asarray(remove_uniform_background(picture_of(alpha, flat((0.1, 0.6, 0.9)), (0.9, 0.2, 0.1)))) / 255
    edge = (rgba[..., 3] > 0.1) & (rgba[..., 3] < 0.9)
    assert edge.sum() > 100
    assert np.abs(rgba[edge][:, :3] - [0.9, 0.2, 0.1]).max() < 0.1
    assert (rgba[rgba[..., 3] == 0] == 0).all()


def test_a_gradient_with_noise_and_jpeg_artifacts_is_removed() -> None:
    alpha = disc(0.5, 0.45, 0.25)
    noisy = np.random.default_rng(0).normal(0, 4 / 255, (SIZE, SIZE, 3)) + graded()
    buffer = io.BytesIO()
    picture_of(alpha, noisy).save(buffer, "JPEG", quality=80)
    for picture in (picture_of(alpha, graded()), Image.open(buffer)):
        assert iou(remove_uniform_background(picture), alpha) > 0.97


def test_a_soft_shadow_belongs_to_the_background() -> None:
    alpha = disc(0.5, 0.4, 0.22)
    shadow = ndimage.gaussian_filter((np.hypot((X - 0.55) / 0.3, (Y - 0.62) / 0.1) < 1).astype(float), 6)
    behind = graded() * (1 - 0.45 * shadow[..., None])
    assert iou(remove_uniform_background(picture_of(alpha, behind)), alpha) > 0.97


def test_a_darker_object_of_the_same_hue_is_no_shadow() -> None:
    alpha = disc(0.5, 0.5, 0.3)
    assert iou(remove_uniform_background(picture_of(alpha, flat((0.6,) * 3), (0.35,) * 3)), alpha) > 0.98


def test_the_shaded_side_of_a_gray_object_on_gray_is_no_shadow() -> None:
    alpha, light = disc(0.5, 0.5, 0.3), 0.3 + 0.5 * X[..., None]
    mixed = alpha[..., None] * light + (1 - alpha[..., None]) * flat((0.6,) * 3)
    cut = np.asarray(remove_uniform_background(Image.fromarray(np.uint8(mixed * 255))))[..., 3]
    darker = (alpha > 0.99) & (X < 0.45)  # where the object is lighter, it has the color of the background
    assert (cut[darker] > 127).mean() > 0.99


def test_holes_that_show_the_background_are_open_and_other_inner_parts_stay() -> None:
    ring = disc(0.5, 0.5, 0.4) - disc(0.5, 0.35, 0.1)
    light = disc(0.5, 0.7, 0.08)  # lighter than the background
    behind = flat((0.75, 0.75, 0.75)) * (1 - light[..., None]) + light[..., None]
    pixels = np.asarray(picture_of(ring - light, behind))
    cut = np.asarray(remove_uniform_background(Image.fromarray(pixels)))[..., 3]
    assert cut[round(0.35 * SIZE), SIZE // 2] == 0
    assert cut[round(0.7 * SIZE), SIZE // 2] == 255


def test_thin_parts_and_separate_parts_are_kept_and_dust_is_not() -> None:
    alpha = np.maximum(disc(0.35, 0.4, 0.2), disc(0.8, 0.4, 0.08))
    alpha[160:230, 88:91] = 1  # a leg of 3 pixels
    dusty = np.maximum(alpha, disc(0.9, 0.9, 0.006))
    cut = np.asarray(remove_uniform_background(picture_of(dusty, flat((0.2, 0.3, 0.6)))).getchannel("A"))
    assert iou(Image.merge("RGBA", [Image.fromarray(cut)] * 4), alpha) > 0.98
    assert (cut[170:225, 89] > 127).all()
    assert cut[225:, 220:].max() == 0


def test_an_object_cut_by_the_border_is_cut_out() -> None:
    alpha = disc(0.5, 0.95, 0.3)
    assert iou(remove_uniform_background(picture_of(alpha, graded())), alpha) > 0.97


def test_large_images_are_reduced() -> None:
    alpha = disc(0.5, 0.5, 0.3)
    picture = picture_of(alpha, flat((0.1, 0.6, 0.2))).resize((3 * WORKING_SIDE, 3 * WORKING_SIDE))
    cut = remove_uniform_background(picture)
    assert cut.size == (WORKING_SIDE, WORKING_SIDE)
    assert iou(cut.resize((SIZE, SIZE)), alpha) > 0.98


@pytest.mark.parametrize("size", [(8, 8), (9, 200), (300, 10), (33, 31)])
def test_images_of_odd_sizes_are_cut_out_or_refused(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (30, 90, 160))
    picture.paste((250, 220, 20), (size[0] // 3, size[1] // 3, 2 * size[0] // 3 + 1, 2 * size[1] // 3 + 1))
    try:
        assert remove_uniform_background(picture).size == size
    except NotUniformError:
        assert min(size) < 12


def clutter(kind: str) -> Image.Image:
    rng = np.random.default_rng(1)
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    if kind == "clouds":
        clouds = ndimage.gaussian_filter(rng.normal(0, 1, (SIZE, SIZE, 3)), (8, 8, 0))
        return Image.fromarray(np.uint8(np.clip(0.5 + 0.2 * clouds / clouds.std(), 0, 1) * 255))
    if kind == "stripes":
        return Image.fromarray(
            np.where((X * 6 % 1 < 0.5)[..., None], np.uint8([200, 180, 60]), np.uint8([60, 80, 150]))
        )
    horizon = np.where((float(kind.split()[1]) < Y)[..., None], np.uint8([120, 80, 50]), np.uint8([170, 190, 220]))
    return Image.fromarray(horizon)


def test_an_enclosed_part_of_the_background_s_color_with_a_pattern_is_no_hole() -> None:
    alpha, part = disc(0.5, 0.5, 0.4), disc(0.5, 0.5, 0.15)[..., None]
    pixels = np.asarray(picture_of(alpha, flat((0.6, 0.6, 0.6)))) / 255
    pattern = 0.6 + 0.012 * np.sin(X * 200)[..., None] * np.sin(Y * 200)[..., None]
    cut = remove_uniform_background(Image.fromarray(np.uint8((pixels * (1 - part) + part * pattern) * 255)))
    assert iou(cut, alpha) > 0.98


@pytest.mark.parametrize("kind", ["noise", "clouds", "stripes", "horizon 0.5", "horizon 0.65", "horizon 0.8"])
def test_clutter_is_refused(kind: str) -> None:
    picture = clutter(kind)
    picture.paste((250, 220, 20), (90, 80, 170, 190))
    reason = "border vary too much" if kind in ("noise", "clouds") else "border shows more than one"
    with pytest.raises(NotUniformError, match=reason):
        remove_uniform_background(picture)


@pytest.mark.parametrize(
    "picture", [picture_of(disc(0.5, 0.5, 0), flat((0.3, 0.4, 0.8))), picture_of(disc(0, 0, 0), graded())]
)
def test_a_background_alone_is_refused(picture: Image.Image) -> None:
    with pytest.raises(NotUniformError, match="no object differs"):
        remove_uniform_background(picture)


def test_many_things_cut_by_the_border_are_refused() -> None:
    alpha = np.max([disc(x, y, 0.06) for x in (0.2, 0.5, 0.8) for y in (0, 1)] + [disc(0.5, 0.5, 0.3)], 0)
    with pytest.raises(NotUniformError, match="border"):
        remove_uniform_background(picture_of(alpha, flat((0.2, 0.3, 0.6))))


def test_a_photograph_in_a_thin_frame_is_refused() -> None:
    picture = Image.new("RGB", (SIZE, SIZE), (20, 60, 120))
    picture.paste(clutter("clouds").crop((0, 0, SIZE - 20, SIZE - 20)), (10, 10))
    with pytest.raises(NotUniformError, match="border"):
        remove_uniform_background(picture)


def test_a_floor_in_a_color_near_that_of_the_wall_is_refused() -> None:
    behind = np.where((Y > 0.75)[..., None], np.array([0.56, 0.59, 0.56]), np.array([0.4, 0.45, 0.4]))
    with pytest.raises(NotUniformError, match="border"):
        remove_uniform_background(picture_of(disc(0.5, 0.4, 0.2), behind))


def test_many_separate_things_are_refused() -> None:
    alpha = np.max([disc(x, y, 0.05) for x in (0.2, 0.4, 0.6, 0.8) for y in (0.2, 0.5, 0.8)], 0)
    with pytest.raises(NotUniformError, match="many separate things"):
        remove_uniform_background(picture_of(alpha, graded()))


def test_the_fit_finds_a_quadratic_field_beside_an_object() -> None:
    y, x = np.mgrid[-1:1:100j, -1:1:120j]
    field = np.stack([60 + 8 * x - 5 * y**2, 10 + 4 * x * y, -20 + 3 * y], -1).astype(np.float32)
    image = field.copy()
    image[30:, 40:80] = (20, 60, 60)  # covers a third of one side
    fitted = fit_background(image)
    assert np.abs(fitted.lab - field)[fitted.seen].max() < 0.2
    assert not fitted.seen[30:, 40:80].any()
    assert fitted.seen.sum() > 0.9 * (100 * 120 - 70 * 40)


def test_the_fit_follows_small_deviations_from_the_polynomial() -> None:
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    light = 60 + 5 * np.exp(-(((x - 0.6) / 0.15) ** 2) - (y + 0.5) ** 2 / 0.15)
    fitted = fit_background(np.stack([light, np.zeros_like(x), np.zeros_like(x)], -1).astype(np.float32))
    assert fitted.seen.all()


def test_strong_noise_leaves_no_specks() -> None:
    alpha = disc(0.5, 0.45, 0.25)
    noisy = np.asarray(picture_of(alpha, graded())) + np.random.default_rng(0).normal(0, 14, (SIZE, SIZE, 3))
    cut = remove_uniform_background(Image.fromarray(np.uint8(np.clip(noisy, 0, 255))))
    assert iou(cut, alpha) > 0.97
    assert not np.asarray(cut)[disc(0.5, 0.45, 0.27) == 0, 3].any()
    assert (np.asarray(cut)[disc(0.5, 0.45, 0.23) > 0, 3] == 255).all()
