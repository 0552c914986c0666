"""Compare ways to give distilled assets a pattern: `python -m benchmarks.distill.texture_phase --shards SHARDS`.

Each object is distilled once. Every variant then changes the colors of the same geometry, and its renders are compared
with the true views. The output folder receives the scores `UID/VARIANT.json`, `summary.json` and `sheet.png` (a row
per object and view: truth, then each variant). Repeating the command resumes it, and several processes may share the
output folder when each has its own `--part I/N`. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion, laplace
from torch import Tensor

from benchmarks.options import add_device
from dataset.errors import UserError, run_cli
from dataset.format.schema import VIEWS_PER_SET
from dataset.images.prepare import Prepared, prepare_image
from dataset.reading.rendered_object import RenderedObject, read_object, view_number
from dataset.reading.shard_set import ShardSet
from distill.evaluate.ground_truth import Alignment, align
from distill.evaluate.score import RenderedAsset, render_asset, true_silhouettes, view_scores
from distill.nerf.settings import HashGridSettings
from distill.sds.checkpoint import Distillation
from distill.sds.guidance import Guidance, model_guidance
from distill.sds.loop import distill
from distill.sds.schedule import PRESETS, DistillSettings
from distill.sds.texture_settings import TextureSettings
from distill.texture.fit import FitOptions, fit_texture, surface_views
from distill.texture.input_view import find_input_view
from distill.texture.phase import new_texture, refine_texture
from train.evaluate.selection import open_images, spread_evenly
from train.model.multiview import BUNDLED_MODEL, MultiViewModel, load_model
from train.model.reference import with_reference_image

_BRIEF: Final = TextureSettings()
_T: Final = replace(_BRIEF, synchronized=False, rounds=6, groups=2, timesteps=(0.6, 0.2), iterations=40)
_GRID: Final = _T.grid
_FINE: Final = replace(PRESETS["tiny"].nerf, grid=HashGridSettings(6, 2, 17, 8, 1.6))
_SCORES: Final = ("psnr", "psnr_box", "ssim", "ssim_box", "silhouette_iou")
_SHEET_VIEWS: Final = (0, 4, 8, 12)
_ROUND_VIEWS: Final = slice(VIEWS_PER_SET, None)
Variant = Callable[["Asset"], None]


@dataclass(frozen=True)
class Asset:
    """A distilled object: its state, which a variant changes, its true views and the model that guides variants."""

    state: Distillation
    settings: DistillSettings
    truth: RenderedObject
    view: int
    prepared: Prepared
    alignment: Alignment
    model: MultiViewModel
    device: torch.device

    def guidance(self, scale: float | None, with_reference: bool) -> Guidance:
        """Return the guidance by the model, from the image embedding alone or with the image as a clean frame."""
        rgb = torch.from_numpy(np.ascontiguousarray(self.prepared.rgb)).permute(2, 0, 1)[None].to(self.device)
        camera = self.truth.views[self.view]
        azimuth_deg = camera.azimuth_deg if self.model.spec.cameras == "absolute" else 0.0
        model = with_reference_image(
            self.model, rgb, as_frame=with_reference, elevation_deg=camera.elevation_deg, azimuth_deg=azimuth_deg
        )
        scale = self.model.spec.guidance_scale if scale is None else scale
        return model_guidance(model, model.embed_image(rgb), camera.elevation_deg, scale)


def nothing(asset: Asset) -> None:
    """Leave the asset as it is."""


def phase(
    options: TextureSettings,
    asset: Asset,
    *,
    scale: float | None = None,
    with_reference: bool = False,
    input_weight: float = 0.0,
) -> None:
    """Run the texture phase, with the input image as another target if `input_weight` is not 0."""
    guidance = asset.guidance(scale, with_reference)
    settings = replace(asset.settings, texture=replace(options, input_weight=input_weight))
    elevation_deg = asset.truth.views[asset.view].elevation_deg
    view = find_input_view(asset.state, settings, asset.prepared.rgba, elevation_deg)
    refine_texture(asset.state, settings, guidance, input_view=view, quiet=True)


def fit_views(views: slice | None, asset: Asset, *, iterations: int = 100) -> None:
    """Fit the texture to true views, or to the input view alone: what the geometry and the texture can show."""
    chosen = slice(asset.view, asset.view + 1) if views is None else views
    c2w, targets = asset.alignment.to_field(asset.truth.c2w)[chosen], asset.truth.on_white[chosen]
    march, field = asset.settings.march, asset.state.field
    fov_deg, occupancy = asset.truth.fov_deg[chosen], asset.state.occupancy
    surface = surface_views(field, c2w, fov_deg, asset.truth.size, march=march, occupancy=occupancy)
    texture = new_texture(_GRID, field)
    optimizer = torch.optim.Adam([texture.table], lr=_T.learning_rate, betas=(0.9, 0.99), eps=1e-15)
    images: Tensor = torch.from_numpy(np.ascontiguousarray(targets)).permute(0, 3, 1, 2).to(asset.device)
    options = FitOptions(iterations, _T.jitter, ignore_white=False, generator=torch.Generator().manual_seed(0))
    fit_texture(texture, optimizer, surface, images, options)
    field.texture = texture


_SHORT: Final = replace(_T, rounds=8, groups=1, steps=4, timesteps=(0.7, 0.2), iterations=25)
_SYNC: Final = replace(_T, synchronized=True, rounds=20, timesteps=(0.8, 0.02), iterations=20)
_NOISE: Final = replace(
    _T,
    rounds=1,
    groups=1,
    timesteps=(0.999, 0.999),
    steps=30,
    iterations=150,
    keep_mean=False,
    ignore_white=True,
)
_ONE_STEP: Final = replace(_T, rounds=80, groups=1, steps=1, iterations=4, learning_rate=0.03, timesteps=(0.5, 0.1))
VARIANTS: Final[Mapping[str, Variant]] = {
    "none": nothing,
    "truth": partial(fit_views, _ROUND_VIEWS),
    "input": partial(fit_views, None),
    "rounds": partial(phase, _T),
    "rounds-high": partial(phase, replace(_T, timesteps=(0.8, 0.3))),
    "rounds-low": partial(phase, replace(_T, timesteps=(0.4, 0.1))),
    "rounds-mean-free": partial(phase, replace(_T, keep_mean=False)),
    "rounds-cfg1": partial(phase, _T, scale=1.0),
    "rounds-cfg6": partial(phase, _T, scale=6.0),
    "rounds-many": partial(phase, replace(_T, rounds=8, groups=4)),
    "rounds-white": partial(phase, replace(_T, ignore_white=True)),
    "rounds-smooth": partial(phase, replace(_T, jitter=0.02)),
    "rounds-sharp": partial(phase, replace(_T, jitter=0.005)),
    "one-step": partial(phase, _ONE_STEP),
    "one-step-mean-free": partial(phase, replace(_ONE_STEP, keep_mean=False)),
    "brief": partial(phase, _BRIEF),
    "brief-cfg1": partial(phase, _BRIEF, scale=1.0),
    "brief-reference": partial(phase, _BRIEF, with_reference=True),
    "brief-input": partial(phase, _BRIEF, input_weight=1.0),
    "brief-reference-input": partial(phase, _BRIEF, with_reference=True, input_weight=1.0),
    "brief-noise-reference-input": partial(
        phase, replace(_BRIEF, timesteps=(0.999, 0.02), rounds=14), with_reference=True, input_weight=1.0
    ),
    "short": partial(phase, _SHORT),
    "short-input": partial(phase, _SHORT, input_weight=1.0),
    "short-high-input": partial(phase, replace(_SHORT, timesteps=(0.9, 0.2)), input_weight=1.0),
    "short-input-half": partial(phase, _SHORT, input_weight=0.5),
    "sync": partial(phase, _SYNC),
    "sync-noise": partial(phase, replace(_SYNC, timesteps=(0.999, 0.02), rounds=25)),
    "sync-high": partial(phase, replace(_SYNC, timesteps=(0.9, 0.02))),
    "sync-noise-groups4": partial(phase, replace(_SYNC, timesteps=(0.999, 0.02), rounds=25, groups=4)),
    "rounds-noise": partial(phase, replace(_T, groups=1, timesteps=(0.999, 0.2), keep_mean=False, ignore_white=True)),
    "sync-low": partial(phase, replace(_SYNC, timesteps=(0.5, 0.02))),
    "noise": partial(phase, _NOISE),
    "rounds-reference": partial(phase, _T, with_reference=True),
    "sync-reference": partial(phase, _SYNC, with_reference=True),
    "noise-reference": partial(phase, _NOISE, with_reference=True),
}
FINE_SDS: Final = "fine-sds"  # another distillation, with finer levels of the hash grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _options(arguments)
    shards = open_images(options.shards)
    if not options.only_summary:
        model = load_model(options.model, torch.device(options.device))
        passes = [name for name in options.variants if name != FINE_SDS], [FINE_SDS] * (FINE_SDS in options.variants)
        for names in filter(None, passes):
            for uid, place in _selected(shards, options):
                _run_object(uid, read_object(shards, place), names, options, model)
    print(json.dumps(summarize(options.out, options.variants)))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True, help="shard set with the objects")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="model folder")
    parser.add_argument("--out", type=Path, default=Path("out/texture"), help="output folder")
    parser.add_argument("--uids", nargs="+", default=(), help="objects (default: all), or parts of their uids")
    parser.add_argument("--view", type=view_number, default="fixed_01", help="view that is distilled")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, FINE_SDS], default=[*VARIANTS, FINE_SDS])
    parser.add_argument("--part", type=_part, default="0/1", metavar="I/N", help="take objects I, I + N, ... only")
    parser.add_argument("--steps", type=int, default=PRESETS["tiny"].steps, help="steps of each distillation")
    parser.add_argument("--rounds", type=int, help="most rounds and steps of a variant, to try the command")
    parser.add_argument("--only-summary", action="store_true", help="write summary.json and sheet.png again")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    add_device(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def _selected(shards: ShardSet, options: argparse.Namespace) -> Iterator[tuple[str, tuple[int, int]]]:
    places = [(shards.uid(*place), place) for place in spread_evenly(shards, len(shards))]
    chosen = [(uid, p) for uid, p in places if not options.uids or any(part in uid for part in options.uids)]
    if not chosen:
        raise UserError(f"{options.shards} has no object of --uids {' '.join(options.uids)}; give uids of this set")
    part, parts = options.part
    yield from chosen[part::parts]


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 0 to N - 1; give 0/2 or 1/2, for example")
    return int(part), int(parts)


def _run_object(
    uid: str, truth: RenderedObject, variants: Sequence[str], options: argparse.Namespace, model: MultiViewModel
) -> None:
    """Distill one object if necessary, apply the variants that have no result yet, and write their scores."""
    folder = options.out / uid
    folder.mkdir(parents=True, exist_ok=True)
    settings = replace(PRESETS["tiny"], steps=options.steps)
    for name in (name for name in variants if not (folder / f"{name}.json").is_file()):
        fine = name == FINE_SDS
        chosen = replace(settings, nerf=_FINE) if fine else settings
        started = time.perf_counter()
        asset = _distilled(folder / ("distill-fine" if fine else "distill"), truth, chosen, options.view, model)
        if not fine:
            started = time.perf_counter()
            _limited(VARIANTS[name], options.rounds)(asset)
        seconds = time.perf_counter() - started
        rendered = render_asset(asset.state.field.eval(), settings.march, asset.alignment, truth, model.device)
        scores = {**scores_of(rendered, truth, options.view), "seconds": seconds}
        Image.fromarray(_strip(rendered.rgb)).save(folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps(scores, indent=2) + "\n")
        print(f"{uid} {name}: {scores}", flush=True)
    Image.fromarray(_strip(truth.on_white)).save(folder / "true.png")


def _limited(variant: Variant, rounds: int | None) -> Variant:
    """Return a variant with at most `rounds` rounds."""
    if rounds is None or not isinstance(variant, partial):
        return variant
    if variant.func is not phase:
        return partial(variant, iterations=rounds)
    settings: TextureSettings = variant.args[0]
    shorter = {name: min(getattr(settings, name), rounds) for name in ("rounds", "steps", "iterations")}
    return partial(phase, replace(settings, **shorter), **variant.keywords)


def _distilled(
    folder: Path, truth: RenderedObject, settings: DistillSettings, view: int, model: MultiViewModel
) -> Asset:
    """Distill one view of an object; a finished distillation is read from its checkpoint."""
    device = model.device
    prepared = prepare_image(Image.fromarray(truth.images[view]), model.spec.image_size)
    absolute = model.spec.cameras == "absolute"
    alignment = align(truth.views[view], truth.size, settings.cameras, absolute=absolute)
    folder.mkdir(parents=True, exist_ok=True)
    request: dict[str, Any] = {"uid": truth.uid, "view": view, "steps": settings.steps}
    rgb = torch.from_numpy(np.ascontiguousarray(prepared.rgb)).permute(2, 0, 1)[None].to(device)
    guidance = model_guidance(model, model.embed_image(rgb), truth.views[view].elevation_deg, model.spec.guidance_scale)
    state = distill(settings, guidance, folder, request=request, device=device, watch=lambda done: False)
    return Asset(state, settings, truth, view, prepared, alignment, model, device)


def scores_of(rendered: RenderedAsset, truth: RenderedObject, view: int) -> dict[str, float]:
    """Return the mean scores over the fixed views, without the view that was distilled.

    `laplacian_correlation` is the correlation of the Laplacians of the colors, inside both silhouettes without their
    borders; `edge_energy` is the energy of the Laplacian there, as a fraction of the truth's; `color_error` is the mean
    absolute difference of the mean colors of the views.
    """
    named = view_scores(rendered, truth, view)
    means = {
        name: float(np.nanmean(named[name])) for name in ("psnr", "psnr_box", "ssim", "ssim_box", "silhouette_iou")
    }
    kept = [number for number in range(VIEWS_PER_SET) if number != view]
    inside = rendered.silhouettes & true_silhouettes(truth)
    shown, true, differences = [], [], []
    for number in kept:
        first, second = (images[number].astype(np.float64) for images in (rendered.rgb, truth.on_white))
        mask = binary_erosion(inside[number], iterations=2)
        shown.append(_laplacian(first)[mask])
        true.append(_laplacian(second)[mask])
        if inside[number].any():
            differences.append(np.abs((first - second)[inside[number]].mean(0)).mean())
    a, b = (np.concatenate(parts).ravel() for parts in (shown, true))
    correlation = float((a * b).sum() / max(1e-12, np.sqrt((a * a).sum() * (b * b).sum())))
    energy = float((a * a).sum() / max(1e-12, (b * b).sum()))
    return {
        **means,
        "laplacian_correlation": correlation,
        "edge_energy": energy,
        "color_error": float(np.mean(differences)) if differences else float("nan"),
    }


def _laplacian(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([laplace(image[..., channel], mode="nearest") for channel in range(3)], -1)


def _strip(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    strip = np.concatenate([images[number] for number in _SHEET_VIEWS], 0)
    rounded: NDArray[np.uint8] = np.rint(np.clip(strip, 0, 1) * 255).astype(np.uint8)
    return rounded


def summarize(out: Path, variants: Sequence[str]) -> dict[str, dict[str, float]]:
    """Write `summary.json` and `sheet.png`: the objects with most results, and the variants that all of these have."""
    done = {
        path.parent: [name for name in variants if (path.parent / f"{name}.json").is_file()]
        for path in sorted(out.glob("*/true.png"))
    }
    folders = [folder for folder, names in done.items() if len(names) == max(map(len, done.values()))]
    variants = [name for name in variants if all(name in done[folder] for folder in folders)]
    summary: dict[str, dict[str, float]] = {}
    for name in variants:
        rows = [json.loads((each / f"{name}.json").read_text()) for each in folders]
        summary[name] = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]} if rows else {}
    if not folders:
        raise UserError(f"{out} has no results of objects; run the command without --only-summary")
    result = {"objects": [each.name for each in folders], "variants": summary}
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    _sheet(folders, variants).save(out / "sheet.png")
    return summary


def _sheet(folders: Sequence[Path], variants: Sequence[str]) -> Image.Image:
    """Return the contact sheet: a block of four views per object, and a column for the truth and for each variant."""
    names = ["true", *variants]
    tiles = [[_read(folder / f"{name}.png") for name in names] for folder in folders]
    width, height = tiles[0][0].size
    sheet = Image.new("RGB", (width * len(names), 14 + height * len(folders)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((column * width + 2, 2 if column % 2 else 0), name[: width // 6], fill="black")
        for row, tile in enumerate(tiles):
            sheet.paste(tile[column], (column * width, 14 + row * height))
    return sheet


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    run_cli(main)
