"""Augment rendered views to train an image encoder that also understands photographs and drawings.

The functions work on batches on any device. Random numbers come from a `torch.Generator` on the CPU.
"""

import math
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dataset.images.prepare import WHITE_LEVEL
from train.data.images import on_white

_LUMA: Final = (0.299, 0.587, 0.114)  # Rec. 601
_GRAY: Final = (1 / 3, 1 / 3, 1 / 3)
_MIN_VISIBLE: Final = 0.1  # fraction of the object's pixels that are not white after the augmentation


def augment(rgba: Tensor, generator: Generator) -> Tensor:
    """Return augmented images on white, [n, 3, s, s] in [0, 1], of views uint8 [n, s, s, 4].

    Each image gets a random subset of: leftovers of a background along the outline, a partial crop, a drawing style
    (outlines or flat shading), a lower resolution, blur, and the block pattern of JPEG; and random exposure, white
    balance, contrast and saturation. An image of whose object less than a tenth would remain visible is not changed.
    """
    views = on_white(with_leftovers(rgba, generator))
    images = partial_crop(views, generator, chance=0.15)
    images = color_jitter(images, generator)
    images = _replace_some(images, flat_shading(images), 0.12, generator)
    images = _replace_some(images, line_drawing(images), 0.08, generator)
    images = _replace_some(images, lower_resolution(images, generator), 0.25, generator)
    images = _replace_some(images, blurred(images), 0.2, generator)
    images = _replace_some(images, block_quantized(images), 0.25, generator).clamp(0, 1)
    return torch.where(_object_area(images) < _MIN_VISIBLE * _object_area(views), views, images)


def _object_area(images: Tensor) -> Tensor:
    """Return the number of pixels that are not white in images [n, 3, s, s] in [0, 1]: [n, 1, 1, 1]."""
    return ((1 - images).amax(1, keepdim=True) > WHITE_LEVEL / 255).sum((2, 3), keepdim=True)


def uniform(generator: Generator, n: int, low: float, high: float, like: Tensor) -> Tensor:
    """Draw n uniform numbers in [low, high), [n, 1, 1, 1] on the device of `like`."""
    return (torch.rand(n, 1, 1, 1, generator=generator) * (high - low) + low).to(like.device)


def _replace_some(images: Tensor, changed: Tensor, chance: float, generator: Generator) -> Tensor:
    """Replace images [n, 3, s, s] by their counterparts in `changed`, each with the probability `chance`."""
    return torch.where(uniform(generator, len(images), 0, 1, images) < chance, changed, images)


def with_leftovers(rgba: Tensor, generator: Generator) -> Tensor:
    """In a fifth of the views uint8 [n, s, s, 4], add a band of a random color of 1 or 2 pixels along the outline.

    Cut-outs of photographs often keep such a band of their background.
    """
    n = len(rgba)
    alpha = rgba[..., 3].float()[:, None] / 255
    wide = torch.where(uniform(generator, n, 0, 1, alpha) < 0.5, _dilated(alpha, 1), _dilated(alpha, 2))
    chosen = uniform(generator, n, 0, 1, alpha) < 0.2
    color = (torch.rand(n, 3, 1, 1, generator=generator)).to(rgba.device)
    colors = rgba[..., :3].movedim(-1, 1).float() / 255
    wider = torch.where(chosen, wide, alpha)
    mixed = (colors * alpha + color * (wider - alpha).clamp(min=0)) / wider.clamp(min=1e-3)
    result = torch.cat([torch.where(chosen, mixed, colors), wider], 1)
    return (result.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)


def _dilated(alpha: Tensor, radius: int) -> Tensor:
    return functional.max_pool2d(alpha, 2 * radius + 1, 1, radius)


def partial_crop(images: Tensor, generator: Generator, chance: float) -> Tensor:
    """Cut off up to a fifth of some of the images [n, 3, s, s] at one side, replaced by white."""
    n, side = len(images), images.shape[-1]
    limit, chosen = uniform(generator, n, 0.6, 0.85, images), uniform(generator, n, 0, 1, images) < chance
    x = (torch.arange(side, device=images.device) / side).expand(side, side)
    depths = torch.stack([x, x.T, x.flip(1), x.flip(1).T])[:, None]  # from each of the four sides
    at = depths[torch.randint(4, (n,), generator=generator).to(images.device)]
    return torch.where(chosen & (at > limit), torch.ones_like(images), images)


def color_jitter(images: Tensor, generator: Generator) -> Tensor:
    """Change exposure, white balance, contrast and saturation of images [n, 3, s, s]; white stays white."""
    n = len(images)
    colored = (1 - images).amax(1, keepdim=True) > 2 / 255
    luma = _weighted(images, _LUMA)
    changed = luma + (images - luma) * uniform(generator, n, 0.6, 1.4, images)
    balance = (torch.rand(n, 3, 1, 1, generator=generator) * 0.24 + 0.88).to(images.device)
    changed = changed * balance * uniform(generator, n, 0.6, 1.35, images)
    changed = (changed - 0.5) * uniform(generator, n, 0.75, 1.25, images) + 0.5
    return torch.where(colored, changed.clamp(0, 1), images)


def flat_shading(images: Tensor) -> Tensor:
    """Return images [n, 3, s, s] with few levels of brightness, like a cartoon."""
    smooth = functional.avg_pool2d(functional.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return (smooth * 4).round() / 4


def line_drawing(images: Tensor) -> Tensor:
    """Return images [n, 3, s, s] as dark lines on white, where the brightness changes."""
    luma = _weighted(images, _GRAY)
    padded = functional.pad(luma, (1, 1, 1, 1), mode="replicate")
    dx, dy = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    lines = 1 - (3 * (dx.square() + dy.square()).sqrt()).clamp(0, 1)
    return lines.expand_as(images)


def lower_resolution(images: Tensor, generator: Generator) -> Tensor:
    """Reduce images [n, 3, s, s] to between a third and two thirds of their resolution, and enlarge them again."""
    side = images.shape[-1]
    small = int(side * (1 / 3 + float(torch.rand(1, generator=generator)) / 3))
    down = functional.interpolate(images, (small, small), mode="bilinear", antialias=True, align_corners=False)
    return functional.interpolate(down, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def blurred(images: Tensor) -> Tensor:
    """Blur images [n, 3, s, s] with a 3 x 3 box."""
    return functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def block_quantized(images: Tensor, size: int = 8, step: float = 0.12) -> Tensor:
    """Round the cosine coefficients of blocks of size x size pixels of images [n, 3, s, s], as JPEG does.

    The rounding step of a coefficient grows with its frequency. Images whose side is no multiple of `size` are
    returned unchanged.
    """
    side = images.shape[-1]
    if side % size:
        return images
    at = torch.arange(size, device=images.device, dtype=images.dtype)
    basis = torch.cos((at[None] + 0.5) * at[:, None] * math.pi / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    steps = step * (1 + at[:, None] + at[None]) / 2
    count = side // size
    blocks = images.reshape(*images.shape[:2], count, size, count, size).transpose(-2, -3)  # [n, 3, y, x, size, size]
    quantized = (basis @ blocks @ basis.T / steps).round() * steps
    back: Tensor = basis.T @ quantized @ basis
    return back.transpose(-2, -3).reshape(images.shape)


def _weighted(images: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Return the weighted sum of the color channels of images [n, 3, s, s]: [n, 1, s, s]."""
    return (images * images.new_tensor(weights).view(1, 3, 1, 1)).sum(1, keepdim=True)
