"""Measure the removal of uniform backgrounds: `python -m benchmarks.images.cutout_bench FOLDER`.

FOLDER holds RGBA images of single objects; those that are mostly translucent are left out. Each object is pasted on
backgrounds of several kinds, half of them gray: uniform colors, gradients with vignettes, noise and JPEG artifacts,
gradients with a soft shadow, and clutter that must be refused. The cut-out is compared with the object's alpha. The
last line is JSON.
"""

import argparse
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dataset.errors import UserError, run_cli
from dataset.images.background_color import NotUniformError
from dataset.images.decode import image_files, read_image
from dataset.images.prepare import contact_sheet
from dataset.images.uniform_background import remove_uniform_background

FloatImage = NDArray[np.float64]
GOOD: Final = ("uniform", "gradient", "noise", "shadow")
CLUTTER: Final = ("tiles", "blurred", "texture", "stripes", "room")
_SMALLEST: Final = 96  # pixels of the longest side of an object that is used
_TILE: Final = 160  # pixels: side of the images on contact sheets
_LEAST_SIZE: Final = 160  # pixels: smallest side of composites
_LEAST_OPAQUE: Final = 0.8  # share of the visible pixels of an object that must be opaque: glass has no outline


@dataclass(frozen=True)
class CutoutResult:
    """The outcome for one composite. `iou` is None if the background was refused."""

    name: str
    kind: str
    iou: float | None
    cpu_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Raises UserError when the folder has no usable image."""
    options = _options(arguments)
    objects = _objects(options.folder, options.max_objects)
    results, tiles = [], []
    for number, (name, cutout) in enumerate(objects):
        others = [other for _, other in objects[max(0, number - 4) : number]] or [objects[-1][1]]
        for kind in (*GOOD, *CLUTTER):
            rng = np.random.default_rng([options.seed, number, (*GOOD, *CLUTTER).index(kind)])
            picture, alpha = composite(cutout, kind, options.size, rng, others)
            result, cut = _measure(name, kind, picture, alpha)
            results.append(result)
            if options.sheet:
                tiles.append((result, _tiles_of(picture, cut)))
    if options.sheet:
        _write_sheets(tiles, options.sheet)
    line = {kind: summary([each for each in results if each.kind == kind]) for kind in (*GOOD, *CLUTTER)}
    for kind, figures in line.items():
        print(f"{kind}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    print(json.dumps({"objects": len(objects), "size": options.size, "seed": options.seed, **line}))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images.cutout_bench", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of RGBA images, each of one object")
    parser.add_argument("--max-objects", type=int, default=80, help="number of objects, spread over the folder")
    parser.add_argument("--size", type=int, default=512, help="side of the composites in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the backgrounds")
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets of the results, worst first")
    parsed = parser.parse_args(arguments)
    if parsed.max_objects < 1 or parsed.size < _LEAST_SIZE:
        parser.error(f"--max-objects must be at least 1, and --size at least {_LEAST_SIZE}")
    return parsed


def _objects(folder: Path, most: int) -> list[tuple[str, Image.Image]]:
    """Return names and images of the objects, cropped to their alpha."""
    found = []
    for path in image_files([folder]):
        image, _ = read_image(path, str(path))
        alpha = np.asarray(image.getchannel("A"))
        box = image.getchannel("A").point(lambda value: 255 if value > 127 else 0).getbbox()
        if alpha.min() > 0 or box is None or max(box[2] - box[0], box[3] - box[1]) < _SMALLEST:
            continue
        if (alpha > 127).sum() < _LEAST_OPAQUE * (alpha > 12).sum():
            continue
        found.append((path.stem, image.crop(box)))
    if not found:
        raise UserError(f"{folder} has no RGBA image with transparent pixels; give a folder of cut-outs")
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def composite(
    cutout: Image.Image, kind: str, size: int, rng: np.random.Generator, others: Sequence[Image.Image]
) -> tuple[Image.Image, FloatImage]:
    """Paste an object on a background of a kind in GOOD or CLUTTER.

    Args:
        cutout: The object, RGBA.
        kind: Kind of the background.
        size: Side of the result in pixels.
        rng: Random generator of colors, position and size.
        others: Images from which clutter is made.

    Returns:
        The opaque image and the object's alpha [size, size] in [0, 1].
    """
    side = round(size * rng.uniform(0.5, 0.85))
    factor = side / max(cutout.size)
    scaled = cutout.resize((max(1, round(cutout.width * factor)), max(1, round(cutout.height * factor))))
    left, top = (int(rng.integers(4, size - length - 3)) for length in scaled.size)
    layer = np.zeros((size, size, 4))
    layer[top : top + scaled.height, left : left + scaled.width] = np.asarray(scaled) / 255
    alpha = layer[..., 3:]
    behind = background(kind, size, rng, others)
    if kind == "shadow":
        behind = behind * (1 - shadow(alpha[..., 0], rng)[..., None])
    mixed = behind * (1 - alpha) + layer[..., :3] * alpha
    if kind == "noise":
        mixed = mixed + rng.normal(0, rng.uniform(1, 6) / 255, mixed.shape)
    image = Image.fromarray(np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8))
    if kind == "noise":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        image = Image.open(buffer).convert("RGB")
    return image, alpha[..., 0]


def background(kind: str, size: int, rng: np.random.Generator, others: Sequence[Image.Image]) -> FloatImage:
    """Return a background [size, size, 3] in [0, 1] of a kind in GOOD or CLUTTER."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    color = rng.uniform(0.05, 0.95, 3)
    if rng.random() < 0.5:  # a gray studio
        color = np.clip(color.mean() + rng.uniform(-0.03, 0.03, 3), 0, 1)
    if kind == "uniform":
        return np.broadcast_to(color, (size, size, 3))
    if kind == "texture":
        scale = rng.uniform(0, 6)
        noise = ndimage.gaussian_filter(rng.normal(0, 1, (size, size, 3)), (scale, scale, 0))
        return np.asarray(np.clip(color + 0.2 * noise / noise.std(), 0, 1))
    if kind == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.1, 0.6)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period) > 0
        return np.where(wave[..., None], color, np.clip(color + np.where(color > 0.5, -0.4, 0.4), 0, 1))
    if kind in ("tiles", "blurred"):
        blur = size * rng.uniform(0.005, 0.03) if kind == "blurred" else 0.0
        return np.asarray(ndimage.gaussian_filter(_tiles(size, rng, others), (blur, blur, 0)))
    if kind == "room":
        return _room(size, rng)
    near = np.clip(color + rng.uniform(-0.25, 0.25, 3), 0, 1)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        share = (x * np.cos(angle) + y * np.sin(angle) + 1.5) / 3
    else:
        share = np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.4, 0.4)) / 2
    graded = color + np.clip(share, 0, 1)[..., None] * (near - color)
    return np.asarray(graded * (1 - rng.uniform(0, 0.3) * ((x**2 + y**2) / 2) ** 2)[..., None])


def _tiles(size: int, rng: np.random.Generator, others: Sequence[Image.Image]) -> FloatImage:
    """Return overlapping images of other objects that cover the whole background."""
    canvas = Image.new("RGB", (size, size), tuple(int(value) for value in rng.integers(0, 256, 3)))
    for _ in range(60):
        other = others[int(rng.integers(len(others)))]
        factor = size * rng.uniform(0.2, 0.5) / max(other.size)
        scaled = other.resize((max(1, round(other.width * factor)), max(1, round(other.height * factor))))
        canvas.paste(scaled, (int(rng.integers(-80, size)), int(rng.integers(-80, size))), scaled)
    return np.asarray(canvas) / 255


def _room(size: int, rng: np.random.Generator) -> FloatImage:
    """Return a wall above a floor, with two pictures on the wall."""
    wall, floor, *pictures = rng.uniform(0.1, 0.95, (4, 3))
    image = np.empty((size, size, 3))
    horizon = round(size * rng.uniform(0.45, 0.8))
    image[:horizon], image[horizon:] = wall, floor
    for color in pictures:
        left, top = rng.integers(0, size - 60), rng.integers(0, horizon - 60)
        image[top : top + 60, left : left + 60] = color
    return image


def shadow(alpha: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Return a soft shadow [h, w] in [0, 1] below an object: its lower part, flattened and blurred."""
    rows = np.flatnonzero((alpha > 0.5).any(1))
    bottom = int(rows[-1]) if len(rows) else len(alpha) - 1
    columns = np.flatnonzero((alpha[max(0, bottom - 20) : bottom + 1] > 0.5).any(0))
    y, x = np.mgrid[: len(alpha), : len(alpha)]
    half = max(20.0, (columns[-1] - columns[0]) * 0.65)
    center = (columns[0] + columns[-1]) / 2 + rng.uniform(-0.3, 0.3) * half
    distance = np.hypot((x - center) / half, (y - bottom) / (half * rng.uniform(0.15, 0.35)))
    blurred = ndimage.gaussian_filter((distance < 1).astype(np.float64), len(alpha) * rng.uniform(0.012, 0.03))
    return np.asarray(blurred * rng.uniform(0.2, 0.55))


def _measure(
    name: str, kind: str, picture: Image.Image, alpha: FloatImage
) -> tuple[CutoutResult, NDArray[np.uint8] | None]:
    """Cut out one composite; return the outcome and the cut-out [h, w, 4], if any."""
    start = time.process_time()
    try:
        cut = np.asarray(remove_uniform_background(picture))
    except NotUniformError:
        return CutoutResult(name, kind, None, (time.process_time() - start) * 1000), None
    cpu_ms = (time.process_time() - start) * 1000
    found, true = cut[..., 3] > 127, alpha > 0.5
    return CutoutResult(name, kind, float((found & true).sum() / (found | true).sum()), cpu_ms), cut


def summary(results: Sequence[CutoutResult]) -> dict[str, float | None]:
    """Return the figures of one kind of background: shares, IoU and time."""
    ious = sorted(each.iou for each in results if each.iou is not None)
    worst = ious[: max(1, len(ious) // 10)]
    return {
        "images": len(results),
        "refused": round(1 - len(ious) / len(results), 4),
        "mean_iou": round(float(np.mean(ious)), 4) if ious else None,
        "worst_decile_iou": round(float(np.mean(worst)), 4) if ious else None,
        "share_iou_0.9": round(float(np.mean(np.array(ious) >= 0.9)), 4) if ious else None,
        "median_cpu_ms": round(float(np.median([each.cpu_ms for each in results])), 1),
    }


def _tiles_of(picture: Image.Image, cut: NDArray[np.uint8] | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a composite and its cut-out on magenta, [_TILE, _TILE, 3] each."""
    shown = Image.new("RGB", picture.size, (255, 0, 255))
    if cut is not None:
        layer = Image.fromarray(cut)
        shown.paste(layer, (0, 0), layer)
    small, cut_out = (np.asarray(each.resize((_TILE, _TILE))) for each in (picture, shown))
    return small, cut_out


def _write_sheets(
    tiles: Sequence[tuple[CutoutResult, tuple[NDArray[np.uint8], NDArray[np.uint8]]]], folder: Path
) -> None:
    """Write one contact sheet per kind: pairs of composite and cut-out, the worst first."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in (*GOOD, *CLUTTER):
        mine = sorted((each for each in tiles if each[0].kind == kind), key=lambda each: each[0].iou or 0.0)[:42]
        images: list[NDArray[np.uint8]] = []
        captions: list[str] = []
        for result, pair in mine:
            images += pair
            captions += [result.name[-24:], "refused" if result.iou is None else f"IoU {result.iou:.3f}"]
        contact_sheet(images, 12, captions=captions).save(folder / f"{kind}.png")
    (folder / "results.json").write_text(json.dumps([asdict(result) for result, _ in tiles], indent=1))


if __name__ == "__main__":
    run_cli(main)
