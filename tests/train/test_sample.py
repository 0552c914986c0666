"""DDIM and guidance against their formulas; one picture in, one PNG out."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from dataset.camera import relative_camera
from dataset.errors import UserError
from tests.support.train_micro import micro_model
from train.device import pick_device
from train.model.ddim import ddim_scheduler, denoise_views, guided_noise, sample_views, sampling_settings
from train.model.multiview import MultiViewModel, save_model
from train.model.noise_schedule import noise_schedule
from train.sample import SampleArgs, orthogonal_cameras, parse, run


@pytest.fixture(scope="module")
def model() -> MultiViewModel:
    return micro_model()


def _sample(model: MultiViewModel, seed: int, scale: float = 2.0, token: float = 1.0, eta: float = 0.0) -> Tensor:
    cameras = orthogonal_cameras(model, 4, elevation_deg=10.0)
    tokens = torch.full((1, 1, 32), token)
    g = torch.Generator().manual_seed(seed)
    return sample_views(model, tokens, cameras, steps=4, guidance_scale=scale, generator=g, eta=eta)


def test_ddim_steps_follow_the_formula() -> None:
    """eta = 0: z_s = sqrt(a_s) x0 + sqrt(1 - a_s) eps with x0 from eps; the last step goes to a_0."""
    scheduler, alphas = ddim_scheduler(50, torch.device("cpu")), noise_schedule()
    steps = scheduler.timesteps.tolist()
    assert (len(steps), steps[0], steps[-1]) == (50, 981, 1)
    z, eps = torch.randn(4, 8), torch.randn(4, 8)
    for t, s in ((steps[3], steps[4]), (steps[-1], 0)):
        x0 = (z - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
        expected = alphas[s].sqrt() * x0 + (1 - alphas[s]).sqrt() * eps
        torch.testing.assert_close(scheduler.step(eps, t, z).prev_sample, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "count", "first", "last"),
    [
        (50, 50, 981, 1),
        (1, 1, 1, 1),
        (7, 8, 995, 1),
        (150, 167, 997, 1),
        (400, 500, 999, 1),
        (3, 4, 999, 0),  # 1000 does not exist: no offset
        (300, 334, 999, 0),
        (600, 1000, 999, 0),
        (1000, 1000, 999, 0),
    ],
)
def test_timesteps_follow_the_rule_of_ldm(steps: int, count: int, first: int, last: int) -> None:
    timesteps = ddim_scheduler(steps, torch.device("cpu")).timesteps.tolist()
    assert (len(timesteps), timesteps[0], timesteps[-1]) == (count, first, last)
    assert {before - after for before, after in pairwise(timesteps)} <= {1000 // steps}


def test_results_store_the_number_of_timesteps_where_it_is_not_the_given_one() -> None:
    assert [sampling_settings(steps) for steps in (1, 50, 1000)] == [{}, {}, {}]
    assert [sampling_settings(steps) for steps in (3, 600)] == [{"timesteps": 4}, {"timesteps": 1000}]


@pytest.mark.parametrize("steps", [7, 150, 300, 600])
def test_each_step_ends_at_the_noise_of_the_next_timestep(steps: int) -> None:
    """Each step follows the formula, also for counts that do not divide 1000; the last goes to alpha_bar_0."""
    scheduler, alphas = ddim_scheduler(steps, torch.device("cpu")), noise_schedule()
    timesteps = scheduler.timesteps.tolist()
    z, eps = torch.randn(4, 8), torch.randn(4, 8)
    for t, s in pairwise([*timesteps, 0]):
        x0 = (z - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
        expected = alphas[s].sqrt() * x0 + (1 - alphas[s]).sqrt() * eps
        torch.testing.assert_close(scheduler.step(eps, t, z).prev_sample, expected, rtol=1e-3, atol=1e-3)


def test_eta_draws_noise_from_the_generator(model: MultiViewModel) -> None:
    deterministic, random = _sample(model, 0), _sample(model, 0, eta=1.0)
    assert torch.equal(_sample(model, 0, eta=0.0), deterministic)
    assert not torch.allclose(random, deterministic, atol=1e-3)
    assert torch.equal(_sample(model, 0, eta=1.0), random)


def test_eta_1_draws_the_noise_of_ddpm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean and the deviation of a step from t to s, as in Song et al. 2021 (Eq. 12 and 16) for eta 1."""
    model, steps = micro_model(), 4
    eps, alphas = torch.randn(1, 1, 4, 8, 8), noise_schedule()
    monkeypatch.setattr("train.model.ddim.guided_noise", lambda *_, **__: eps)
    monkeypatch.setattr(MultiViewModel, "decode", lambda _, latents: latents)
    cameras, tokens = torch.zeros(1, 1, 16), torch.zeros(1, 1, 32)
    start = torch.randn(1, 1, 4, 8, 8)
    generator = torch.Generator().manual_seed(5)
    found = denoise_views(model, start, tokens, cameras, steps=steps, guidance_scale=1.0, eta=1.0, generator=generator)
    replay, z = torch.Generator().manual_seed(5), start
    for t, s in pairwise([751, 501, 251, 1, 0]):
        x0 = (z - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
        variance = (1 - alphas[s]) / (1 - alphas[t]) * (1 - alphas[t] / alphas[s])
        drawn = torch.randn(eps.shape, generator=replay)
        z = alphas[s].sqrt() * x0 + (1 - alphas[s] - variance).sqrt() * eps + variance.sqrt() * drawn
    torch.testing.assert_close(found, z, rtol=1e-3, atol=1e-3)


def test_ddim_recovers_a_latent_whose_noise_is_known() -> None:
    scheduler, alphas = ddim_scheduler(20, torch.device("cpu")), noise_schedule()
    x0, z = torch.randn(3, 5), torch.randn(3, 5)
    for t in scheduler.timesteps:
        eps = (z - alphas[t].sqrt() * x0) / (1 - alphas[t]).sqrt()
        z = scheduler.step(eps, t, z).prev_sample
    torch.testing.assert_close(z, x0, rtol=0, atol=0.15)  # what is left is the noise of alpha_bar_0


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="number of DDIM steps"):
        ddim_scheduler(steps, torch.device("cpu"))


@torch.no_grad()
def test_guidance_extrapolates_from_the_zero_token(model: MultiViewModel) -> None:
    latents, cameras, tokens = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 3, 16), torch.randn(2, 1, 32)
    flat, times = latents.flatten(0, 1), torch.full((6,), 500)

    def plain(context: Tensor) -> Tensor:
        return model.predict_noise(flat, times, cameras.flatten(0, 1), context, 3).view_as(latents)

    with_token, without = plain(tokens), plain(torch.zeros_like(tokens))
    for scale in (0.0, 1.0, 7.0):
        guided = guided_noise(model, latents, 500, cameras, tokens, guidance_scale=scale)
        torch.testing.assert_close(guided, without + scale * (with_token - without), rtol=1e-3, atol=1e-4)


def test_samples_depend_on_seed_and_token_alone(model: MultiViewModel) -> None:
    images = _sample(model, 0)
    assert images.shape == (1, 4, 3, 32, 32)
    assert torch.equal(images, _sample(model, 0))
    assert not torch.equal(images, _sample(model, 1))
    assert not torch.equal(images, _sample(model, 0, token=-1.0))


def test_cameras_are_world_minus_reference(model: MultiViewModel) -> None:
    cameras = orthogonal_cameras(model, 4, elevation_deg=10.0, azimuth_offset_deg=5.0)
    expected = relative_camera(30.0, [5.0, 95.0, 185.0, 275.0], 10.0, 0.0)
    torch.testing.assert_close(cameras[0], torch.from_numpy(expected))


def test_command_writes_the_image_and_its_views(
    model: MultiViewModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(model, tmp_path / "model")
    Image.new("RGBA", (40, 30), (200, 30, 30, 255)).save(tmp_path / "in.png")
    image, out = tmp_path / "in.png", tmp_path / "a" / "out.png"
    run(SampleArgs(image=image, model=tmp_path / "model", out=out, views=3, ddim_steps=2, device="cpu"))
    with Image.open(out) as sheet:
        assert sheet.width > 3.5 * sheet.height  # four pictures in a row
    printed = capsys.readouterr()
    assert "guidance 3" in printed.out  # the model's default
    assert "note:" in printed.err  # an opaque image is announced


def test_views_that_are_not_finite_are_not_written(model: MultiViewModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    Image.new("RGBA", (40, 30), (200, 30, 30, 255)).save(tmp_path / "in.png")
    out = tmp_path / "out.png"
    args = SampleArgs(image=tmp_path / "in.png", model=tmp_path / "model", out=out, views=2, ddim_steps=2, device="cpu")
    with pytest.raises(UserError, match=r"smaller --guidance-scale than 1e\+38 \(the model's is 3\)"):
        run(replace(args, guidance_scale=1e38))
    assert not out.exists()


def test_the_old_name_of_ddim_steps_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--image", "a.png", "--steps", "7"]) == parse(["--image", "a.png", "--ddim-steps", "7"])
    assert "--steps is now --ddim-steps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--steps" not in capsys.readouterr().out.replace("--ddim-steps", "").split()


def test_the_old_flag_of_the_background_still_works() -> None:
    assert parse(["--image", "a.png", "--remove-background"]).background == "rembg"
    assert parse(["--image", "a.png", "--background", "uniform"]).background == "uniform"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elevation_deg": math.nan}, "--elevation-deg is nan; it must be between -90 and 90"),
        ({"view_elevation_deg": math.nan}, "--view-elevation-deg is nan; it must be between -90 and 90"),
        ({"view_elevation_deg": 91.0}, "--view-elevation-deg is 91.0; it must be between -90 and 90"),
        ({"azimuth_offset_deg": math.inf}, "--azimuth-offset-deg is inf; it must be a finite number"),
        ({"azimuth_deg": math.nan}, "--azimuth-deg is nan; it must be a finite number"),
        ({"guidance_scale": math.nan}, "--guidance-scale is nan; it must be a finite number"),
        ({"eta": math.nan}, "--eta is nan; it must be between 0 and 1"),
        ({"seed": 2**64}, f"--seed is {2**64}; it must be between 0 and"),
        ({"ddim_steps": 1001}, "the number of DDIM steps is 1001; --ddim-steps must be 1 to 1000"),
        ({"device": "mps"}, "device 'mps': this machine has no Apple GPU"),
        ({"views": 1001}, "--views is 1001; it must be between 1 and 1000"),
        ({"out": Path("x.xyz")}, "--out x.xyz: not the name of an image file; give a name that ends in .png"),
        ({"out": Path("x")}, "--out x: not the name of an image file; give a name that ends in .png"),
        ({"out": Path()}, "--out . is a folder; give the path of a PNG file, such as views.png"),
    ],
)
def test_invalid_options_are_refused_before_sampling(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        run(replace(SampleArgs(image=tmp_path / "missing.png", device="cpu"), **changes))


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="'cuda:2': there are 2 GPUs"):
        pick_device("cuda:2")


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--views is 0"):
        run(SampleArgs(image=tmp_path / "x.png", views=0))
    with pytest.raises(UserError, match="unknown device"):
        pick_device("tpux")
    with pytest.raises(UserError, match=r"model\.json"):
        run(SampleArgs(image=tmp_path / "x.png", model=tmp_path / "none", device="cpu"))
