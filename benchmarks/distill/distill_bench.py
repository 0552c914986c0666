"""Measure the time per asset: `python -m benchmarks.distill.distill_bench`, minutes on one GPU (`--preset tiny`: CPU).

The benchmark runs `--steps` steps of each phase of a preset with `distill.sds.loop.train_step`. The networks have the
size of Stable Diffusion 2.1 and random weights; an oracle drives the field (`distill_parts`), so that rays march
through a real object. The first `--warm-up` steps of a phase, which compile, are not counted. The time is extrapolated
to the preset's number of steps, and the time of checkpoints and previews is added.

`compile_s` is the time of the warm-up beyond that of later steps: compiling the networks and kernels, and recording the
CUDA graphs. A second run on the same machine finds the compiled code in its cache (`dataset.compile_cache`).

The benchmark prints the time of a step by part, on the device and on the host, the lower bound (the networks'
operations at the measured matmul peak) and, for comparison, the time of a plain loop: eager, float32 weights under bf16
autocast, reading every loss. `x0_rms_error` is the error of x0_hat at timestep 980 and guidance scale 10, compared with
float32. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.distill.distill_parts import (
    FIGURE,
    SIZES,
    DeviceTimer,
    OracleDriver,
    OracleLatents,
    predicted_clean,
    random_model,
    step_flops,
)
from benchmarks.distill.schedules import SCHEDULES, shortened
from benchmarks.options import add_device, add_matmul
from benchmarks.train.train_bench import PROFILED_STEPS, print_kernels, traced
from dataset.camera import spherical_to_c2w
from dataset.errors import run_cli
from dataset.images.psnr import psnr_of_mse_db
from distill.nerf.render import render_views
from distill.output.preview import view_distance, view_fov_deg, write_preview
from distill.sds.checkpoint import Distillation, new_distillation, save_checkpoint
from distill.sds.guidance import Guidance, Prediction, model_denoiser, model_guidance
from distill.sds.loop import train_step
from distill.sds.march_ahead import MarchAhead
from distill.sds.networks import to_run_precision
from distill.sds.oracle import render_truth
from distill.sds.schedule import PRESETS, CameraViews, DistillSettings
from train.layers.compile import BLOCKS, Compute, choose_compute
from train.loop.flops import matmul_peak, seconds_of

PARTS: Final = ("render forward", "render backward", "vae", "unet", "rest")
PHASES: Final = ("coarse", "fine")


@dataclass(frozen=True)
class Phase:
    """Measurements of one phase."""

    step_s: float
    parts_s: dict[str, float]  # per step
    host_s: dict[str, float]  # per step; includes waiting for the device
    first_step_s: float  # includes most of the compilation
    compile_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    device = torch.device(options.device)
    paper = shortened(PRESETS[options.preset], options.schedule)
    if options.samples_per_ray is not None:
        paper = replace(paper, march=replace(paper.march, samples_per_ray=options.samples_per_ray))
    # Each phase is half of the short run. Rescaling is off: it would mix the channels of networks and oracle through
    # their common standard deviation.
    settings = replace(paper, steps=2 * options.steps, coarse_fraction=0.5, sds_rescale=0.0)
    # In float32 on a CPU, where bf16 is slow.
    peak = matmul_peak(device, options.matmul, torch.bfloat16 if device.type == "cuda" else torch.float32)
    sizes = SIZES[options.preset]
    flops = {
        phase: step_flops(sizes, views)
        for phase, views in zip(PHASES, (paper.coarse_views, paper.fine_views), strict=True)
    }
    print(f"matmul peak {peak / 1e12:.3g} TFLOP/s; TFLOP per step: {_rounded(flops, 1e-12)}", flush=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    compute = choose_compute(device, options.compile, blocks=options.blocks)
    ours, state, driven, x0_rms_error = measure_ours(options, settings, compute, device)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    reserved = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None
    extra_s = _between_steps(state, paper, device)
    ways = compare(options, settings, state, driven) if options.plain_steps else None
    steps = {"coarse": paper.steps * paper.coarse_fraction, "fine": paper.steps * (1 - paper.coarse_fraction)}
    run_s = sum(ours[phase].step_s * steps[phase] for phase in PHASES)
    floor_s = sum(sum(flops[phase].values()) / peak * steps[phase] for phase in PHASES)
    speedup = None
    if ways is not None:
        plain_s, same_s = (sum(way[phase].step_s * steps[phase] for phase in PHASES) for way in ways)
        speedup = plain_s / same_s
        print(f"same field: {plain_s / 60:.2f} min with the plain loop, {same_s / 60:.2f} min with ours")
    compile_s = sum(ours[phase].compile_s for phase in PHASES)
    for phase in PHASES:
        floors = {name: 1000 * number / peak for name, number in flops[phase].items()}
        print(f"{phase}: {1000 * ours[phase].step_s:.2f} ms per step: {_rounded(ours[phase].parts_s, 1000)}")
        print(f"{phase}: on the host: {_rounded(ours[phase].host_s, 1000)}")
        print(f"{phase}: lower bound {_rounded(floors)} ms; first step {ours[phase].first_step_s:.1f} s")
    print(
        f"{paper.steps} steps, extrapolated from {options.steps - options.warm_up} of each phase: "
        f"{run_s / 60:.2f} min; lower bound of the networks {floor_s / 60:.2f} min; "
        f"checkpoints and previews {extra_s:.1f} s; compilation {compile_s:.1f} s"
    )
    line = {
        "preset": options.preset,
        "samples_per_ray": paper.march.samples_per_ray,
        "schedule": options.schedule,
        "steps": paper.steps,
        "minutes_per_asset": round((run_s + extra_s) / 60, 3),
        "compile_s": round(compile_s, 2),
        "minutes_with_compile": round((run_s + extra_s + compile_s) / 60, 3),
        "peak_gib": _or_none(memory),
        "share_of_floor": round(floor_s / run_s, 4),
        "floor_minutes": round(floor_s / 60, 3),
        "step_ms": {phase: round(1000 * ours[phase].step_s, 3) for phase in PHASES},
        "split_ms": {phase: _rounded(ours[phase].parts_s, 1000) for phase in PHASES},
        "host_ms": {phase: _rounded(ours[phase].host_s, 1000) for phase in PHASES},
        "first_step_s": {phase: round(ours[phase].first_step_s, 2) for phase in PHASES},
        "checkpoints_and_previews_s": round(extra_s, 1),
        "speedup_vs_plain": _or_none(speedup),
        "reserved_gib": _or_none(reserved),
        "occupied": round(float(state.occupancy.grid.binaries.float().mean()), 4),
        "psnr_db": round(_psnr(state, paper, device), 2),
        "matmul_peak_tflops": round(peak / 1e12, 2),
        "compile": compute.compile,
        "blocks": compute.blocks,
        "graphs": options.graphs,
        "x0_rms_error": round(x0_rms_error, 5),
        "unet_type": options.unet_type if device.type == "cuda" else "float32",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(SIZES), default="paper", help="preset whose settings are measured")
    parser.add_argument("--steps", type=int, default=330, help="steps per phase, including the warm-up")
    parser.add_argument("--warm-up", type=int, default=30, help="steps per phase that are not counted")
    parser.add_argument(
        "--plain-steps", type=int, default=20, help="steps per phase of the plain loop; 0 skips the plain loop"
    )
    parser.add_argument("--samples-per-ray", type=int, help="samples per ray (default: those of the preset)")
    parser.add_argument(
        "--compile",
        choices=("none", "blocks", "whole", "auto"),
        default="auto",
        help="how to compile the networks, as in `python -m distill`",
    )
    parser.add_argument(
        "--graphs",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether the networks run as CUDA graphs (auto: on a GPU, if they are compiled)",
    )
    parser.add_argument(
        "--unet-type", choices=("float16", "bfloat16"), default="float16", help="type of the UNet on a GPU"
    )
    parser.add_argument("--schedule", choices=SCHEDULES, default="full", help="a shorter schedule (schedules.py)")
    parser.add_argument(
        "--blocks",
        choices=BLOCKS,
        default="auto",
        help="implementation of the UNet's blocks, as in `python -m train`",
    )
    parser.add_argument(
        "--kernels", type=int, default=0, help="number of GPU kernels to print for each phase, slowest first"
    )
    add_matmul(parser)
    add_device(parser)
    options = parser.parse_args(arguments)
    if options.plain_steps == 1 or options.plain_steps > options.steps:
        parser.error(f"--plain-steps is {options.plain_steps}; it must be 0, or 2 to {options.steps} (--steps)")
    if not 0 < options.warm_up < options.steps:
        parser.error(f"--warm-up is {options.warm_up}; it must be at least 1 and less than {options.steps} (--steps)")
    return options


def measure_ours(
    options: argparse.Namespace, settings: DistillSettings, compute: Compute, device: torch.device
) -> tuple[dict[str, Phase], Distillation, OracleDriver, float]:
    """Measure both phases as `python -m distill` runs them.

    Also return the final state, the guidance, and the rms error of x0_hat.
    """
    sizes, scale = SIZES[options.preset], 10.0
    model = random_model(sizes, device, torch.float32)
    tokens = torch.randn(1, 1, sizes.unet.token_width, device=device)
    torch.backends.cudnn.allow_tf32 = False
    exact = predicted_clean(
        model_denoiser(model, tokens, 15.0, scale), sizes, settings.fine_views, model.alphas_cumprod
    )
    model = to_run_precision(model, device, getattr(torch, options.unet_type))
    graphs = {"auto": None, "on": True, "off": False}[options.graphs]
    networks = model_guidance(model, tokens, 15.0, scale, compute, graphs=graphs)
    state = new_distillation(settings, device)
    watch, truths = DeviceTimer(device), OracleLatents(settings, model.spec.latent_size, device)
    driven = OracleDriver(networks, sizes.unet.latent_channels, truths, watch)
    measured = {}
    for number, phase in enumerate(PHASES):
        steps = range(number * options.steps, (number + 1) * options.steps)
        measured[phase] = run_phase(state, settings, driven, steps, options.warm_up, plain=False)
        if options.kernels and device.type == "cuda":
            print(f"{phase}: GPU time of the last {PROFILED_STEPS} steps, repeated, by kernel", flush=True)
            profile_last(state, settings, driven, steps, options.kernels)
    found = predicted_clean(networks.denoise, sizes, settings.fine_views, model.alphas_cumprod)
    return measured, state, driven, float((found - exact).square().mean().sqrt())


def compare(
    options: argparse.Namespace, settings: DistillSettings, state: Distillation, ours: OracleDriver
) -> tuple[dict[str, Phase], dict[str, Phase]]:
    """Measure some steps of both phases with the plain loop and with ours, on equal copies of a field.

    The time of a step depends on the field, so the plain loop cannot be compared with the mean of the whole run.
    """
    device = state.field.grid.table.device
    measured: tuple[dict[str, Phase], dict[str, Phase]] = ({}, {})
    for way, driven in zip(measured, (plain_networks(options, settings, device), ours), strict=True):
        plain = driven is not ours
        for number, phase in enumerate(PHASES, 1):
            steps = range(number * options.steps - options.plain_steps, number * options.steps)
            copy = new_distillation(settings, device)
            copy.field.load_state_dict(state.field.state_dict())
            copy.occupancy.load_state_dict(state.occupancy.state_dict())
            way[phase] = run_phase(copy, settings, driven, steps, max(1, options.plain_steps // 2), plain=plain)
    return measured


def plain_networks(options: argparse.Namespace, settings: DistillSettings, device: torch.device) -> OracleDriver:
    """Return the guidance of the plain loop: eager, float32 weights under autocast."""
    model = random_model(SIZES[options.preset], device, torch.float32)
    tokens = torch.randn(1, 1, SIZES[options.preset].unet.token_width, device=device)
    eager = model_guidance(model, tokens, 15.0, 10.0)

    def encode(images: Tensor) -> Tensor:
        with _autocast(device):
            return eager.encode(images)

    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        with _autocast(device):
            return eager.denoise(noisy, timesteps, views)

    truths = OracleLatents(settings, model.spec.latent_size, device)
    guidance = Guidance(encode, denoise, eager.alphas_cumprod)
    return OracleDriver(guidance, SIZES[options.preset].unet.latent_channels, truths, DeviceTimer(device))


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def run_phase(
    state: Distillation, settings: DistillSettings, driven: OracleDriver, steps: range, warm_up: int, *, plain: bool
) -> Phase:
    """Run and measure some steps; the first `warm_up` are not counted. `plain` reads every loss immediately."""
    watch, device = driven.watch, state.field.grid.table.device
    driven.truths.prepare(steps)
    hook = state.optimizer.register_step_pre_hook(lambda *_: watch.mark("render backward"))
    ahead = None if plain else MarchAhead(state, settings, len(driven.networks.alphas_cumprod))

    def run(step: int) -> None:
        driven.step = step
        result = train_step(state, settings, driven.guidance, step, ahead)
        if plain:
            [loss.item() for loss in result.losses.values()]
        watch.mark("rest")

    def run_all(steps: range) -> None:
        for step in steps:
            run(step)

    first_step_s = seconds_of(lambda: run(steps[0]), device)
    warm_up_s = first_step_s + seconds_of(lambda: run_all(steps[1:warm_up]), device)
    watch.seconds()
    watch.mark("start")
    run_all(steps[warm_up:])
    host, parts, counted = watch.host_seconds(), watch.seconds(), len(steps) - warm_up
    hook.remove()
    step_s = sum(parts.values()) / counted
    parts, host = ({name: times.get(name, 0.0) / counted for name in PARTS} for times in (parts, host))
    return Phase(step_s, parts, host, first_step_s, max(0.0, warm_up_s - warm_up * step_s))


def profile_last(state: Distillation, settings: DistillSettings, driven: OracleDriver, steps: range, most: int) -> None:
    """Repeat the last steps of a phase under the profiler, and print the GPU's kernels."""
    again = iter(steps[-PROFILED_STEPS:])
    ahead = MarchAhead(state, settings, len(driven.networks.alphas_cumprod))

    def run() -> None:
        driven.step = next(again)
        train_step(state, settings, driven.guidance, driven.step, ahead)

    trace, _ = traced(run, state.field.grid.table.device)
    print_kernels(trace, most)


def _between_steps(state: Distillation, paper: DistillSettings, device: torch.device) -> float:
    """Return the seconds that a run of the preset spends on checkpoints and previews."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_preview(state.field, state.occupancy, paper, folder / "first.png")
        started = time.perf_counter()
        save_checkpoint(state, folder / "checkpoint.safetensors", 0, {})
        saved = time.perf_counter()
        write_preview(state.field, state.occupancy, paper, folder / "preview.png")
        previewed = time.perf_counter()
    return (saved - started) * (paper.steps // paper.checkpoint_every) + (previewed - saved) * (
        paper.steps // paper.preview_every
    )


@torch.no_grad()
def _psnr(state: Distillation, paper: DistillSettings, device: torch.device) -> float:
    """Return the PSNR of four views, in dB. A high value shows that an object was formed."""
    cameras = spherical_to_c2w([15.0] * 4, [20.0, 110.0, 200.0, 290.0], [view_distance(paper)] * 4)
    fov_deg, resolution = view_fov_deg(paper), 64
    rendered = render_views(
        state.field, cameras, fov_deg, resolution, settings=paper.march, occupancy=state.occupancy, device=device
    ).rgb.permute(0, 3, 1, 2)
    truth = render_truth(FIGURE, cameras, fov_deg, resolution, device=device)
    return psnr_of_mse_db(float((rendered - truth).square().mean()))


def _rounded(values: Any, factor: float = 1.0) -> Any:
    """Multiply a number, or numbers by name, by a factor and round to three places."""
    if isinstance(values, dict):
        return {name: _rounded(value, factor) for name, value in values.items()}
    return round(values * factor, 3)


def _or_none(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


if __name__ == "__main__":
    run_cli(main)
