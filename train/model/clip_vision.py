"""Read and write image encoders in the format of transformers' `CLIPVisionModelWithProjection`, as diffusers uses it.

The network is the same as open_clip's; only names and layouts of parameters differ. open_clip stores query, key and
value as one matrix and the output projection as a matrix that is multiplied from the right; transformers has three
matrices and a linear layer.

Two settings of the preprocessing are stored in `config.json` but are not part of the network: `object_fill`
(`train.model.image_encoder.center_object`) and `resize` (`ImageEncoder.resize_mode`). Other programs ignore these
settings and must do the preprocessing themselves.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataset.errors import UserError
from train.model.image_encoder import (
    RESIZE_KEY,
    ImageEncoder,
    SmallEncoder,
    empty_image_encoder,
    parse_resize_mode,
)

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
MLP_RATIO: Final = 4
FILL_KEY: Final = "object_fill"  # stores `ImageEncoder.object_fill`; transformers keeps the key but does not use it

_TOP: Final = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelled like this in transformers
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_LAYER: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER_NAME: Final = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of open_clip's `visual` with the names of CLIPVisionModelWithProjection, in float32.

    Args:
        state: Parameters by open_clip's names, each of any shape.

    Raises:
        UserError: A parameter has no counterpart in CLIPVisionModelWithProjection.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _TOP:
            renamed[_TOP[name]] = tensor
        elif name == "proj":
            renamed["visual_projection.weight"] = tensor.T
        elif (match := _LAYER_NAME.fullmatch(name)) and match[2] == "attn.in_proj":
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{_layer(match[1])}.self_attn.{part}_proj.{match[3]}"] = third
        elif match and match[2] in _LAYER:
            renamed[f"{_layer(match[1])}.{_LAYER[match[2]]}.{match[3]}"] = tensor
        else:
            raise UserError(
                f"the image encoder's parameter {name} has no counterpart in transformers' CLIP vision model; use "
                "--format ldm"
            )
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in renamed.items()}


def from_transformers(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return a CLIPVisionModelWithProjection state dict with the names of open_clip's `visual`.

    This is the inverse of `to_transformers`. Unknown parameters are kept, so that `load_state_dict` reports them.

    Args:
        state: Parameters by transformers' names, each of any shape.
        layers: Number of transformer layers.

    Raises:
        KeyError: A parameter is missing.
    """
    left = dict(state)
    left.pop("vision_model.embeddings.position_ids", None)  # older files store the indices 0, 1, 2, ...
    renamed = {ours: left.pop(theirs) for ours, theirs in _TOP.items()}
    renamed["proj"] = left.pop("visual_projection.weight").T.contiguous()
    for layer in range(layers):
        ours, theirs = f"transformer.resblocks.{layer}", _layer(str(layer))
        for end in ("weight", "bias"):
            parts = [left.pop(f"{theirs}.self_attn.{part}_proj.{end}") for part in "qkv"]
            renamed[f"{ours}.attn.in_proj_{end}"] = torch.cat(parts)
            renamed |= {f"{ours}.{a}.{end}": left.pop(f"{theirs}.{b}.{end}") for a, b in _LAYER.items()}
    return renamed | left


def _layer(number: str) -> str:
    return f"vision_model.encoder.layers.{number}"


def save_clip_vision(image_encoder: ImageEncoder, folder: Path) -> None:
    """Write an image encoder in float32 to a folder that `CLIPVisionModelWithProjection.from_pretrained` can load.

    Raises:
        UserError: The image encoder is not a CLIP ViT with class token and exact GELU.
    """
    config = _config(image_encoder.visual)
    if image_encoder.object_fill is not None:
        config[FILL_KEY] = image_encoder.object_fill
    if image_encoder.resize_mode != "antialiased":
        config[RESIZE_KEY] = image_encoder.resize_mode
    folder.mkdir(parents=True, exist_ok=True)
    save_file(to_transformers(image_encoder.visual.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def _config(visual: nn.Module) -> dict[str, Any]:
    """Return transformers' configuration of an open_clip VisionTransformer.

    Raises UserError unless the network has class-token pooling and exact GELU.
    """
    image_encoder: Any = visual
    block = image_encoder.transformer.resblocks[0]
    if (
        not isinstance(block.mlp.gelu, nn.GELU)
        or image_encoder.pool_type != "tok"
        or image_encoder.attn_pool is not None
    ):
        raise UserError(
            "the image encoder cannot be exported with --format diffusers, because it is not a CLIP ViT with class "
            "token and exact GELU; use --format ldm"
        )
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "hidden_size": image_encoder.conv1.out_channels,
        "image_size": image_encoder.image_size[0],
        "intermediate_size": block.mlp.c_fc.out_features,
        "layer_norm_eps": image_encoder.ln_post.eps,
        "num_attention_heads": block.attn.num_heads,
        "num_channels": 3,
        "num_hidden_layers": len(image_encoder.transformer.resblocks),
        "patch_size": image_encoder.conv1.kernel_size[0],
        "projection_dim": image_encoder.output_dim,
        "torch_dtype": "float32",
    }


def load_clip_vision(folder: Path) -> ImageEncoder:
    """Load an image encoder from a folder of a CLIPVisionModelWithProjection, and put it in evaluation mode.

    Raises:
        UserError: A file is missing or damaged, the network is not a ViT with exact GELU and the usual MLP ratio, or
            the weights do not match config.json.
    """
    path = folder / CONFIG_FILE
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
        spec = SmallEncoder(
            embed_dim=int(config["projection_dim"]),
            image_size=int(config["image_size"]),
            patch_size=int(config["patch_size"]),
            width=width,
            layers=layers,
            head_width=width // int(config["num_attention_heads"]),
            object_fill=None if (fill := config.get(FILL_KEY)) is None else float(fill),
        )
        resize_mode = parse_resize_mode(config.get(RESIZE_KEY))
        plain = config["hidden_act"] == "gelu" and int(config["intermediate_size"]) == MLP_RATIO * width
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"{path}: cannot be read as the settings of a CLIP image encoder ({error}); export the model again"
        ) from error
    if not plain:
        raise UserError(
            f"{path}: the image encoder is not a ViT with exact GELU and MLP ratio {MLP_RATIO}; give a model with such "
            "an image encoder, for example ViT-H-14"
        )
    image_encoder = empty_image_encoder(spec)
    image_encoder.resize_mode = resize_mode
    try:
        image_encoder.visual.load_state_dict(from_transformers(load_file(folder / WEIGHTS_FILE), layers))
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder / WEIGHTS_FILE}: the weights do not match {CONFIG_FILE} ({reason}); export the model again"
        ) from error
    return image_encoder.eval()
