"""The uses of the reference: training with each, and sampling with the picture in hand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from dataset.camera import mvdream_camera
from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.evaluate import evaluate_assets
from distill.sds.guidance import model_denoiser
from distill.sds.schedule import PRESETS, draw_views
from tests.support.train_micro import CPU, micro_model, micro_run
from train.data.images import ImageBatch
from train.data.sampling import DiffusionNoise, prepare_inputs
from train.loop import loop
from train.loop.loop import train
from train.loop.loss import encode_views, predict
from train.loop.run_config import TrainingRun
from train.model.multiview import MultiViewModel, load_model, read_spec, write_spec
from train.model.reference import (
    ReferenceFrameUNet,
    check_reference_options,
    folder_reads_reference,
    prepare_for_reference,
    reads_reference,
    start_channel_concat,
    with_reference_image,
    with_reference_latents,
)
from train.model.unet import run_unet
from train.sample import SampleArgs
from train.sample import run as draw_sample

pytestmark = [pytest.mark.usefixtures("one_thread", "quick_samples"), pytest.mark.integration]


def _run(shards: Path, out: Path, base: Path, use: str, steps: int = 3) -> TrainingRun:
    run = micro_run(shards, out, steps, stage=2, base=base)
    return replace(run, recipe=replace(run.recipe, reference=use, validation="on"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def concatenated(shards: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "channels"
    train(_run(shards, out, base, "channels"))
    return out


def _micro_batch() -> tuple[ImageBatch, DiffusionNoise]:
    random = torch.Generator().manual_seed(1)
    views = ImageBatch(
        torch.rand(2, 3, 32, 32, generator=random),
        torch.rand(2, 3, 3, 32, 32, generator=random),
        torch.randn(2, 3, 16, generator=random),
        torch.from_numpy(mvdream_camera([[0.0], [20.0]], [[0.0], [70.0]])),
    )
    noise = torch.randn(2, 3, 4, 8, 8, generator=random)
    return views, DiffusionNoise(torch.tensor([10, 700]), noise, torch.tensor([False, True]))


@torch.no_grad()
def _predict(model: MultiViewModel, use: Any) -> Tensor:
    views, draw = _micro_batch()
    return predict(model.unet, encode_views(model, views, use), draw, model.alphas_cumprod)


def test_training_with_channels_starts_from_the_bases_predictions(shards: Path, base: Path, tmp_path: Path) -> None:
    run = _run(shards, tmp_path / "run", base, "channels")
    started = loop._set_up(run, ShardSet(run.shards)).model
    assert reads_reference(started.unet)
    torch.testing.assert_close(_predict(started, "channels"), _predict(load_model(base, CPU), "none"))


def test_and_learns_to_read_them(base: Path, concatenated: Path) -> None:
    unet: Any = load_model(concatenated, CPU).unet
    assert reads_reference(unet)
    assert bool(unet.conv_in.weight[:, 4:].any())
    before: Any = load_model(base, CPU).unet
    assert not torch.equal(unet.conv_in.weight[:, :4], before.conv_in.weight)


def test_a_run_with_channels_resumes_exactly(shards: Path, base: Path, concatenated: Path, tmp_path: Path) -> None:
    """The checkpoint of step 2 goes into a UNet that was widened again."""
    run = _run(shards, tmp_path / "run", base, "channels")
    train(run)
    (run.out / "model.json").unlink()
    shutil.rmtree(run.out / "unet")
    assert len(train(run)) == 1
    whole, again = (load_model(folder, CPU).unet.state_dict() for folder in (concatenated, run.out))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_without_the_reference_stage_2_is_stage_1s_loss(shards: Path, base: Path, tmp_path: Path) -> None:
    ablation = _run(shards, tmp_path / "ablation", base, "none")
    first = replace(ablation, stage=1, out=tmp_path / "first")
    first = replace(first, recipe=replace(first.recipe, stage1=first.recipe.stage2))
    losses = train(ablation)
    assert losses == train(first)
    assert losses != train(_run(shards, tmp_path / "attention", base, "attention"))


def test_a_base_that_reads_the_reference_starts_no_other_training(
    shards: Path, concatenated: Path, tmp_path: Path
) -> None:
    for use in ("attention", "none"):
        with pytest.raises(UserError, match="--reference-mode channels"):
            train(_run(shards, tmp_path / use, concatenated, use))
    with pytest.raises(UserError, match="already reads 8 channels"):
        prepare_for_reference(load_model(concatenated, CPU).unet, "channels")


@torch.no_grad()
def test_the_image_in_front_is_what_training_showed() -> None:
    """Against Eq. 6's own inputs, in two rounds as guidance has them."""
    model, (views, draw) = micro_model(), _micro_batch()
    encoded = encode_views(model, views, "attention")
    seeing = with_reference_latents(model, model.encode(views.reference), encoded.reference_camera[:, 0])
    assert isinstance(seeing.unet, ReferenceFrameUNet)
    expected, found = [], []
    tokens = torch.cat([encoded.tokens, torch.zeros_like(encoded.tokens)])
    for dropped in (False, True):
        round_ = DiffusionNoise(draw.timesteps, draw.noise, torch.full_like(draw.dropped, dropped))
        inputs = prepare_inputs(
            encoded.targets,
            (encoded.reference, encoded.reference_camera),
            encoded.cameras,
            encoded.tokens,
            round_,
            alphas_cumprod=model.alphas_cumprod,
        )
        context = inputs.tokens.repeat_interleave(inputs.num_frames, dim=0)
        whole = run_unet(model.unet, inputs.latents, inputs.timesteps, inputs.cameras, context, num_frames=4)
        expected.append(whole.view(2, 4, 4, 8, 8)[:, 1:].flatten(0, 1))
        plain = prepare_inputs(
            encoded.targets,
            None,
            encoded.cameras,
            encoded.tokens,
            round_,
            alphas_cumprod=model.alphas_cumprod,
        )
        found.append(plain)
    flat = [torch.cat([getattr(one, name) for one in found]) for name in ("latents", "timesteps", "cameras")]
    predicted = seeing.predict_noise(flat[0], flat[1], flat[2], tokens, 3)
    torch.testing.assert_close(predicted, torch.cat(expected), rtol=1e-4, atol=1e-5)


def _draw(model: Path, folder: Path, name: str, color: tuple[int, int, int], **options: Any) -> bytes:
    image, out = folder / f"{name}-in.png", folder / f"{name}.png"
    Image.new("RGBA", (32, 32), (*color, 255)).save(image)
    draw_sample(SampleArgs(image=image, model=model, out=out, views=2, ddim_steps=2, device="cpu", **options))
    return out.read_bytes()


def test_samples_with_and_without_the_reference(base: Path, concatenated: Path, tmp_path: Path) -> None:
    red = (200, 30, 30)
    plain = _draw(base, tmp_path, "plain", red)
    assert plain == _draw(base, tmp_path, "again", red)
    assert plain != _draw(base, tmp_path, "shown", red, with_reference=True)
    assert _draw(concatenated, tmp_path, "channels", red)
    with pytest.raises(UserError, match="drop --with-reference"):
        _draw(concatenated, tmp_path, "twice", red, with_reference=True)
    with pytest.raises(UserError, match="drop --azimuth-deg"):
        _draw(base, tmp_path, "relative", red, with_reference=True, azimuth_deg=20.0)
    with pytest.raises(UserError, match="azimuth-deg is nan"):
        _draw(base, tmp_path, "nan", red, with_reference=True, azimuth_deg=float("nan"))
    absolute = shutil.copytree(base, tmp_path / "absolute")
    write_spec(replace(read_spec(absolute), cameras="absolute"), absolute)
    seen = [_draw(absolute, tmp_path, f"at{at}", red, with_reference=True, azimuth_deg=at) for at in (0.0, 90.0)]
    assert seen[0] != seen[1]


def test_what_a_model_that_always_sees_the_reference_is_not_asked(shards: Path, base: Path, concatenated: Path) -> None:
    assert folder_reads_reference(concatenated)
    assert not folder_reads_reference(base)
    with pytest.raises(UserError, match="drop --with-reference"):
        check_reference_options(concatenated, with_reference=True, azimuth_deg=0.0)
    check_reference_options(concatenated, with_reference=False, azimuth_deg=0.0)
    for way in ("with", "both"):
        with pytest.raises(
            UserError, match=f"{concatenated} always receives the reference image, as extra input channels"
        ):
            evaluate_assets(
                AssetEvaluationArgs(str(shards), model=(base, concatenated), split="all", compare_reference=way)
            )


@torch.no_grad()
def test_distilling_has_the_image_and_without_it_the_model_says_what_it_needs() -> None:
    model = micro_model()
    start_channel_concat(model.unet)
    views = draw_views(PRESETS["paper"], 0, 8)
    tokens, noisy, timesteps = torch.ones(1, 1, 32), torch.randn(8, 4, 8, 8), torch.full((8,), 300)
    seeing = with_reference_image(model, torch.rand(1, 3, 32, 32))
    assert with_reference_image(seeing, torch.rand(1, 3, 32, 32)) is seeing
    assert model_denoiser(seeing, tokens, 15.0, 3.0)(noisy, timesteps, views).guided.shape == noisy.shape
    with pytest.raises(UserError, match="needs the reference image"):
        model_denoiser(model, tokens, 15.0, 3.0)(noisy, timesteps, views)


def test_a_folder_without_unet_settings_gives_one_clear_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: not a model folder \(model.json is missing\)"):
        folder_reads_reference(tmp_path / "nowhere")
    broken = shutil.copytree(base, tmp_path / "broken")
    (broken / "unet" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: missing or damaged settings of the UNet"):
        folder_reads_reference(broken)
    (broken / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: missing or damaged settings of the UNet"):
        folder_reads_reference(broken)
