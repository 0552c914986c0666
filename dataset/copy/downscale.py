"""Downscale a sample's images by an integer factor, and adapt its cameras.

The premultiplied, sRGB-encoded values are averaged. Compositing on white (`dataset.images.prepare.composite_white`)
therefore commutes with averaging, except for the rounding to 8 bits.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from dataset.errors import UserError
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, Meta, View, dump_meta, member_name, meta_name
from dataset.images.prepare import UInt8, decode_webp, encode_webp

AVERAGED_FROM: Final = "averaged_from"  # key in a Meta's `renderer`: pixels per side of the rendered images


def average_blocks(rgba: UInt8, factor: int) -> UInt8:
    """Average blocks of factor x factor pixels of a straight-alpha image.

    `rgba` is uint8 [h, w, 4]; the result is uint8 [h / factor, w / factor, 4].

    Integer arithmetic with halves rounded up gives the same bytes on every machine. Fully transparent pixels are 0 in
    all channels. Raises ValueError when the factor does not divide height and width.
    """
    height, width, channels = rgba.shape
    if factor < 1 or height % factor or width % factor or channels != 4:
        raise ValueError(f"an image of shape {rgba.shape} cannot be divided into blocks of {factor} x {factor} pixels")
    planes = np.ascontiguousarray(rgba.transpose(2, 0, 1)).astype(np.uint32)  # [4, h, w]: summing is five times faster
    planes[:3] *= planes[3]
    rows = planes.reshape(4, height // factor, factor, width).sum(2, dtype=np.int64)
    sums = rows.reshape(4, height // factor, width // factor, factor).sum(3)
    color, weight, area = sums[:3], sums[3], factor * factor
    alpha = (2 * weight + area) // (2 * area)
    straight = (2 * color + weight) // np.maximum(2 * weight, 1)
    small: UInt8 = np.where(alpha > 0, np.stack([*straight, alpha]), 0).transpose(1, 2, 0).astype(np.uint8)
    return small


def downscale_sample(members: Mapping[str, bytes], meta: Meta, resolution: int, where: str) -> dict[str, bytes]:
    """Return the sample's 33 members (full name -> bytes) at `resolution`.

    Raises UserError when an image cannot be decoded or its size differs from the metadata; the message begins with
    `where` and the member's name. Raises ValueError when `resolution` does not divide the resolution in `meta`.
    """
    factor = meta.resolution // resolution
    if resolution < 1 or factor * resolution != meta.resolution:
        raise ValueError(f"the resolution {resolution} does not divide {meta.resolution}, the resolution of {meta.uid}")
    expected = (meta.resolution, meta.resolution, 4)
    views, images = {}, {}
    for view_set in VIEW_SETS:
        smaller = []
        for i in range(VIEWS_PER_SET):
            name = member_name(meta.uid, view_set, i)
            rgba = decode_webp(members[name], f"{where}/{name}")
            if rgba.shape != expected:
                raise UserError(
                    f"{where}/{name} is damaged: its shape is {rgba.shape}, but its metadata says {expected}"
                )
            small = average_blocks(rgba, factor)
            smaller.append(_view(meta.views[view_set][i], factor, small))
            images[name] = encode_webp(small)
        views[view_set] = tuple(smaller)
    renderer = {AVERAGED_FROM: meta.resolution, **meta.renderer}
    about = replace(meta, resolution=resolution, views=views, renderer=renderer)
    return {meta_name(meta.uid): dump_meta(about), **images}


def _view(view: View, factor: int, small: UInt8) -> View:
    """Return the camera of the smaller image: the pixel corner (x, y) moves to (x, y) / factor.

    `alpha_coverage` is computed from the smaller image; `clipped` is kept.
    """
    columns = (tuple(value / factor for value in row) for row in view.K[:2])
    coverage = float(small[..., 3].mean(dtype=np.float64) / 255)
    return replace(view, K=(*columns, view.K[2]), alpha_coverage=coverage)
