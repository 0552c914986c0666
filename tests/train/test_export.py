"""Out and in again: diffusers opens the folder, LDM files give back every tensor, the card tells the truth."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.ldm_files import (
    GOLDEN,
    HEAD_WIDTH,
    IMAGE_SIZE,
    TINY_IMAGE_ENCODER,
    golden_unet,
    register_tiny_image_encoder,
    release,
)
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, micro_model, micro_run
from train.convert.checkpoint_file import read_checkpoint
from train.convert.convert import ConvertArgs, convert
from train.export import ExportArgs, PushArgs, export, hub_api, push, read_parts, shape_of
from train.loop.loop import describe
from train.model.clip_vision import from_transformers, load_clip_vision, save_clip_vision, to_transformers
from train.model.image_encoder import OpenClipEncoder, SmallEncoder, build_image_encoder
from train.model.multiview import load_model, read_spec, save_model
from train.model.noise_schedule import noise_schedule
from train.model.unet import load_unet, run_unet


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(micro_model(), tmp_path / "model")
    return tmp_path / "model"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return module.state_dict()


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.float()), name


# diffusers


def test_plain_diffusers_opens_the_folder(model: Path, tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    out, ours = tmp_path / "out", micro_model()
    export(ExportArgs(model, out))
    unet: Any = UNet2DConditionModel.from_pretrained(out, subfolder="unet")
    _assert_same(_tensors(unet), _tensors(ours.unet))
    _assert_same(_tensors(AutoencoderKL.from_pretrained(out, subfolder="vae")), _tensors(ours.vae))
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
def test_the_folder_is_a_model_folder_here_too(model: Path, tmp_path: Path) -> None:
    export(ExportArgs(model, tmp_path / "out"))
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


# the image encoder under transformers' names


def _transformers_forward(state: dict[str, Tensor], config: dict[str, Any], pixels: Tensor) -> Tensor:
    """CLIPVisionModelWithProjection.forward written out: pixels [1, 3, h, w] -> image_embeds [1, c]."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return nn.functional.layer_norm(x, x.shape[-1:], weight, bias, config["layer_norm_eps"])

    top = "vision_model."
    patches = nn.functional.conv2d(
        pixels, state[f"{top}embeddings.patch_embedding.weight"], stride=config["patch_size"]
    )
    tokens = torch.cat([state[f"{top}embeddings.class_embedding"][None], patches[0].flatten(1).T])
    x = norm(f"{top}pre_layrnorm", tokens + state[f"{top}embeddings.position_embedding.weight"])
    heads = config["num_attention_heads"]
    for number in range(config["num_hidden_layers"]):
        layer = f"{top}encoder.layers.{number}"
        y = norm(f"{layer}.layer_norm1", x)
        q, k, v = (
            linear(f"{layer}.self_attn.{part}_proj", y).unflatten(1, (heads, -1)).transpose(0, 1) for part in "qkv"
        )
        scores = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        x = x + linear(f"{layer}.self_attn.out_proj", (scores @ v).transpose(0, 1).flatten(1))
        hidden = nn.functional.gelu(linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x)))
        x = x + linear(f"{layer}.mlp.fc2", hidden)
    return (norm(f"{top}post_layernorm", x[0]) @ state["visual_projection.weight"].T)[None]


@torch.no_grad()
def test_the_image_encoder_computes_what_the_image_encoder_does(tmp_path: Path) -> None:
    image_encoder: Any = build_image_encoder(
        SmallEncoder(embed_dim=24, image_size=32, patch_size=8, width=32, layers=2, head_width=16)
    )
    for parameter in image_encoder.parameters():
        parameter.normal_(std=0.3)  # biases and norms too: zeros and ones would hide a wrong name
    save_clip_vision(image_encoder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    pixels = torch.randn(1, 3, 32, 32)
    found = _transformers_forward(load_file(tmp_path / "model.safetensors"), config, pixels)
    torch.testing.assert_close(found, image_encoder.visual(pixels), rtol=1e-4, atol=1e-4)
    again = load_clip_vision(tmp_path)
    _assert_same(_tensors(again.visual), _tensors(image_encoder.visual))


def test_the_papers_image_encoder_has_transformers_shape() -> None:
    """ViT-H-14 on the meta device: what `laion/CLIP-ViT-H-14-laion2B-s32B-b79K` says of itself."""
    with torch.device("meta"):
        image_encoder: Any = build_image_encoder(OpenClipEncoder("ViT-H-14", None))
    names = list(image_encoder.visual.state_dict())
    numbers = {
        name: torch.empty(shape.shape)
        for name, shape in image_encoder.visual.state_dict().items()
        if "blocks.0" in name
    }
    assert len(to_transformers(numbers)) == 16  # a layer: 4 matrices of attention, 2 of the MLP, 2 norms, with biases
    assert len(names) == 7 + 1 + 32 * 12
    assert (image_encoder.visual.conv1.out_channels, image_encoder.visual.output_dim) == (1280, 1024)


def test_other_encoders_are_refused(tmp_path: Path) -> None:
    image_encoder = build_image_encoder(
        SmallEncoder(embed_dim=24, image_size=32, patch_size=8, width=32, layers=1, head_width=16)
    )
    save_clip_vision(image_encoder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "quick_gelu"}))
    with pytest.raises(UserError, match="exact GELU"):
        load_clip_vision(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"weights do not match config\.json"):
        load_clip_vision(tmp_path)
    with pytest.raises(UserError, match="no counterpart in transformers"):
        to_transformers({"attn_pool.query": torch.zeros(1)})
    with pytest.raises(KeyError):
        from_transformers({}, 1)


# LDM


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
    _assert_same(read_checkpoint(tmp_path / name), expected)
    convert(ConvertArgs(tmp_path / name, tmp_path / "again"))  # no options: the notes say what tensors do not
    assert read_spec(tmp_path / "again") == read_spec(tmp_path / "model")
    _assert_same(_tensors(load_unet(tmp_path / "again/unet")), _tensors(load_unet(tmp_path / "model/unet")))


def test_the_golden_unet_keeps_keys_and_tensors(tmp_path: Path) -> None:
    convert(ConvertArgs(GOLDEN, tmp_path / "model", head_width=HEAD_WIDTH))
    export(ExportArgs(tmp_path / "model", tmp_path / "out.ckpt", "ldm"))
    loaded = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert all(isinstance(tensor, Tensor) for tensor in loaded.values())  # flat, as the official code wants it
    _assert_same(dict(loaded), {f"model.diffusion_model.{name}": t for name, t in golden_unet().items()})
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


def test_damaged_notes_are_refused(like_trained: Path, tmp_path: Path) -> None:
    export(ExportArgs(like_trained, tmp_path / "out.ckpt", "ldm"))
    state = torch.load(tmp_path / "out.ckpt", weights_only=True)
    for notes, told in (("{", "damaged"), (state._metadata["isotropic3d"].replace("relative", "odd"), "'odd'")):
        state._metadata = {"isotropic3d": notes}
        torch.save(state, tmp_path / "bad.ckpt")
        with pytest.raises(UserError, match=told):
            convert(ConvertArgs(tmp_path / "bad.ckpt", tmp_path / "again"))


def test_what_the_official_code_would_compute_differently_is_not_exported(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="normalizes in 8 groups, the official code always in 32"):
        export(ExportArgs(model, tmp_path / "out.ckpt", "ldm"))
    assert not list(tmp_path.glob("*.ckpt"))


# push


class _Hub:
    """What HfApi would have been asked."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.created, self.files = fails, [], {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        if self.fails:
            raise OSError("403 Forbidden")
        self.created.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        paths = [path for path in folder_path.rglob("*") if path.is_file()]
        self.files = {path.relative_to(folder_path).as_posix(): path.read_bytes() for path in paths}


def test_push_uploads_a_diffusers_folder_with_a_card_of_the_run(model: Path, tmp_path: Path) -> None:
    url = make_shard_set(tmp_path / "private" / "set", 3, 32)
    run = micro_run(url, model, 6, stage=2, base=tmp_path / "private" / "stage1")
    (model / "config.json").write_text(json.dumps(describe(run, ShardSet(run.shards))))
    hub = _Hub()
    push(PushArgs(model, "someone/model"), hub)
    assert hub.created == [("someone/model", True, True)]
    wanted = {"unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "image_encoder/config.json"}
    assert wanted | {"model_index.json", "model.json", "README.md"} <= hub.files.keys()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "MODEL=hf:someone/model" in card
    assert "Stage 2" in card
    assert "| steps | 6 |" in card
    assert "from `stage1`" in card
    assert "`set`: 3 rendered objects" in card
    assert "| license of objects | objects |" in card
    assert describe(run, ShardSet(run.shards))["data"]["sha256"] in card
    assert str(tmp_path) not in card  # where the data lay on this machine is nobody's business


@pytest.mark.parametrize("object_fill", [None, 0.75])
def test_who_takes_the_image_encoder_is_told_that_it_wants_the_object_centered(
    model: Path, capsys: pytest.CaptureFixture[str], object_fill: float | None
) -> None:
    settings = model / "image_tower" / "image_tower.json"
    small = json.loads(settings.read_text())["small"] | {"object_fill": object_fill}
    settings.write_text(json.dumps({"small": small}))
    hub = _Hub()
    push(PushArgs(model, "someone/model"), hub)
    for said in (hub.files["README.md"].decode(), capsys.readouterr().err):
        assert ("75% of the image" in said) == (object_fill is not None)
    assert json.loads(hub.files["image_encoder/config.json"]).get("object_fill") == object_fill


@pytest.mark.parametrize("object_fill", [0.0, 1.5])
def test_an_impossible_fill_is_refused(model: Path, object_fill: float) -> None:
    settings = model / "image_tower" / "image_tower.json"
    small = json.loads(settings.read_text())["small"] | {"object_fill": object_fill}
    settings.write_text(json.dumps({"small": small}))
    with pytest.raises(UserError, match=r"image_tower\.json: .*object_fill is"):
        load_model(model, CPU)


def test_a_card_without_its_data_says_so(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "stage": 1,
        "seed": 0,
        "base": None,
        "data": {"url": str(tmp_path / "gone"), "objects": 5, "sha256": "00"},
        "recipe": {"name": "tiny", "stage1": {"steps": 6, "peak_lr": 1e-4}},
    }
    (model / "config.json").write_text(json.dumps(config))
    hub = _Hub()
    push(PushArgs(model, "someone/model", private=False), hub)
    assert hub.created == [("someone/model", False, True)]
    card = hub.files["README.md"].decode()
    assert "could not be read" in card
    assert "Stage 1, preset `tiny`, seed 0, from scratch" in card
    assert "stage 2" not in card
    both = {**config, "stage": 2, "recipe": {**config["recipe"], "stage2": {"steps": 3}}}
    (model / "config.json").write_text(json.dumps(both))
    push(PushArgs(model, "someone/model"), hub)
    card = hub.files["README.md"].decode()
    assert "Stage 1 and 2, preset `tiny`" in card
    assert "| steps | 6 |" in card
    assert "| steps | 3 |" in card
    assert "; the card does not list licenses" in capsys.readouterr().err


def test_push_says_what_the_hub_said_and_wants_a_token(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="403 Forbidden"):
        push(PushArgs(model, "someone/model"), _Hub(fails=True))
    with pytest.raises(UserError, match="OWNER/NAME"):
        push(PushArgs(model, "model"), _Hub())
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        hub_api()


# the ablation: a channel-concatenated reference


def test_the_shape_of_a_unet_is_the_one_it_was_built_from(model: Path) -> None:
    from tests.support.train_micro import MICRO

    assert shape_of(load_unet(model / "unet")) == MICRO.unet
    assert read_parts(model).image_encoder is not None


def test_write_diffusers_is_complete_before_its_spec(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(spec: Any, folder: Path) -> None:
        assert (folder / "model_index.json").is_file()
        raise OSError("disk full")

    monkeypatch.setattr("train.export.write_spec", broken)
    with pytest.raises(OSError, match="disk full"):
        export(ExportArgs(model, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
