"""Compiled guidance and field give the same results; on a GPU a step does not wait for the device."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.distill.distill_bench import main
from benchmarks.distill.distill_parts import SIZES, predicted_clean, random_model, step_flops
from dataset.camera import spherical_to_c2w
from distill.nerf.rays import camera_rays
from distill.sds.checkpoint import new_distillation
from distill.sds.guidance import Guidance, model_guidance, sds_loss
from distill.sds.loop import train_step
from distill.sds.march_ahead import MarchAhead
from distill.sds.networks import to_run_precision
from distill.sds.schedule import PRESETS, draw_views
from tests.support.paths import ROOT
from train.layers.compile import Compute, choose_compute

TINY = SIZES["tiny"]


def make_guidance(compute: Compute, device: str = "cpu") -> Guidance:
    """Guidance in the precision of a run on this device."""
    torch.manual_seed(0)
    model = to_run_precision(random_model(TINY, torch.device("cpu"), torch.float32), torch.device(device))
    tokens = torch.randn(1, 1, TINY.unet.token_width).to(device)
    return model_guidance(model, tokens, 15.0, 10.0, compute)


def loss_and_gradient(guidance: Guidance, views: int, side: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """SDS of some images."""
    pictures = torch.rand(views, 3, side, side, generator=torch.Generator().manual_seed(views)).to(device)
    pictures.requires_grad_()
    cameras = draw_views(PRESETS["paper"], 0, views)
    loss = sds_loss(guidance.encode(pictures), cameras, guidance, (20, 980), torch.Generator().manual_seed(3))
    return loss.detach(), torch.autograd.grad(loss, pictures)[0]


# torch hides this warning where it asks for `.grad` itself, but cannot where warnings are errors
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_networks_are_one_graph_each_for_the_two_shapes(compiler):
    """A graph break is an error. Images of both phases reach the encoder at the image size of the model."""
    plain = make_guidance(Compute())
    quick = make_guidance(Compute("whole", channels_last=True))
    for views, side in ((8, 16), (4, 64), (8, 16)):
        for found, expected in zip(
            loss_and_gradient(quick, views, side), loss_and_gradient(plain, views, side), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert compiler.graphs == 4


def test_rays_are_the_formula_to_the_bit():
    """The result of numpy in float64, rounded."""
    c2w = spherical_to_c2w(np.linspace(-20, 60, 6), np.linspace(0, 300, 6), np.linspace(1.2, 4, 6))
    fov_deg, side = np.linspace(15, 60, 6), 32
    half = np.tan(np.deg2rad(fov_deg) / 2)
    offset = (np.arange(side) + 0.5) / side * 2 - 1
    down, right = np.meshgrid(offset, offset, indexing="ij")
    local = np.stack([right, -down], -1)[None] * half[:, None, None, None]
    local = np.concatenate([local, -np.ones_like(local[..., :1])], -1).reshape(6, -1, 3)
    world = local @ c2w[:, :3, :3].transpose(0, 2, 1)
    world /= np.linalg.norm(world, axis=-1, keepdims=True)
    rays = camera_rays(c2w, fov_deg, side)
    np.testing.assert_array_equal(rays.direction.numpy(), world.reshape(-1, 3).astype(np.float32))
    np.testing.assert_array_equal(rays.origin.numpy(), np.repeat(c2w[:, :3, 3], side * side, 0).astype(np.float32))


def test_the_networks_operations_are_the_known_ones():
    """At the size of Stable Diffusion 2.1: 1.59 TFLOP for 8 frames, 0.55 for encoding with gradient."""
    flops = step_flops(SIZES["paper"], 4)
    assert flops["unet"] == pytest.approx(1.59e12, rel=0.03)
    assert flops["vae"] / 4 == pytest.approx(0.55e12, rel=0.03)


@pytest.mark.integration
def test_the_benchmark_at_toy_size(capsys):
    numbers = ["--steps", "2", "--warm-up", "1", "--plain-steps", "2", "--matmul", "64"]
    arguments = ["--preset", "tiny", "--device", "cpu", "--schedule", "fast", *numbers]
    assert main(arguments) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["minutes_per_asset"] > 0
    assert line["minutes_with_compile"] >= line["minutes_per_asset"]
    assert line["compile_s"] >= 0
    assert line["x0_rms_error"] < 1e-3
    assert line["steps"] == PRESETS["tiny"].steps / 2
    assert line["peak_gib"] is None
    assert line["share_of_floor"] > 0
    for phase in ("coarse", "fine"):
        assert sum(line["split_ms"][phase].values()) == pytest.approx(line["step_ms"][phase], rel=1e-2)
        assert min(line["split_ms"][phase].values()) > 0
        assert line["host_ms"][phase] == line["split_ms"][phase]


def test_the_benchmark_needs_few_packages():
    """The imports of a step: torch, nerfacc and diffusers, so that it runs on a minimal GPU machine."""
    missing = "ray webdataset open_clip tyro trimesh imageio_ffmpeg xatlas fast_simplification objaverse"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing.split()}))\n"
        "from benchmarks.distill import distill_bench, distill_parts\n"
        "distill_parts.build_networks(distill_parts.SIZES['tiny'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.gpu
def test_compiled_guidance_is_close_on_a_gpu():
    torch._dynamo.reset()
    plain = make_guidance(Compute(), "cuda")
    quick = make_guidance(choose_compute(torch.device("cuda")), "cuda")
    for views, side in ((8, 64), (4, 64)):
        for _ in range(2):  # recorded, then replayed
            found, expected = (loss_and_gradient(guidance, views, side, "cuda") for guidance in (quick, plain))
            assert float(found[0]) == pytest.approx(float(expected[0]), rel=5e-2)
            scale = float(expected[1].abs().max())
            torch.testing.assert_close(found[1] / scale, expected[1] / scale, rtol=0.1, atol=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("compiling", ["none", "whole"])
def test_a_step_waits_for_the_gpu_only_to_count(compiling):
    """The counts of ray marching are read through an event, which the guard permits; any other wait is an error."""
    torch._dynamo.reset()
    device = torch.device("cuda")
    guidance = make_guidance(choose_compute(device, compiling), "cuda")
    settings = replace(PRESETS["tiny"], coarse_fraction=0.5, steps=40, shading=PRESETS["paper"].shading)
    state = new_distillation(settings, device)
    ahead = MarchAhead(state, settings, len(guidance.alphas_cumprod))
    for step in range(16, 32):
        careful = step not in {16, 17, 18, 19, 20, 21, 22, 24}  # compiling; the occupancy grid's turn
        torch.cuda.set_sync_debug_mode("error" if careful else "default")
        try:
            result = train_step(state, settings, guidance, step, ahead)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert result.total.isfinite()


@pytest.mark.gpu
def test_rays_marched_ahead_are_those_of_their_step():
    """Without updates of the field, marching ahead changes nothing but the order of the work."""
    device = torch.device("cuda")
    guidance = make_guidance(Compute(), "cuda")
    settings = replace(PRESETS["tiny"], steps=40, grid_learning_rate=0.0, mlp_learning_rate=0.0)
    totals = []
    for use_ahead in (False, True):
        state = new_distillation(settings, device)
        ahead = MarchAhead(state, settings, len(guidance.alphas_cumprod)) if use_ahead else None
        totals.append([float(train_step(state, settings, guidance, step, ahead).total) for step in range(20)])
    assert totals[1] == pytest.approx(totals[0], rel=1e-4)


@pytest.mark.gpu
def test_float16_with_a_float32_output_is_closer_than_bfloat16():
    torch._dynamo.reset()
    gpu, clean, errors = torch.device("cuda"), {}, []
    for unet_type in (torch.float32, torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        model = random_model(TINY, torch.device("cpu"), torch.float32)
        tokens = torch.randn(1, 1, TINY.unet.token_width)
        model = to_run_precision(model, gpu, unet_type)
        compute = Compute() if unet_type == torch.float32 else choose_compute(gpu)
        guidance = model_guidance(model, tokens.cuda(), 15.0, 10.0, compute)
        assert next(model.unet.parameters()).dtype == unet_type
        assert model.unet.conv_out.weight.dtype == torch.float32
        clean[unet_type] = predicted_clean(guidance.denoise, TINY, 4, guidance.alphas_cumprod).clone()
    for unet_type in (torch.float16, torch.bfloat16):
        errors.append(float((clean[unet_type] - clean[torch.float32]).square().mean().sqrt()))
    assert errors[0] < 0.4 * errors[1]
