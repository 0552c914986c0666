"""Export and import again: diffusers opens the folder, LDM files give back every tensor."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataset.errors import UserError
from tests.support.ldm_files import (
    GOLDEN,
    HEAD_WIDTH,
    IMAGE_SIZE,
    TINY_IMAGE_ENCODER,
    golden_unet,
    register_tiny_image_encoder,
    release,
)
from tests.support.tensors import assert_same_tensors
from tests.support.train_micro import CPU, MICRO, micro_model
from train.convert.checkpoint_file import read_checkpoint
from train.convert.convert import ConvertArgs, convert
from train.export import ExportArgs, export, read_parts, shape_of
from train.model.image_encoder import build_image_encoder, save_image_encoder
from train.model.multiview import load_model, read_spec
from train.model.noise_schedule import noise_schedule
from train.model.timm_encoder import TimmEncoder
from train.model.unet import load_unet, run_unet


def test_plain_diffusers_opens_the_folder(model_folder: Path, tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    out, ours = tmp_path / "out", micro_model()
    export(ExportArgs(model_folder, out))
    unet: Any = UNet2DConditionModel.from_pretrained(out, subfolder="unet")
    assert_same_tensors(unet.state_dict(), ours.unet.state_dict())
    assert_same_tensors(AutoencoderKL.from_pretrained(out, subfolder="vae").state_dict(), ours.vae.state_dict())
    scheduler: Any = DDIMScheduler.from_pretrained(out, subfolder="scheduler")
    torch.testing.assert_close(scheduler.alphas_cumprod, noise_schedule(), rtol=1e-4, atol=1e-6)
    assert scheduler.config.prediction_type == "epsilon"
    index = json.loads((out / "model_index.json").read_text())
    for part in ("unet", "vae", "scheduler", "image_encoder"):
        library, kind = index[part]
        config = json.loads(next((out / part).glob("*config.json")).read_text())
        assert kind in (config.get("_class_name"), *config.get("architectures", ()))
        assert library == ("transformers" if part == "image_encoder" else "diffusers")
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    with torch.no_grad():  # one view: no frames to join, so the stock processor says the same
        given = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 16), torch.randn(1, 1, 32)
        plain = unet(given[0], given[1], encoder_hidden_states=given[3], class_labels=given[2]).sample
        torch.testing.assert_close(plain, run_unet(ours.unet, *given, num_frames=1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_folder_is_a_model_folder_here_too(model_folder: Path, tmp_path: Path) -> None:
    export(ExportArgs(model_folder, tmp_path / "out"))
    again, ours = load_model(tmp_path / "out", CPU), micro_model()
    assert again.spec == ours.spec
    picture = torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(again.embed_image(picture), ours.embed_image(picture))
    assert again.image_encoder.spec == ours.image_encoder.spec


def test_nothing_is_overwritten_and_a_base_may_lack_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(ConvertArgs(GOLDEN, tmp_path / "base", head_width=HEAD_WIDTH))
    export(ExportArgs(tmp_path / "base", tmp_path / "out"))
    assert "has no VAE" in capsys.readouterr().err
    assert set(json.loads((tmp_path / "out/model_index.json").read_text())) & {"vae", "image_encoder"} == set()
    with pytest.raises(UserError, match="already exists"):
        export(ExportArgs(tmp_path / "base", tmp_path / "out"))
    with pytest.raises(UserError, match=r"\.ckpt"):
        export(ExportArgs(tmp_path / "base", tmp_path / "x.bin", "ldm"))
    with pytest.raises(UserError, match="nowhere"):
        export(ExportArgs(tmp_path / "nowhere", tmp_path / "y"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


@pytest.mark.parametrize("name", ["out.ckpt", "out.safetensors"])
def test_a_release_comes_back_tensor_by_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    register_tiny_image_encoder(monkeypatch)
    state = release()
    torch.save(state, tmp_path / "isotropic3d.ckpt")
    asked = ConvertArgs(
        tmp_path / "isotropic3d.ckpt",
        tmp_path / "model",
        head_width=HEAD_WIDTH,
        image_size=IMAGE_SIZE,
        image_tower=TINY_IMAGE_ENCODER,
    )
    convert(asked)
    export(ExportArgs(tmp_path / "model", tmp_path / name, "ldm"))
    parts = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.model.visual.")
    expected = {key: tensor for key, tensor in state.items() if key.startswith(parts)}
    assert len(expected) == len(state) - 2  # all but the schedule and the text side
    assert_same_tensors(read_checkpoint(tmp_path / name), expected)
    convert(ConvertArgs(tmp_path / name, tmp_path / "again"))  # no options: the notes say what tensors do not
    assert read_spec(tmp_path / "again") == read_spec(tmp_path / "model")
    assert_same_tensors(
        load_unet(tmp_path / "again/unet").state_dict(), load_unet(tmp_path / "model/unet").state_dict()
    )


def test_the_golden_unet_keeps_keys_and_tensors(tmp_path: Path) -> None:
    convert(ConvertArgs(GOLDEN, tmp_path / "model", head_width=HEAD_WIDTH))
    export(ExportArgs(tmp_path / "model", tmp_path / "out.ckpt", "ldm"))
    loaded = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert all(isinstance(tensor, Tensor) for tensor in loaded.values())  # flat, as the official code wants it
    assert_same_tensors(dict(loaded), {f"model.diffusion_model.{name}": t for name, t in golden_unet().items()})
    official = nn.Module()  # the official loader: a module tree filled by load_state_dict, not strict
    official.model = nn.Module()
    official.model.diffusion_model = nn.Module()
    official.model.diffusion_model.time_embed = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 128))
    assert official.load_state_dict(loaded, strict=False).missing_keys == []
    assert torch.equal(
        official.model.diffusion_model.time_embed[0].weight, golden_unet()["time_embed.0.weight"].float()
    )


@pytest.fixture
def like_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model as the paper preset leaves it: the release's parts and true cameras."""
    register_tiny_image_encoder(monkeypatch)
    torch.save(release(), tmp_path / "source.ckpt")
    small = ConvertArgs(
        tmp_path / "source.ckpt",
        tmp_path / "trained",
        head_width=HEAD_WIDTH,
        image_size=IMAGE_SIZE,
        image_tower=TINY_IMAGE_ENCODER,
    )
    convert(replace(small, cameras="relative"))
    return tmp_path / "trained"


def test_a_model_trained_here_keeps_its_true_cameras(
    like_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has an image encoder as the release has: without notes it would be taken for the release.

    The way leads through the diffusers folder, whose image encoder has no name any more.
    """
    export(ExportArgs(like_trained, tmp_path / "folder"))
    export(ExportArgs(tmp_path / "folder", tmp_path / "out.ckpt", "ldm"))
    assert "true camera angles" in capsys.readouterr().err
    convert(ConvertArgs(tmp_path / "out.ckpt", tmp_path / "again"))
    assert read_spec(tmp_path / "again") == read_spec(like_trained)
    again, ours = load_model(tmp_path / "again", CPU), load_model(like_trained, CPU)
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.embed_image(picture), ours.embed_image(picture))
        torch.testing.assert_close(again.encode(picture), ours.encode(picture))


def test_an_image_encoder_of_timm_comes_back_from_an_ldm_file(like_trained: Path, tmp_path: Path) -> None:
    spec = TimmEncoder("test_efficientnet", load_model(like_trained, CPU).image_encoder.embed_dim, 32, 0.75)
    encoder = build_image_encoder(spec).eval()
    shutil.rmtree(like_trained / "image_tower")
    save_image_encoder(encoder, like_trained / "image_tower")
    for name in ("out.ckpt", "out.safetensors"):
        export(ExportArgs(like_trained, tmp_path / name, "ldm"))
        convert(ConvertArgs(tmp_path / name, tmp_path / "again"))
        again = load_model(tmp_path / "again", CPU).image_encoder
        assert again.spec == spec
        assert_same_tensors(again.state_dict(), encoder.state_dict())
        shutil.rmtree(tmp_path / "again")


def test_damaged_notes_are_refused(like_trained: Path, tmp_path: Path) -> None:
    export(ExportArgs(like_trained, tmp_path / "out.ckpt", "ldm"))
    state = torch.load(tmp_path / "out.ckpt", weights_only=True)
    for notes, told in (("{", "damaged"), (state._metadata["isotropic3d"].replace("relative", "odd"), "'odd'")):
        state._metadata = {"isotropic3d": notes}
        torch.save(state, tmp_path / "bad.ckpt")
        with pytest.raises(UserError, match=told):
            convert(ConvertArgs(tmp_path / "bad.ckpt", tmp_path / "again"))


def test_what_the_official_code_would_compute_differently_is_not_exported(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="normalizes in 8 groups, but the official code of Isotropic3D always in 32"):
        export(ExportArgs(model_folder, tmp_path / "out.ckpt", "ldm"))
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_shape_of_a_unet_is_the_one_it_was_built_from(model_folder: Path) -> None:
    assert shape_of(load_unet(model_folder / "unet")) == MICRO.unet
    assert read_parts(model_folder).image_encoder is not None


def test_write_diffusers_is_complete_before_its_spec(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(spec: Any, folder: Path) -> None:
        assert (folder / "model_index.json").is_file()
        raise OSError("disk full")

    monkeypatch.setattr("train.export.write_spec", broken)
    with pytest.raises(OSError, match="disk full"):
        export(ExportArgs(model_folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
