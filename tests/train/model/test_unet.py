"""A UNet with input channels for the reference: starts as its base, learns to see, is saved and sampled."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dataset.errors import UserError
from tests.support.train_micro import CPU, micro_model
from train.export import ExportArgs, export
from train.model.ddim import sample_views
from train.model.multiview import load_model, save_model
from train.model.reference import concat_reference, reads_reference, start_channel_concat, with_reference_image
from train.model.unet import run_unet, widen_conv_in
from train.sample import orthogonal_cameras

pytestmark = pytest.mark.usefixtures("one_thread")


def _unet_inputs(frames: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((2 * frames, 4, 8, 8), (2 * frames, 16), (2 * frames, 1, 32))
    latents, cameras, context = (torch.randn(shape, generator=g) for shape in shapes)
    return latents, torch.full((2 * frames,), 400), cameras, context


@torch.no_grad()
def test_a_widened_unet_starts_as_its_base_and_can_learn_to_see() -> None:
    latents, timesteps, cameras, context = _unet_inputs()
    base = run_unet(micro_model().unet, latents, timesteps, cameras, context, num_frames=3)
    unet: Any = start_channel_concat(micro_model().unet)
    assert (unet.config.in_channels, unet.config.out_channels, reads_reference(unet)) == (8, 4, True)
    joined = concat_reference(latents, torch.randn(2, 4, 8, 8) * 10, 3)
    torch.testing.assert_close(run_unet(unet, joined, timesteps, cameras, context, num_frames=3), base)
    unet.conv_in.weight[:, 4:] = 0.1
    assert (run_unet(unet, joined, timesteps, cameras, context, num_frames=3) - base).abs().max() > 1e-2


def test_the_new_channels_take_gradient_from_the_first_step() -> None:
    latents, timesteps, cameras, context = _unet_inputs()
    unet: Any = start_channel_concat(micro_model().unet)
    joined = concat_reference(latents, torch.randn(2, 4, 8, 8), 3)
    run_unet(unet, joined, timesteps, cameras, context, num_frames=3).square().sum().backward()  # type: ignore[no-untyped-call]
    assert unet.conv_in.weight.grad[:, 4:].abs().max() > 0


def test_every_frame_sees_its_own_objects_reference_in_every_round() -> None:
    latents, reference = torch.randn(12, 4, 2, 2), torch.randn(2, 4, 2, 2)  # two rounds of two objects, three frames
    joined = concat_reference(latents, reference, 3)
    assert torch.equal(joined[:, :4], latents)
    for frame, owner in enumerate((0, 0, 0, 1, 1, 1) * 2):
        assert torch.equal(joined[frame, 4:], reference[owner])
    with pytest.raises(UserError, match="not a multiple of"):
        concat_reference(latents[:9], reference, 3)


@torch.no_grad()
def test_a_widened_model_is_saved_loaded_and_sampled_with_its_image(base: Path, tmp_path: Path) -> None:
    widened = load_model(base, CPU)
    assert with_reference_image(widened, torch.rand(1, 3, 32, 32)) is widened  # a plain model needs no image
    unet: Any = start_channel_concat(widened.unet)
    unet.conv_in.weight[:, 4:] = 0.2
    save_model(widened, tmp_path / "ablation")
    again = load_model(tmp_path / "ablation", CPU)

    def sample(rgb: Tensor) -> Tensor:
        seeing = with_reference_image(again, rgb)
        cameras = orthogonal_cameras(seeing, 4, elevation_deg=0.0)
        g = torch.Generator().manual_seed(0)
        tokens = torch.ones(1, 1, 32)  # the same embedding: only the channels can tell
        return sample_views(seeing, tokens, cameras, steps=2, guidance_scale=2.0, generator=g)

    assert sample(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 3, 32, 32)
    assert not torch.equal(sample(torch.zeros(1, 3, 32, 32)), sample(torch.rand(1, 3, 32, 32)))
    with pytest.raises(UserError, match="which the official code of Isotropic3D does not support"):
        export(ExportArgs(tmp_path / "ablation", tmp_path / "x.ckpt", "ldm"))
    with pytest.raises(UserError, match="already reads 8 channels"):
        start_channel_concat(again.unet)
    with pytest.raises(UserError, match="cannot be widened to 4"):
        widen_conv_in(again.unet, 4)
