"""Augmentation of rendered views: repeatable, on white, the object stays visible, and single effects."""

import pytest
import torch
from torch import Tensor

from dataset.images.prepare import WHITE_LEVEL
from train.components.augment import (
    augment,
    block_quantized,
    color_jitter,
    line_drawing,
    partial_crop,
    with_leftovers,
)
from train.data.images import on_white


def _views(n: int, brightness: int = 120, side: int = 32) -> Tensor:
    """Views uint8 [n, side, side, 4] of a square of random colors around `brightness` in the middle."""
    views = torch.zeros(n, side, side, 4, dtype=torch.uint8)
    inside = slice(side // 4, 3 * side // 4)
    colors = torch.randint(-20, 20, (n, side // 2, side // 2, 3), generator=_seed(1)) + brightness
    views[:, inside, inside, :3] = colors.clamp(0, 255).to(torch.uint8)
    views[:, inside, inside, 3] = 255
    return views


def _seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _visible(images: Tensor) -> Tensor:
    return ((1 - images).amax(1) > WHITE_LEVEL / 255).flatten(1).sum(1)


def test_a_seed_determines_the_result() -> None:
    views = _views(64)
    before = views.clone()
    first, again, other = augment(views, _seed(3)), augment(views, _seed(3)), augment(views, _seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(views, before)
    assert first.shape == (64, 3, 32, 32)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    changed = (first - on_white(views)).abs().amax((1, 2, 3)) > 0.01
    assert float(changed.float().mean()) > 0.9


@pytest.mark.parametrize("brightness", [10, 120, 225])
def test_the_object_stays_visible(brightness: int) -> None:
    """Light objects too, which a higher exposure could make as white as the background."""
    views = _views(512, brightness)
    images, original = augment(views, _seed(5)), on_white(views)
    assert bool((_visible(images) >= 0.1 * _visible(original)).all())


def test_the_background_mostly_stays_white() -> None:
    """The block pattern of JPEG, blurred, may reach into it."""
    corners = augment(_views(256), _seed(6))[..., :3, :3]
    white = (1 - corners).amax((1, 2, 3)) < WHITE_LEVEL / 255
    assert float(white.float().mean()) > 0.9


def test_leftovers_are_around_the_object_in_a_fifth_of_the_views() -> None:
    views = _views(1000)
    wider = with_leftovers(views, _seed(7))
    assert torch.equal(wider[..., 8:24, 8:24, :], views[..., 8:24, 8:24, :])  # the object itself is as before
    larger = (wider[..., 3] > 0).flatten(1).sum(1) > (views[..., 3] > 0).flatten(1).sum(1)
    assert 0.15 < float(larger.float().mean()) < 0.25
    assert int((wider[:, :, :6, 3]).max()) == 0  # 2 pixels at most


def test_a_crop_replaces_one_side_by_white() -> None:
    images = torch.zeros(400, 3, 20, 20)
    cropped = partial_crop(images, _seed(8), chance=1.0)
    white = cropped.flatten(1).mean(1)
    assert float(white.min()) >= 0.1
    assert float(white.max()) <= 0.4
    sides = {tuple(sorted((one[0] == 1).nonzero().min(0).values.tolist())) for one in cropped[:50]}
    assert len(sides) > 1
    assert torch.equal(partial_crop(images, _seed(8), chance=0.0), images)


def test_colors_change_but_white_does_not() -> None:
    images = on_white(_views(16))
    changed = color_jitter(images, _seed(9))
    background = (images == 1).all(1, keepdim=True).expand_as(images)
    assert bool((changed[background] == 1).all())
    assert float((changed - images).abs()[~background].mean()) > 0.03


def test_a_drawing_has_lines_where_the_brightness_changes() -> None:
    images = torch.ones(1, 3, 16, 16)
    images[..., 8:] = 0
    drawing = line_drawing(images)
    assert bool((drawing[..., 7:9] == 0).all())
    assert bool((drawing[..., :6] == 1).all())
    assert bool((drawing[..., 10:] == 1).all())


def test_quantized_blocks_resemble_the_image() -> None:
    images = torch.rand(2, 3, 16, 24, generator=_seed(0))[..., :16]
    fine = block_quantized(images, step=1e-5)
    torch.testing.assert_close(fine, images, atol=1e-4, rtol=0)
    coarse = block_quantized(images)
    assert 0.01 < float((coarse - images).abs().mean()) < 0.2
    assert torch.equal(block_quantized(images[..., :15, :15]), images[..., :15, :15])
