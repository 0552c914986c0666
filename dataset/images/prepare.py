"""Encode and decode WebP images, composite images on white, draw contact sheets, and prepare input images.

Images have straight (not premultiplied) alpha. They are resampled in premultiplied float32, which avoids dark fringes.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont

from dataset.errors import UserError
from dataset.images.background import Background, check_threshold, remove_background
from dataset.images.decode import BROKEN, MIN_SIDE, read_image

UInt8 = NDArray[np.uint8]
FloatImage = NDArray[np.float32]
AnyImage = UInt8 | FloatImage  # uint8 [h, w, 3 | 4], or float [h, w, 3] in [0, 1]

# In our renders, a side of length 1 through the center spans 35 / 32 / 1.5 = 0.73 of the frame, closer parts more.
# In the random views of 160 objects with longest side 1, the mean is 0.79 and the median 0.78.
OBJECT_FILL: Final = 0.78
_MASK_LEVEL: Final = 12  # alpha (of 255) from which a pixel belongs to the object's bounding box
WHITE_LEVEL: Final = 12  # by how much a white background may be darker than 255 (JPEG noise)
_BLUR: Final = 3.0  # a notice is given for objects that are enlarged by more than this


@dataclass(frozen=True)
class Prepared:
    """An input image, prepared for sampling views and for distillation. `notices` are sentences for the user."""

    rgb: FloatImage  # [size, size, 3] in [0, 1], on white
    rgba: UInt8  # [size, size, 4]
    notices: tuple[str, ...]
    framing: str  # a sentence: which part is the object, and how it was placed


def encode_webp(rgba: UInt8) -> bytes:
    """Encode an image uint8 [h, w, 4] as lossless WebP; equal images give equal bytes.

    The colors of fully transparent pixels are kept.

    Raises:
        ValueError: `rgba` has another shape or dtype.
    """
    if rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4:
        raise ValueError(
            f"cannot encode an array of {rgba.dtype} with the shape {rgba.shape} as WebP; give uint8 [h, w, 4]"
        )
    buffer = io.BytesIO()
    # method 2: 17 ms per 256x256 view instead of the default's 110 ms, and no larger
    Image.fromarray(np.ascontiguousarray(rgba)).save(buffer, "WEBP", lossless=True, exact=True, method=2, quality=50)
    return buffer.getvalue()


def decode_webp(data: bytes, where: str) -> UInt8:
    """Decode the bytes of a WebP file to pixels uint8 [h, w, 4].

    Raises:
        UserError: `data` is not a readable WebP image. The message begins with `where`, the path of the image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return np.array(image.convert("RGBA"))  # the encoder drops an alpha that is 255 everywhere
    except BROKEN as error:
        raise UserError(
            f"{where}: not a readable WebP image ({type(error).__name__}); write the file again or restore it"
        ) from error


def composite_white(rgba: UInt8) -> FloatImage:
    """Composite an image uint8 [..., 4] with straight alpha on white. Return float32 [..., 3] in [0, 1]."""
    scaled = rgba.astype(np.float32) / 255
    alpha = scaled[..., 3:]
    on_white: FloatImage = scaled[..., :3] * alpha + (1 - alpha)
    return on_white


def to_uint8_rgb(image: AnyImage) -> UInt8:
    """Convert an image to uint8 [h, w, 3] on white."""
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return image.astype(np.uint8)
    rgb = composite_white(image.astype(np.uint8)) if image.dtype == np.uint8 else image.astype(np.float32)
    quantized: UInt8 = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return quantized


def contact_sheet(
    images: Sequence[AnyImage],
    columns: int,
    *,
    captions: Sequence[str] = (),
    gap: int = 2,
) -> Image.Image:
    """Arrange images of the same size in a grid on a white background, row by row.

    Args:
        images: Images of height h and width w: uint8 [h, w, 3] (RGB), uint8 [h, w, 4] (RGBA, which is composited on
            white), or float [h, w, 3] in [0, 1].
        columns: Number of images per row.
        captions: Text to draw above each image, one per image. Empty: draw no text.
        gap: Distance between images in pixels.

    Raises:
        ValueError: There is no image, `columns` is less than 1, or the images differ in size.
    """
    if not images or columns < 1:
        raise ValueError(
            f"a contact sheet needs at least one image and one column; got {len(images)} images and {columns} columns"
        )
    height, width = images[0].shape[:2]
    if any(image.shape[:2] != (height, width) for image in images):
        raise ValueError(f"the images of a contact sheet must all have the same size, like the first: {width}x{height}")
    band = 14 if any(captions) else 0
    rows = math.ceil(len(images) / columns)
    cell_w, cell_h = width + gap, height + band + gap
    sheet = Image.new("RGB", (columns * cell_w + gap, rows * cell_h + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for i, image in enumerate(images):
        x, y = gap + i % columns * cell_w, gap + i // columns * cell_h
        sheet.paste(Image.fromarray(to_uint8_rgb(image)), (x, y + band))
        if i < len(captions) and captions[i]:
            draw.text((x, y), captions[i], fill="black", font=font)
    return sheet


def prepare_image(
    source: Path | Image.Image,
    size: int,
    *,
    background: Background = "auto",
    background_threshold: float | None = None,
) -> Prepared:
    """Prepare an input image as the model expects it: the object centered on white, `size` x `size` pixels.

    If the image has transparent pixels, a white background, or a background that can be removed, it is cropped to the
    object and padded. The longest side of the object then has OBJECT_FILL * `size` pixels, as in rendered sets. Any
    other image is used as a whole and padded to a white square. In this case, a notice says so.

    Args:
        source: Path of the image file, or an image that is already open.
        size: Side length of the prepared image in pixels.
        background: How to remove the background, unless the image has transparent pixels: see
            `background.remove_background`. `auto` and `keep` treat an image on white as an image on white, unless there
            is a `background_threshold`.
        background_threshold: For `auto` and `uniform`: color difference up to which a pixel belongs to the background,
            as in `background.remove_background`. None: from the noise of the background.

    Raises:
        UserError: `background_threshold` is out of range or has no effect, `size` is too small, the image cannot be
            read, its background cannot be removed as `background` requires, or it shows no object or only a tiny one.
    """
    check_threshold(background, background_threshold)
    if size < MIN_SIDE:
        raise UserError(f"the image size of {size} pixels per side is too small; give at least {MIN_SIDE} pixels")
    name = "the image" if isinstance(source, Image.Image) else str(source)
    image, notices = read_image(source, name)
    opaque = image.getchannel("A").getextrema()[0] == 255
    if not opaque and (background in ("uniform", "rembg") or background_threshold is not None):
        notices.append(f"{name} is already transparent; its alpha is used and no background is removed")
    treats_white = background in ("auto", "keep") and background_threshold is None
    box = _box_on_white(image) if opaque and treats_white else None
    if opaque and box is None:
        cut_out, said = remove_background(image, background, name, background_threshold)
        notices += said
        image, opaque = (image, True) if cut_out is None else (cut_out, False)
    if not opaque:
        box = _object_box(image, name)
    fill = OBJECT_FILL
    if box is None:
        box, fill = (0, 0, image.width, image.height), 1.0
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) < MIN_SIDE:
        raise UserError(
            f"{name}: the object is only {width}x{height} pixels large, but its longest side must have at least "
            f"{MIN_SIDE} pixels; give an image that shows the object larger"
        )
    if fill * size > _BLUR * max(width, height):
        notices.append(
            f"{name}: the object of {width}x{height} pixels is enlarged to {round(fill * size)} and will be blurred"
        )
    what = "the part that is not white" if opaque else "the part that is not transparent"
    what = "the whole image" if fill == 1.0 else what
    framing = f"{what}, {width}x{height} pixels, is centered; the longest side fills {fill:.0%} of {size} pixels"
    rgba = _fit(image.crop(box), size, fill)
    if opaque and fill < 1:
        rgba = _without_white(rgba)
    return Prepared(rgb=composite_white(rgba), rgba=rgba, notices=tuple(notices), framing=framing)


def _box_on_white(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the bounding box (left, top, right, bottom) of the pixels that are not white.

    Return None if a pixel on the border of the image is not white, or all pixels are white.
    """
    rgb = image.convert("RGB")
    darkest = ImageChops.darker(ImageChops.darker(*rgb.split()[:2]), rgb.split()[2])
    box = darkest.point(lambda value: 255 if value < 255 - WHITE_LEVEL else 0).getbbox()
    inside = box is not None and box[0] > 0 and box[1] > 0 and box[2] < image.width and box[3] < image.height
    return box if inside else None


def _without_white(rgba: UInt8) -> UInt8:
    """Return an image uint8 [h, w, 4] without its white background: the white pixels connected to the top-left corner.

    These pixels become transparent.
    """
    white = (rgba[..., :3].min(-1) >= 255 - WHITE_LEVEL) | (rgba[..., 3] == 0)
    seen = Image.fromarray(white.astype(np.uint8))
    ImageDraw.floodfill(seen, (0, 0), 2)
    cut: UInt8 = np.where((np.asarray(seen) == 2)[..., None], np.uint8(0), rgba)
    return cut


def _object_box(image: Image.Image, name: str) -> tuple[int, int, int, int]:
    """Return the bounding box (left, top, right, bottom) of the pixels that are not transparent."""
    box = image.getchannel("A").point(lambda alpha: 255 if alpha >= _MASK_LEVEL else 0).getbbox()
    if box is None:
        raise UserError(f"all pixels of {name} are transparent; give an image that shows an object")
    return box


def _fit(image: Image.Image, size: int, fill: float) -> UInt8:
    """Scale an RGBA image to a longest side of `fill` * `size` pixels and center it in an image [size, size, 4]."""
    factor = max(image.size) // (4 * size)
    if factor > 1:  # box reduction first: bounds memory and keeps the filter below small
        image = image.reduce(factor)
    side = round(max(image.size) / fill)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    canvas = np.zeros((side, side, 4), np.float32)
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image, np.float32) / 255
    canvas[..., :3] *= canvas[..., 3:]
    resized = np.stack([_resample(canvas[..., c], size) for c in range(4)], -1)
    alpha = np.clip(resized[..., 3:], 0, 1)
    color = np.clip(resized[..., :3], 0, alpha)  # overshoot of the filter must not exceed alpha
    straight = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    rgba: UInt8 = np.rint(np.concatenate([straight, alpha], -1) * 255).astype(np.uint8)
    return rgba


def _resample(channel: FloatImage, size: int) -> FloatImage:
    """Resize a channel from [h, w] to [size, size], with antialiasing."""
    image = Image.fromarray(np.ascontiguousarray(channel))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.float32)
