"""Measure Janus artifacts with ideal denoisers: `python -m benchmarks.distill.oracle_faces`. The last line is JSON.

An object is distilled with ideal denoisers that have more or less knowledge of it. Runs use the small preset (unlit,
one resolution) with one change of the schedule at a time. The denoisers are:

    decided     knows the object and its orientation
    guided      classifier-free guidance of decided (conditional) and turns (unconditional)
    turns       knows the object; four orientations, 90 degrees apart, are equally likely; views of a group agree
    single      like turns, but every view is denoised independently

`looks_like` gives, for each of the sides at azimuth 0, 90, 180 and 270, the true side that is most similar; the number
of zeros is the number of faces. `psnr_db` is the PSNR of the four sides for the best orientation of the object.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.distill.oracle_objects import ALPHAS, OBJECTS, SMALL, encode, psnr
from dataset.camera import spherical_to_c2w
from dataset.errors import run_cli
from distill.nerf.render import render_views
from distill.output.preview import view_distance, view_fov_deg
from distill.sds.checkpoint import Distillation, new_distillation
from distill.sds.guidance import Denoise, Guidance, Prediction
from distill.sds.loop import train_step
from distill.sds.oracle import Solids, mixture_denoiser, oracle_denoiser, render_truth
from distill.sds.schedule import CameraViews, DistillSettings
from train.model.noise_schedule import classifier_free_guidance

_RESOLUTION: Final = 24
_TURNS_DEG: Final = (0.0, 90.0, 180.0, 270.0)
_BASE: Final = replace(SMALL, steps=100, fine_resolution=_RESOLUTION, shading=replace(SMALL.shading, lit_probability=0))
SCHEDULES: Final[Mapping[str, DistillSettings]] = {
    "paper": _BASE,
    "no annealing": replace(_BASE, anneal_fraction=1e-6),
    "no blob": replace(_BASE, nerf=replace(_BASE.nerf, blob_density=0.0)),
    "half the steps": replace(_BASE, steps=50),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _options(arguments)
    line: dict[str, Any] = {"object": options.object, "guidance_scale": options.guidance_scale}
    for model in options.models:
        for schedule in options.schedules:
            settings = replace(SCHEDULES[schedule], seed=options.seed)
            if options.steps:
                settings = replace(settings, steps=options.steps)
            result = faces(OBJECTS[options.object], settings, model, options.guidance_scale)
            line[f"{model}, {schedule}"] = result
            print(f"{model}, {schedule}: {result}", flush=True)
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    models = ["decided", "guided", "turns", "single"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object", choices=sorted(OBJECTS), default="skittle", help="object to distill")
    parser.add_argument(
        "--models", nargs="+", choices=models, default=models, help="denoisers to distill with (default: all)"
    )
    parser.add_argument(
        "--schedules",
        nargs="+",
        choices=list(SCHEDULES),
        default=list(SCHEDULES),
        help="schedules to distill with (default: all)",
    )
    parser.add_argument(
        "--steps", type=int, help="number of steps of every schedule (default: each schedule's own number)"
    )
    parser.add_argument(
        "--guidance-scale", type=float, default=10.0, help="classifier-free guidance scale of the denoiser `guided`"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the distillations")
    return parser.parse_args(arguments)


def faces(solids: Solids, settings: DistillSettings, model: str, guidance_scale: float) -> dict[str, Any]:
    """Distill an object, and compare the four sides of the result with the true sides."""
    state = new_distillation(settings, "cpu")
    guidance = Guidance(encode, denoiser(solids, model, guidance_scale), ALPHAS)
    for step in range(settings.steps):
        train_step(state, settings, guidance, step)
    return look_around(state, solids, settings)


def denoiser(solids: Solids, model: str, guidance_scale: float) -> Denoise:
    """Return the ideal denoiser of this name."""

    def turned(views: CameraViews, turn_deg: float) -> Tensor:
        return render_truth(
            solids, replace(views, azimuth_deg=views.azimuth_deg + turn_deg).c2w, views.fov_deg, _RESOLUTION
        )

    decided = oracle_denoiser(partial(turned, turn_deg=0.0), encode, ALPHAS)
    undecided = mixture_denoiser(
        lambda views: [turned(views, turn) for turn in _TURNS_DEG], encode, ALPHAS, jointly=model != "single"
    )

    def guided(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        with_image, without = (each(noisy, timesteps, views).guided for each in (decided, undecided))
        return Prediction(classifier_free_guidance(with_image, without, guidance_scale), with_image)

    return {"decided": decided, "guided": guided}.get(model, undecided)


def look_around(state: Distillation, solids: Solids, settings: DistillSettings) -> dict[str, Any]:
    """Compare the four sides of a field with the true sides."""
    cameras, fov_deg = spherical_to_c2w(12.0, _TURNS_DEG, view_distance(settings)), view_fov_deg(settings)
    with torch.no_grad():
        seen = render_views(state.field, cameras, fov_deg, 48, settings=settings.march, occupancy=state.occupancy).rgb
    truth = render_truth(solids, cameras, fov_deg, 48, supersampling=4).permute(0, 2, 3, 1)
    sides = torch.tensor([psnr(side[None].expand_as(truth), truth) for side in seen])  # [seen, true]
    nearest = sides.argmax(1).tolist()
    best = max(float(sides.roll(-turn, 1).diagonal().min()) for turn in range(4))
    return {
        "faces": nearest.count(0),
        "looks_like": [int(_TURNS_DEG[side]) for side in nearest],
        "psnr_db": round(best, 1),
    }


if __name__ == "__main__":
    run_cli(main)
