"""The UNet against MVDream's recorded outputs, joint attention against loops, the VAE's and labels' conventions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dataset.errors import UserError
from tests.support.paths import GOLDEN_FOLDER
from tests.support.train_micro import CPU, micro_model
from train.convert.ldm_parts import convert_unet, find_unet
from train.model.attention import JointAttention
from train.model.multiview import MultiViewModel, camera_labels, load_model, read_spec, save_model
from train.model.noise_schedule import noise_schedule
from train.model.unet import run_unet

GOLDEN = GOLDEN_FOLDER


@pytest.fixture(scope="module")
def model() -> MultiViewModel:
    return micro_model()


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "mvdream_unet_micro.safetensors")


@pytest.fixture(scope="module")
def golden_unet(golden: dict[str, Tensor]) -> torch.nn.Module:
    return convert_unet(find_unet(golden, "golden"), head_width=16, latent_size=16, where="golden").eval()


@pytest.mark.parametrize("case", range(5))
def test_unet_reproduces_mvdream(golden: dict[str, Tensor], golden_unet: torch.nn.Module, case: int) -> None:
    given = {name: golden[f"case{case}.{name}"] for name in ("sample", "timestep", "camera", "context", "output")}
    with torch.no_grad():
        output = run_unet(
            golden_unet,
            given["sample"],
            given["timestep"],
            given["camera"],
            given["context"],
            num_frames=int(golden[f"case{case}.num_frames"]),
        )
    torch.testing.assert_close(output, given["output"], rtol=0, atol=1e-4)


def test_time_and_camera_embedding_against_mvdreams_formula(
    golden: dict[str, Tensor], golden_unet: torch.nn.Module
) -> None:
    """emb = time_embed(t) + camera_embed(camera), handed to every residual block (MVDream's openaimodel.py).

    The recorded outputs cannot show this: their network has one channel a norm group, which removes the embedding.
    """
    weights = {name.removeprefix("weights."): tensor.float() for name, tensor in golden.items()}

    def mlp(name: str, x: Tensor) -> Tensor:
        hidden = torch.nn.functional.silu(x @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"])
        return hidden @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]

    seen: list[Tensor] = []
    unet: Any = golden_unet
    hook = unet.down_blocks[0].resnets[0].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    timesteps, cameras = golden["case2.timestep"], golden["case2.camera"]
    with torch.no_grad():
        run_unet(unet, golden["case2.sample"], timesteps, cameras, golden["case2.context"], num_frames=5)
    hook.remove()
    frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(16) / 16)
    angles = timesteps[:, None].float() * frequencies
    sinusoid = torch.cat([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(
        seen[0], mlp("time_embed", sinusoid) + mlp("camera_embed", cameras), rtol=1e-4, atol=1e-4
    )


def _inputs(objects: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(objects * frames, 4, 8, 8, generator=g)
    timesteps = torch.randint(1000, (objects * frames,), generator=g)
    cameras = torch.randn(objects * frames, 16, generator=g)
    return latents, timesteps, cameras, torch.randn(objects, 1, 32, generator=g)


@torch.no_grad()
def test_objects_of_a_batch_do_not_see_each_other(model: MultiViewModel) -> None:
    latents, timesteps, cameras, tokens = _inputs(2, 3)
    together = model.predict_noise(latents, timesteps, cameras, tokens, 3)
    alone = model.predict_noise(latents[3:], timesteps[3:], cameras[3:], tokens[1:], 3)
    torch.testing.assert_close(together[3:], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frames_of_an_object_see_each_other_and_have_no_order(model: MultiViewModel) -> None:
    latents, timesteps, cameras, tokens = _inputs(1, 4)
    output = model.predict_noise(latents, timesteps, cameras, tokens, 4)
    single = torch.cat(
        [model.predict_noise(latents[i : i + 1], timesteps[i : i + 1], cameras[i : i + 1], tokens, 1) for i in range(4)]
    )
    assert (output - single).abs().max() > 1e-3
    order = torch.tensor([2, 0, 3, 1])
    shuffled = model.predict_noise(latents[order], timesteps[order], cameras[order], tokens, 4)
    torch.testing.assert_close(shuffled, output[order], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 4, 5, 8])
def test_one_network_runs_any_number_of_frames(model: MultiViewModel, frames: int) -> None:
    latents, timesteps, cameras, tokens = _inputs(2, frames)
    assert model.predict_noise(latents, timesteps, cameras, tokens, frames).shape == latents.shape


@torch.no_grad()
def test_camera_timestep_and_token_matter(model: MultiViewModel) -> None:
    latents, timesteps, cameras, tokens = _inputs(1, 2)
    plain = model.predict_noise(latents, timesteps, cameras, tokens, 2)
    for changed in (
        model.predict_noise(latents, timesteps, cameras + 1, tokens, 2),
        model.predict_noise(latents, (timesteps + 300) % 1000, cameras, tokens, 2),
        model.predict_noise(latents, timesteps, cameras, torch.zeros_like(tokens), 2),
    ):
        assert (changed - plain).abs().max() > 1e-4


def test_joint_attention_is_attention_over_the_tokens_of_all_frames(model: MultiViewModel) -> None:
    unet: Any = model.unet
    attn = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    states = torch.randn(4, 6, 32)
    joint = JointAttention()(attn, states, num_frames=2)
    for b in range(2):
        joined = states[2 * b : 2 * b + 2].reshape(12, 32)
        q, k, v = attn.to_q(joined), attn.to_k(joined), attn.to_v(joined)
        heads = []
        for h in range(attn.heads):
            part = slice(16 * h, 16 * h + 16)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / 4, dim=-1) @ v[:, part])
        expected = attn.to_out[0](torch.cat(heads, dim=-1)).reshape(2, 6, 32)
        torch.testing.assert_close(joint[2 * b : 2 * b + 2], expected, rtol=1e-4, atol=1e-5)


def test_noise_schedule_is_stable_diffusions() -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    alphas = noise_schedule()
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas, theirs, rtol=1e-4, atol=1e-6)
    assert alphas[0] < 0.9992  # why the clean reference must bypass the schedule
    assert alphas[-1] == pytest.approx(0.0047, abs=1e-4)


def test_encode_is_differentiable_resizes_and_scales(model: MultiViewModel) -> None:
    images = torch.rand(2, 3, 20, 20, requires_grad=True)
    latents = model.encode(images)
    assert latents.shape == (2, 4, 8, 8)
    latents.square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    vae: Any = model.vae
    exact = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = vae.encode(exact * 2 - 1).latent_dist.mean * model.spec.latent_scale
        torch.testing.assert_close(model.encode(exact), expected)
        decoded = vae.decode(expected / model.spec.latent_scale).sample / 2 + 0.5
        torch.testing.assert_close(model.decode(expected), decoded.clamp(0, 1))


def test_frozen_parts_take_no_gradient(model: MultiViewModel) -> None:
    assert not any(p.requires_grad for part in (model.vae, model.image_encoder) for p in part.parameters())
    assert all(p.requires_grad for p in model.unet.parameters())
    assert model.embed_image(torch.rand(2, 3, 50, 50)).shape == (2, 1, 32)


def test_labels_follow_the_golden_cameras() -> None:
    cases = json.loads((GOLDEN / "cameras.json").read_text())
    for case in cases["mvdream_camera"]:
        elevation, azimuth, expected = case["elevation_deg"], case["azimuth_deg"], torch.tensor(case["c2w"])
        absolute = camera_labels("absolute", elevation, azimuth, 10.0, 70.0)
        torch.testing.assert_close(absolute.float(), expected, rtol=0, atol=1e-6)
        relative = camera_labels("relative", elevation + 10.0, azimuth + 70.0, 10.0, 70.0)
        torch.testing.assert_close(relative.float(), expected, rtol=0, atol=1e-6)
    for case in cases["isotropic3d_released_camera"]:
        released = camera_labels(
            "released_isotropic3d", case["elevation_deg"] + 10.0, case["azimuth_deg"] + 70.0, 10.0, 70.0
        )
        torch.testing.assert_close(released.float(), torch.tensor(case["c2w"]), rtol=0, atol=1e-6)
    relative = camera_labels("relative", [30.0, 20.0], [90.0, 45.0], 10.0, 0.0)
    again = camera_labels("relative", [20.0, 10.0], [90.0, 45.0], 0.0, 0.0)
    torch.testing.assert_close(relative, again)
    released = camera_labels("released_isotropic3d", 0.0, 90.0, 0.0, 0.0)
    torch.testing.assert_close(released, camera_labels("relative", 0.0, float(torch.pi / 2), 0.0, 0.0))
    assert (released - camera_labels("relative", 0.0, 90.0, 0.0, 0.0)).abs().max() > 0.5
    absolute = camera_labels("absolute", [30.0, 20.0], [90.0, 45.0], 10.0, 70.0)
    assert torch.equal(absolute, camera_labels("relative", [30.0, 20.0], [90.0, 45.0], 0.0, 0.0))


@torch.no_grad()
def test_a_model_folder_round_trips(model: MultiViewModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m", CPU)
    assert again.spec == model.spec
    latents, timesteps, cameras, tokens = _inputs(1, 2)
    args = (latents, timesteps, cameras, tokens, 2)
    torch.testing.assert_close(again.predict_noise(*args), model.predict_noise(*args), rtol=0, atol=0)
    rgb = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.embed_image(rgb), model.embed_image(rgb), rtol=0, atol=0)
    torch.testing.assert_close(again.decode(again.encode(rgb)), model.decode(model.encode(rgb)), rtol=0, atol=0)


def test_damaged_model_folders_are_named(model: MultiViewModel, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(UserError, match=r"model\.json is missing"):
        load_model(folder, CPU)
    save_model(model, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="unet"):
        load_model(folder, CPU)
    weights.write_bytes(whole)
    (folder / "image_tower" / "image_tower.json").write_text("{}")
    with pytest.raises(UserError, match="image_tower"):
        load_model(folder, CPU)
    (folder / "model.json").write_text('{"image_size": 1}')
    with pytest.raises(UserError, match=r"model\.json"):
        read_spec(folder)


@pytest.mark.parametrize("object_fill", [0.0, 1.5])
def test_an_impossible_fill_is_refused(model_folder: Path, object_fill: float) -> None:
    settings = model_folder / "image_tower" / "image_tower.json"
    small = json.loads(settings.read_text())["small"] | {"object_fill": object_fill}
    settings.write_text(json.dumps({"small": small}))
    with pytest.raises(UserError, match=r"image_tower\.json: .*object_fill is"):
        load_model(model_folder, CPU)
