"""The image encoder under the names of transformers: computation, shapes, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dataset.errors import UserError
from tests.support.tensors import assert_same_tensors
from train.model.clip_vision import from_transformers, load_clip_vision, save_clip_vision, to_transformers
from train.model.image_encoder import OpenClipEncoder, SmallEncoder, build_image_encoder


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
    assert_same_tensors(again.visual.state_dict(), image_encoder.visual.state_dict())


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
