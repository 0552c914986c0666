"""Downscale the 32 images of a sample by an integer factor, and adapt the cameras in the sample's metadata.

Pixels are averaged as sRGB-encoded values, premultiplied by alpha. Therefore, downscaling an image and compositing the
result on white (`dataset.images.prepare.composite_white`) equals compositing on white and downscaling, except for
rounding to 8 bits.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from dataset.errors import UserError
from dataset.format.schema import VIEW_SETS, Meta, View, dump_meta, member_name, meta_name
from dataset.images.prepare import UInt8, decode_webp, encode_webp

PASSES_REMEDY: Final = "which cannot be averaged; copy the set without --resolution, or render it at that resolution"
AVERAGED_FROM: Final = "averaged_from"  # key in a Meta's `renderer`: pixels per side of the rendered images


def average_blocks(rgba: UInt8, factor: int) -> UInt8:
    """Downscale an image by averaging blocks of `factor` x `factor` pixels, weighted by alpha.

    The average uses integer arithmetic, and halves are rounded up, so the bytes are the same on every machine. In the
    downscaled image, fully transparent pixels are 0 in all channels.

    Args:
        rgba: RGBA image of height h and width w: uint8 [h, w, 4] with straight alpha.
        factor: Side of a block in pixels; must divide h and w.

    Returns:
        RGBA image, uint8 [h / factor, w / factor, 4], with straight alpha.

    Raises:
        ValueError: `factor` does not divide h and w, or `rgba` does not have four channels.
    """
    height, width, channels = rgba.shape
    if factor < 1 or height % factor or width % factor or channels != 4:
        raise ValueError(
            f"an image of shape {rgba.shape} cannot be divided into blocks of {factor} x {factor} pixels; give an "
            "RGBA image [h, w, 4] and a factor that divides h and w"
        )
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
    """Return the 33 members (full name -> bytes) of a sample at a lower resolution.

    Args:
        members: The 33 members of the sample (full name -> bytes).
        meta: Metadata of the sample, parsed from the metadata member.
        resolution: Pixels per side of the returned images; must divide `meta.resolution`.
        where: Path of the sample's shard. Error messages begin with this path.

    Raises:
        UserError: An image cannot be decoded, or its size differs from the metadata. The message names the member.
        ValueError: `resolution` does not divide `meta.resolution`.
    """
    factor = meta.resolution // resolution
    if resolution < 1 or factor * resolution != meta.resolution:
        raise ValueError(
            f"the target resolution {resolution} does not divide {meta.resolution}, the resolution of the object "
            f"{meta.uid}; give a divisor of {meta.resolution}"
        )
    expected = (meta.resolution, meta.resolution, 4)
    views, images = {}, {}
    for view_set in VIEW_SETS:
        smaller = []
        for i in range(len(meta.views[view_set])):
            name = member_name(meta.uid, view_set, i)
            rgba = decode_webp(members[name], f"{where}/{name}")
            if rgba.shape != expected:
                raise UserError(
                    f"{where}/{name} is damaged: the image has the shape {rgba.shape}, but the object's metadata "
                    f"say {expected}; render the object again"
                )
            small = average_blocks(rgba, factor)
            smaller.append(_view(meta.views[view_set][i], factor, small))
            images[name] = encode_webp(small)
        views[view_set] = tuple(smaller)
    renderer = {AVERAGED_FROM: meta.resolution, **meta.renderer}
    about = replace(meta, resolution=resolution, views=views, renderer=renderer)
    return {meta_name(meta.uid): dump_meta(about), **images}


def _view(view: View, factor: int, small: UInt8) -> View:
    """Return the camera of an image that was downscaled by `factor`: pixel coordinates (x, y) become (x, y) / factor.

    `alpha_coverage` is computed from the downscaled image `small`; `clipped` is copied from `view`.
    """
    columns = (tuple(value / factor for value in row) for row in view.K[:2])
    coverage = float(small[..., 3].mean(dtype=np.float64) / 255)
    return replace(view, K=(*columns, view.K[2]), alpha_coverage=coverage)
