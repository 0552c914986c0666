"""LDM checkpoints in every wrapping, at full size on the meta device, and everything that is no checkpoint."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dataset.errors import UserError
from tests.support.ldm_files import (
    GOLDEN,
    TINY_IMAGE_ENCODER,
    image_encoder_state,
    register_tiny_image_encoder,
    release,
    vae_state,
)
from train.convert.__main__ import parse
from train.convert.checkpoint_file import read_checkpoint
from train.convert.convert import ConvertArgs, convert
from train.convert.key_names import IMAGE_ENCODER_PREFIX, VAE_PREFIX, ldm_unet_state
from train.convert.ldm_parts import find_unet, rename_unet, unet_shape
from train.model.image_encoder import load_image_encoder
from train.model.multiview import load_vae, read_spec
from train.model.unet import build_unet, load_unet, run_unet


@pytest.fixture(autouse=True)
def _tiny_image_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_image_encoder(monkeypatch)


@pytest.fixture(scope="module")
def bare() -> dict[str, Tensor]:
    return find_unet(load_file(GOLDEN), "golden")


def test_command_on_the_golden_file_writes_a_unet_that_reproduces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(ConvertArgs(GOLDEN, tmp_path / "out", head_width=16))
    unet = load_unet(tmp_path / "out" / "unet").eval()
    golden = load_file(GOLDEN)
    with torch.no_grad():
        output = run_unet(
            unet,
            golden["case2.sample"],
            golden["case2.timestep"],
            golden["case2.camera"],
            golden["case2.context"],
            num_frames=5,
        )
    torch.testing.assert_close(output, golden["case2.output"], rtol=0, atol=1e-4)
    assert read_spec(tmp_path / "out").cameras == "relative"
    assert "camera labels: relative" in capsys.readouterr().err
    assert not (tmp_path / "out" / "vae").exists()


@pytest.mark.parametrize("prefix", ["", "weights.", "model.diffusion_model."])
@pytest.mark.parametrize("wrap", ["flat.pt", "nested.ckpt", "flat.safetensors"])
def test_every_wrapping_gives_the_same_unet(bare: dict[str, Tensor], tmp_path: Path, prefix: str, wrap: str) -> None:
    state = {prefix + name: tensor for name, tensor in bare.items()}
    path = tmp_path / wrap
    if wrap.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if wrap.startswith("nested") else state, path)
    found = find_unet(read_checkpoint(path), "test")
    assert found.keys() == bare.keys()
    assert all(torch.equal(found[name], bare[name]) for name in bare)


def test_camera_mlp_becomes_the_class_embedding(bare: dict[str, Tensor]) -> None:
    renamed = rename_unet(bare, unet_shape(bare, 16, 16, "test"))
    for layer, ldm in (("linear_1", "0"), ("linear_2", "2")):
        for part in ("weight", "bias"):
            assert torch.equal(renamed[f"class_embedding.{layer}.{part}"], bare[f"camera_embed.{ldm}.{part}"])


def test_full_size_mvdream_maps_all_690_keys() -> None:
    """Stable Diffusion 2.1's widths, shapes only."""
    state = _Names(320, (1, 2, 4, 4), 1024).state
    assert len(state) == 690
    shape = unet_shape(state, 64, 32, "test")
    assert (shape.widths, shape.token_width, shape.blocks_per_level) == ((320, 640, 1280, 1280), 1024, 2)
    assert shape.attention == (True, True, True, False)
    renamed = rename_unet(state, shape)
    with torch.device("meta"):
        unet: Any = build_unet(shape)
    expected = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    assert {name: tensor.shape for name, tensor in renamed.items()} == expected
    assert tuple(unet.config.attention_head_dim) == (5, 10, 20, 20)
    assert sum(tensor.numel() for tensor in renamed.values()) == pytest.approx(867.6e6, rel=1e-4)


class _Names:
    """MVDream's UNet written out as its openaimodel.py lays it out, tensors on the meta device."""

    def __init__(self, base: int, mult: tuple[int, ...], context: int) -> None:
        self.base, self.context = base, context
        self.widths = [base * m for m in mult]
        self.state: dict[str, Tensor] = {}
        for embed, numbers in (("time_embed", base), ("camera_embed", 16)):
            self.add(f"{embed}.0", 4 * base, numbers)
            self.add(f"{embed}.2", 4 * base, 4 * base)
        skips = self.inputs()
        self.resblock("middle_block.0", self.widths[-1], self.widths[-1])
        self.transformer("middle_block.1", self.widths[-1])
        self.resblock("middle_block.2", self.widths[-1], self.widths[-1])
        self.outputs(skips)
        self.add("out.0", base)
        self.add("out.2", 4, base, 3, 3)

    def add(self, name: str, *shape: int, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = torch.empty(shape, device="meta")
        if bias:
            self.state[f"{name}.bias"] = torch.empty(shape[0], device="meta")

    def resblock(self, name: str, before: int, after: int) -> None:
        self.add(f"{name}.in_layers.0", before)
        self.add(f"{name}.in_layers.2", after, before, 3, 3)
        self.add(f"{name}.emb_layers.1", after, 4 * self.base)
        self.add(f"{name}.out_layers.0", after)
        self.add(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            self.add(f"{name}.skip_connection", after, before, 1, 1)

    def transformer(self, name: str, width: int) -> None:
        block = f"{name}.transformer_blocks.0"
        self.add(f"{name}.norm", width)
        self.add(f"{name}.proj_in", width, width)
        self.add(f"{name}.proj_out", width, width)
        for attn, keys in (("attn1", width), ("attn2", self.context)):
            self.add(f"{block}.{attn}.to_q", width, width, bias=False)
            self.add(f"{block}.{attn}.to_k", width, keys, bias=False)
            self.add(f"{block}.{attn}.to_v", width, keys, bias=False)
            self.add(f"{block}.{attn}.to_out.0", width, width)
        self.add(f"{block}.ff.net.0.proj", 8 * width, width)
        self.add(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            self.add(f"{block}.{norm}", width)

    def inputs(self) -> list[int]:
        self.add("input_blocks.0.0", self.base, 4, 3, 3)
        skips, index, current, last = [self.base], 1, self.base, len(self.widths) - 1
        for level, width in enumerate(self.widths):
            for _ in range(2):
                self.resblock(f"input_blocks.{index}.0", current, width)
                if level != last:
                    self.transformer(f"input_blocks.{index}.1", width)
                current, index = width, index + 1
                skips.append(width)
            if level != last:
                self.add(f"input_blocks.{index}.0.op", width, width, 3, 3)
                skips.append(width)
                index += 1
        return skips

    def outputs(self, skips: list[int]) -> None:
        current, last = self.widths[-1], len(self.widths) - 1
        for index in range(3 * len(self.widths)):
            level = last - index // 3
            self.resblock(f"output_blocks.{index}.0", current + skips.pop(), self.widths[level])
            current = self.widths[level]
            if level != last:
                self.transformer(f"output_blocks.{index}.1", current)
            if index % 3 == 2 and level:
                self.add(f"output_blocks.{index}.{1 if level == last else 2}.conv", current, current, 3, 3)


def test_a_release_with_first_stage_and_image_encoder_becomes_a_whole_folder(
    bare: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in bare.items()}
    state |= vae_state() | image_encoder_state() | {"scale_factor": torch.tensor(0.5)}
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "isotropic3d.ckpt")
    out = tmp_path / "out"
    convert(
        ConvertArgs(tmp_path / "isotropic3d.ckpt", out, head_width=16, image_tower=TINY_IMAGE_ENCODER, image_size=32)
    )
    spec = read_spec(out)
    assert (spec.cameras, spec.latent_size, spec.latent_scale) == ("released_isotropic3d", 16, 0.5)
    assert "released_isotropic3d" in capsys.readouterr().err
    vae: Any = load_vae(out / "vae")
    assert tuple(vae.config.block_out_channels) == (32, 64)
    assert torch.equal(vae.encoder.conv_in.weight, state[f"{VAE_PREFIX}encoder.conv_in.weight"])
    attention = vae.decoder.mid_block.attentions[0]
    assert torch.equal(attention.to_v.weight, state[f"{VAE_PREFIX}decoder.mid.attn_1.v.weight"][:, :, 0, 0])
    image_encoder: Any = load_image_encoder(out / "image_tower")
    assert image_encoder.resize_mode == "released_isotropic3d"
    assert torch.equal(image_encoder.visual.conv1.weight, state[f"{IMAGE_ENCODER_PREFIX}conv1.weight"])


def test_a_image_encoder_of_another_architecture_is_refused(bare: dict[str, Tensor], tmp_path: Path) -> None:
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in bare.items()}
    state[IMAGE_ENCODER_PREFIX + "conv1.weight"] = torch.zeros(8, 3, 4, 4)
    torch.save(state, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="not a tiny-24"):
        convert(ConvertArgs(tmp_path / "x.ckpt", tmp_path / "out", head_width=16, image_tower=TINY_IMAGE_ENCODER))


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("this code must not run",))


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "callback": _Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(_Evil(), protocol=2))
    for name in ("evil.ckpt", "old.ckpt"):
        with pytest.raises(UserError, match=name):
            read_checkpoint(tmp_path / name)
    assert "must not run" not in capsys.readouterr().out
    with pytest.raises(UserError, match="could run code"):
        read_checkpoint(tmp_path / "evil.ckpt")


@pytest.mark.parametrize("name", ["half.ckpt", "half.safetensors", "page.ckpt", "page.safetensors", "empty.pt"])
def test_truncated_and_foreign_files_are_named(bare: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("half"):
        save_file(bare, path) if name.endswith("safetensors") else torch.save(bare, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text("<html>404</html>" if name.startswith("page") else "")
    with pytest.raises(UserError, match=name):
        read_checkpoint(path)


def test_checkpoints_without_the_right_unet_are_refused(bare: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="no UNet"):
        find_unet({"a.weight": torch.zeros(1)}, "x")
    without = {name: tensor for name, tensor in bare.items() if not name.startswith("camera_embed")}
    with pytest.raises(UserError, match="camera_embed"):
        unet_shape(without, 16, 16, "x")
    with pytest.raises(UserError, match="not divisible by the head width 64"):
        convert(ConvertArgs(GOLDEN, tmp_path / "out"))
    holed = {f"model.diffusion_model.{n}": t for n, t in bare.items() if n != "middle_block.0.in_layers.2.weight"}
    save_file(holed, tmp_path / "holed.safetensors")
    with pytest.raises(UserError, match=r"missing middle_block\.0\.in_layers\.2\.weight"):
        convert(ConvertArgs(tmp_path / "holed.safetensors", tmp_path / "out", head_width=16))
    extra = {f"model.diffusion_model.{n}": t for n, t in bare.items()}
    extra["model.diffusion_model.out.9.weight"] = torch.zeros(1)
    save_file(extra, tmp_path / "extra.safetensors")
    with pytest.raises(UserError, match=r"unexpected out\.9\.weight"):
        convert(ConvertArgs(tmp_path / "extra.safetensors", tmp_path / "out", head_width=16))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="training run"):
        convert(ConvertArgs(GOLDEN, tmp_path / "run", head_width=16))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"encoder.norm_out.weight": None}, r"first stage .*missing first_stage_model\.encoder\.norm_out\.weight"),
        ({"encoder.extra": (1,)}, r"first stage .*unexpected first_stage_model\.encoder\.extra"),
        ({"encoder.conv_in.bias": (7,)}, r"first_stage_model\.encoder\.conv_in\.bias is \[7\], not \[32\]"),
        ({"decoder.mid.attn_1.q.weight": (64, 64)}, r"attn_1\.q\.weight is \[64, 64\], not \[64, 64, 1, 1\]"),
    ],
)
def test_the_first_keys_that_do_not_fit_are_named(
    tmp_path: Path, changed: dict[str, tuple[int, ...] | None], told: str
) -> None:
    state = release()
    for name, shape in changed.items():
        if shape is None:
            del state[VAE_PREFIX + name]
        else:
            state[VAE_PREFIX + name] = torch.zeros(shape)
    torch.save(state, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=told):
        convert(ConvertArgs(tmp_path / "x.ckpt", tmp_path / "out", head_width=16, image_tower=TINY_IMAGE_ENCODER))


def test_many_wrong_keys_are_counted_and_the_first_named(bare: dict[str, Tensor], tmp_path: Path) -> None:
    state = {f"model.diffusion_model.{n}": t for n, t in bare.items() if not n.startswith("output_blocks.11.")}
    torch.save(state | {"model.diffusion_model.out.2.weight": torch.zeros(9, 32, 3, 3)}, tmp_path / "x.pt")
    with pytest.raises(UserError) as raised:
        convert(ConvertArgs(tmp_path / "x.pt", tmp_path / "out", head_width=16))
    message = str(raised.value)
    assert message.count("output_blocks.11.") == 3
    assert "(and " in message
    assert "out.2.weight is [9, 32, 3, 3], not [4, 32, 3, 3]" in message
    assert "seems to be an MVDream-like checkpoint" in message


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight", "up_blocks.0.x"], "a diffusers UNet"),
        (["unet.down.lora_up.weight"], "a LoRA"),
        (["visual.transformer.resblocks.0.ln_1.weight"], r"only a CLIP model \(open_clip"),
        (["vision_model.post_layernorm.weight"], r"only a CLIP model \(transformers"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "only a VAE"),
        (["exp_avg.conv_in.weight", "step.conv_in.weight"], "a checkpoint of a training run of this project"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "a Stable Diffusion checkpoint"),
        (["cc_projection.weight", "model.diffusion_model.input_blocks.0.0.weight"], "Zero123"),
        (["b.weight", "a.weight"], r"of an unknown kind \(its first keys: a\.weight, b\.weight\)"),
        ([], r"empty \(it contains no tensors\)"),
    ],
)
def test_a_wrong_file_is_told_what_it_seems_to_be(tmp_path: Path, keys: list[str], kind: str) -> None:
    torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "wrong.ckpt")
    with pytest.raises(UserError, match=rf"wrong\.ckpt.*seems to be {kind}"):
        convert(ConvertArgs(tmp_path / "wrong.ckpt", tmp_path / "out"))


def test_the_way_back_to_mvdreams_names_at_full_size() -> None:
    """Against diffusers' own converter, 690 keys: there and back is where it began."""
    state = _Names(320, (1, 2, 4, 4), 1024).state
    shape = unet_shape(state, 64, 32, "test")
    back = ldm_unet_state(rename_unet(state, shape), shape)
    assert back.keys() == state.keys()
    assert all(back[name] is state[name] for name in state)


def test_the_old_name_of_image_encoder_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["a.ckpt", "out", "--image-tower", "ViT-B-32"]).image_tower == "ViT-B-32"
    assert "--image-tower is now --image-encoder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert "--image-encoder" in shown
    assert "--image-tower" not in shown
