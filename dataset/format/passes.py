"""Define the passes of a view: depth, normals, albedo, position, mask and material, and how they are stored.

A pass is stored as `UID.fixed_00.depth.png` beside the view's image, in the same sample. The value of a pixel belongs
to one camera ray through the center of the pixel, and to the first surface on this ray whose opacity is at least 0.5.
Nothing is averaged, at edges neither. Pixels whose ray meets no such surface are background: 0 in all channels of all
passes.

    pass           PNG                  values
    depth          16 bits, gray        distance along the view axis, value * DEPTH_STEP
    position       16 bits, RGB         point in normalized space, value / 65535 * 2 - 1
    normal         8 bits, RGB          unit vector in world axes, value / 127.5 - 1
    camera-normal  8 bits, RGB          the same vector in camera axes (x right, y up, z backwards)
    albedo         8 bits, RGB          base color, sRGB-encoded
    material       8 bits, RGB          0, roughness, metallic: the channels of a glTF file, value / 255
    mask           8 bits, gray         255 where there is a surface

World axes and normalized space are those of the cameras: Blender's, z up, with the object in about [-0.5, 0.5].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.images.png import decode_png, encode_png

PassName = Literal["depth", "normal", "camera-normal", "albedo", "position", "mask", "material"]
PASSES: Final[tuple[PassName, ...]] = get_args(PassName)
DEPTH_STEP: Final = 1 / 16384  # world units; the largest depth is 4.0
FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """What the camera rays of one view meet. Background pixels have the depth 0; their other values are ignored."""

    depth: NDArray[np.float64]  # [h, w], distance along the view axis in world units
    normal: NDArray[np.float64]  # [h, w, 3], unit vectors in world axes
    albedo: NDArray[np.float64]  # [h, w, 3], linear base color in [0, 1]
    roughness: NDArray[np.float64]  # [h, w]
    metallic: NDArray[np.float64]  # [h, w]


def encode_passes(
    surface: Surface,
    passes: Sequence[PassName],
    c2w: NDArray[np.float64],
    K: NDArray[np.float64],
    *,
    orthographic: bool = False,
) -> dict[PassName, bytes]:
    """Encode passes of one view as PNG files.

    Args:
        surface: What the camera rays of the view meet.
        passes: Names of the passes.
        c2w: Camera-to-world matrix [4, 4], in the "blender" convention of `dataset.camera`.
        K: Intrinsic matrix [3, 3], in pixels.
        orthographic: Whether the camera is orthographic.

    Raises:
        ValueError: A depth or a position is out of the range that can be stored.
    """
    covered = surface.depth > 0
    images: dict[PassName, Callable[[], Any]] = {
        "depth": lambda: _depth(surface.depth),
        "normal": lambda: _directions(surface.normal),
        "camera-normal": lambda: _directions(surface.normal @ c2w[:3, :3]),
        "albedo": lambda: _bytes(to_srgb(surface.albedo)),
        "position": lambda: _positions(unproject(surface.depth, c2w, K, orthographic=orthographic), covered),
        "mask": lambda: np.full(covered.shape, 255, np.uint8),
        "material": lambda: _bytes(np.stack([np.zeros_like(surface.depth), surface.roughness, surface.metallic], -1)),
    }
    encoded: dict[PassName, bytes] = {}
    for name in passes:
        pixels = images[name]()
        pixels[~covered] = 0
        encoded[name] = encode_png(pixels)
    return encoded


def unproject(
    depth: NDArray[Any], c2w: NDArray[np.float64], K: NDArray[np.float64], *, orthographic: bool = False
) -> NDArray[np.float64]:
    """Return the points [h, w, 3] in world axes that the centers of pixels show.

    Args:
        depth: Distance along the view axis [h, w], in world units. Where it is 0, the result is the camera's position.
        c2w: Camera-to-world matrix [4, 4], in the "blender" convention of `dataset.camera`.
        K: Intrinsic matrix [3, 3], in pixels.
        orthographic: Whether the camera is orthographic.
    """
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    right, down = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
    rays = np.stack([right, -down, -np.ones_like(right)], -1)
    local = np.concatenate([rays[..., :2], -depth[..., None]], -1) if orthographic else rays * depth[..., None]
    points: NDArray[np.float64] = local @ c2w[:3, :3].T + c2w[:3, 3]
    return points


def decode_pass(name: PassName, data: bytes, where: str) -> Any:
    """Decode a pass of one view to float32, or to bool for the mask.

    Args:
        name: Name of the pass.
        data: Contents of the PNG file.
        where: Path of the file, with which error messages begin.

    Returns:
        depth: [h, w] in world units, 0 in the background. mask: bool [h, w]. position, normal and camera-normal:
        [h, w, 3]; all NaN in the background. albedo (linear) and material: [h, w, 3] in [0, 1], 0 in the background.

    Raises:
        UserError: The file is damaged or stores another pass.
    """
    pixels = decode_png(data, where)
    check_pixels(name, pixels, where)
    if name == "mask":
        return pixels > 0
    if name == "depth":
        return (pixels * np.float32(DEPTH_STEP)).astype(np.float32)
    if name in ("albedo", "material"):
        scaled = pixels.astype(np.float32) / np.float32(255)
        return from_srgb(scaled) if name == "albedo" else scaled
    step = np.float32(2 / 65535 if name == "position" else 2 / 255)
    vectors = pixels.astype(np.float32) * step - 1
    vectors[(pixels == 0).all(-1)] = np.nan
    return vectors


def check_pixels(name: PassName, pixels: Any, where: str, resolution: int | None = None) -> None:
    """Raise UserError if the pixels of a PNG file do not have the type and the number of channels of the pass `name`.

    `where` is the path of the file. If `resolution` is given, the image must have this many pixels per side.
    """
    channels = () if name in ("depth", "mask") else (3,)
    dtype = np.uint16 if name in ("depth", "position") else np.uint8
    size = pixels.shape[:2] if resolution is None else (resolution, resolution)
    expected = (*size, *channels)
    if pixels.dtype != dtype or pixels.shape != expected:
        raise UserError(
            f"{where}: the pass {name} has {pixels.dtype} pixels of the shape {pixels.shape}, expected "
            f"{np.dtype(dtype)} of the shape {expected}; render the object again"
        )


def check_pass(member: str, data: bytes, where: str, resolution: int | None = None) -> None:
    """Check the file of a pass: that it can be decoded, and has the type, the channels and the size of its pass.

    Args:
        member: Name of the member, such as "UID.fixed_00.depth.png".
        data: Contents of the file.
        where: Path of the file, with which error messages begin.
        resolution: Pixels per side. None: any square image.

    Raises:
        UserError: The file is damaged, or is not what its name says.
    """
    name = member.removesuffix(".png").rpartition(".")[2]
    known = next((known for known in PASSES if known == name), None)
    if known is None:
        raise UserError(f"{where}: there is no pass {name!r}; the passes are {', '.join(PASSES)}")
    check_pixels(known, decode_png(data, where), where, resolution)


def to_srgb(linear: NDArray[Any]) -> NDArray[Any]:
    """Encode linear color values with the sRGB transfer function. Values are clipped to [0, 1]."""
    clipped = np.clip(linear, 0, 1)
    encoded: NDArray[Any] = np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return encoded


def from_srgb(encoded: NDArray[Any]) -> NDArray[Any]:
    """Decode sRGB-encoded values in [0, 1] to linear color values. It is the inverse of `to_srgb`."""
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear.astype(encoded.dtype)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    return rounded


def _directions(vectors: NDArray[np.float64]) -> NDArray[np.uint8]:
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    rounded: NDArray[np.uint8] = np.rint((vectors / lengths + 1) * 127.5).astype(np.uint8)
    return rounded


def _depth(depth: NDArray[np.float64]) -> NDArray[np.uint16]:
    steps = np.rint(depth / DEPTH_STEP)
    if not (np.isfinite(steps).all() and steps.max(initial=0) < 2**16):
        raise ValueError(f"a depth is {depth.max():.3g}; at most {DEPTH_STEP * 65535:.3g} can be stored")
    return np.maximum(steps, depth > 0).astype(np.uint16)


def _positions(points: NDArray[np.float64], covered: NDArray[np.bool_]) -> NDArray[np.uint16]:
    largest = float(np.abs(points[covered]).max(initial=0))
    if not largest <= 1:
        raise ValueError(f"a surface has a coordinate of {largest:.3g} in normalized space; at most 1 can be stored")
    rounded: NDArray[np.uint16] = np.rint((np.clip(points, -1, 1) + 1) / 2 * 65535).astype(np.uint16)
    return rounded
