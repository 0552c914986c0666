"""The CLIP image encoder, which maps an image to one embedding: ViT-H-14 in the paper, or a small ViT trained here.

The embedding is the projected output, not normalized, as in the released model.

The folder of an image encoder contains `image_tower.json` and the weights in `model.safetensors`. If the JSON names
pretrained weights of open_clip, they are downloaded instead.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dataset.errors import UserError
from dataset.images.prepare import WHITE_LEVEL

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)  # open_clip's OPENAI_DATASET_MEAN and _STD
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
SETTINGS_FILE: Final = "image_tower.json"
WEIGHTS_FILE: Final = "model.safetensors"
RESIZE_KEY: Final = "resize"  # stores `ImageEncoder.resize_mode`, unless it is "antialiased"


@dataclass(frozen=True)
class OpenClipEncoder:
    """An open_clip architecture. `pretrained` is an open_clip tag or a file; None: the folder contains the weights."""

    architecture: str = "ViT-H-14"
    pretrained: str | None = "laion2b_s32b_b79k"


@dataclass(frozen=True)
class SmallEncoder:
    """An open_clip VisionTransformer of any size. `image_size` and `patch_size` are in pixels, widths in channels."""

    embed_dim: int
    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int
    object_fill: float | None = None
    """If set, `center_object` is applied to the images first, with this value as `fill`."""

    def __post_init__(self) -> None:
        """Raise ValueError when `object_fill` is not in (0, 1]."""
        if self.object_fill is not None and not 0 < self.object_fill <= 1:
            raise ValueError(f"object_fill is {self.object_fill}; it must be above 0 and at most 1")


ImageEncoderSpec = OpenClipEncoder | SmallEncoder
ResizeMode = Literal["antialiased", "released_isotropic3d"]
"""How images are resized to the input size of the network: by `resize`, or by `released_resize` (released weights)."""


class ImageEncoder(nn.Module):
    """An open_clip `visual` network with CLIP's preprocessing, which runs on the device of the images."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageEncoderSpec, visual: nn.Module, resize_mode: ResizeMode = "antialiased") -> None:
        super().__init__()
        self.spec = spec
        self.visual = visual
        self.resize_mode = resize_mode
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def embed_dim(self) -> int:
        """Channels of the embedding."""
        return int(self.visual.output_dim)  # type: ignore[arg-type]

    @property
    def object_fill(self) -> float | None:
        """`SmallEncoder.object_fill`; None for other encoders."""
        return self.spec.object_fill if isinstance(self.spec, SmallEncoder) else None

    def forward(self, rgb: Tensor) -> Tensor:
        """Embed images [b, 3, h, w] in [0, 1]; return [b, c] in float32."""
        size = _square_size(self.visual)
        released = self.resize_mode == "released_isotropic3d"
        resized = released_resize(rgb.float(), size) if released else resize(rgb.float(), size).clamp(0, 1)
        if self.object_fill is not None:
            resized = center_object(resized, self.object_fill)
        pixels = (resized - self.mean.float()) / self.std.float()
        embedding: Tensor = self.visual(pixels.to(next(self.visual.parameters()).dtype))
        return embedding.float()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images [n, c, h, w] to [n, c, size, size] with antialiased bicubic interpolation.

    All resizing of images in `train` uses this function, except for the image encoder of the released weights.
    """
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)


def released_resize(images: Tensor, size: int) -> Tensor:
    """Resize images [n, c, s, s] to [n, c, size, size] as Isotropic3D's released code does before CLIP.

    This is kornia's bicubic resizing with `align_corners` and `antialias`: images larger than `size` are first blurred
    by a Gaussian whose sigma is (s / size - 1) / 2 pixels. Values are not clamped to [0, 1].
    """
    if images.shape[-2:] == (size, size):
        return images
    if images.shape[-1] > size:
        sigma = (images.shape[-1] / size - 1) / 2
        images = _blur(_blur(images, sigma).transpose(2, 3), sigma).transpose(2, 3)
    return functional.interpolate(images, (size, size), mode="bicubic", align_corners=True)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur the rows of images [n, c, h, w] with a Gaussian, by a sum of shifts: autocast would round a convolution."""
    side, radius = images.shape[-1], int(max(4 * sigma, 3)) // 2
    weights = [math.exp(-(offset**2) / (2 * max(sigma, 0.001) ** 2)) for offset in range(-radius, radius + 1)]
    padded = functional.pad(images, (radius, radius, 0, 0), mode="reflect")
    shifted = [weight * padded[..., start : start + side] for start, weight in enumerate(weights)]
    return torch.stack(shifted).sum(0) / sum(weights)


def center_object(rgb: Tensor, fill: float) -> Tensor:
    """Center and scale the object in images [n, 3, s, s] in [0, 1] on white.

    The bounding box of the non-white pixels is moved to the center and scaled so that its longer side is the fraction
    `fill` of the image's side. Embeddings then do not depend on the object's size and position in the image. White
    images stay white. Does not synchronize with the device; autocast does not change the result.
    """
    object_seen = (1 - rgb).amax(1) > WHITE_LEVEL / 255
    side = rgb.shape[-1]
    at = (torch.arange(side, device=rgb.device) * 2 + 1) / side - 1  # pixel centers in [-1, 1]
    middles, extents = [], []
    for dim in (1, 2):
        line = object_seen.any(dim).to(torch.uint8)  # x, then y
        low, high = line.argmax(1) * 2 / side - 1, 1 - line.flip(1).argmax(1) * 2 / side
        middles.append((low + high) / 2)
        extents.append(high - low)
    scale = torch.maximum(*extents) / (2 * fill)
    x, y = (middle[:, None] + scale[:, None] * at for middle in middles)
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    return 1 - functional.grid_sample(1 - rgb, grid, padding_mode="zeros", align_corners=False)


def build_image_encoder(spec: ImageEncoderSpec) -> ImageEncoder:
    """Build an image encoder with random weights; pretrained weights named in the spec are not downloaded."""
    if isinstance(spec, SmallEncoder):
        return ImageEncoder(spec, _small_visual(spec))
    return ImageEncoder(spec, _named_visual(spec.architecture))


def fetch_image_encoder(spec: OpenClipEncoder) -> ImageEncoder:
    """Load open_clip's pretrained weights, downloading them into its cache at first use.

    Raises:
        UserError: the architecture is unknown, no tag is given, or the weights cannot be loaded or downloaded.
    """
    import open_clip

    _check_architecture(spec.architecture)
    if spec.pretrained is None:
        raise UserError(f"{spec.architecture}: no pretrained weights are named; give one of open_clip's tags")
    try:
        clip = open_clip.create_model(spec.architecture, pretrained=spec.pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"image encoder {spec.architecture}/{spec.pretrained}: open_clip could not load its weights ({error}); "
            "connect to the network once, or put the file into open_clip's cache"
        ) from error
    return ImageEncoder(spec, clip.visual)


def image_encoder_from_state(architecture: str, state: Mapping[str, Tensor], where: str) -> ImageEncoder:
    """Build an image encoder of an open_clip architecture from a state dict, in float32.

    Args:
        architecture: open_clip's name.
        state: Parameters by open_clip's names without `visual.`, each of any shape.
        where: File name for the error message.

    Raises:
        UserError: the state does not match the architecture exactly.
    """
    with torch.device("meta"):
        visual = _named_visual(architecture)
    try:
        visual.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{where}: the image encoder is not a {architecture} ({_first_line(error)}); give its open_clip "
            "architecture with --image-encoder"
        ) from error
    return ImageEncoder(OpenClipEncoder(architecture, None), visual)


def save_image_encoder(image_encoder: ImageEncoder, folder: Path) -> None:
    """Write an image encoder's folder; see the module docstring."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = image_encoder.spec
    kind = "small" if isinstance(spec, SmallEncoder) else "open_clip"
    if isinstance(spec, SmallEncoder) or spec.pretrained is None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in image_encoder.visual.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE)
    settings: dict[str, Any] = {kind: asdict(spec)}
    if image_encoder.resize_mode != "antialiased":
        settings[RESIZE_KEY] = image_encoder.resize_mode
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def load_image_encoder(folder: Path) -> ImageEncoder:
    """Read a folder that `save_image_encoder` wrote, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the weights do not match the settings.
    """
    spec, resize_mode = _read_spec(folder / SETTINGS_FILE)
    if isinstance(spec, OpenClipEncoder) and spec.pretrained is not None:
        image_encoder = fetch_image_encoder(spec).eval()
        image_encoder.resize_mode = resize_mode
        return image_encoder
    image_encoder = build_image_encoder(spec)
    image_encoder.resize_mode = resize_mode
    try:
        image_encoder.visual.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / WEIGHTS_FILE}: not the weights of this image encoder ({_first_line(error)}); train or "
            "convert the model again"
        ) from error
    return image_encoder.eval()


def parse_resize_mode(value: Any) -> ResizeMode:
    """Return a stored value as `ResizeMode`. None means "antialiased": older files do not store the mode.

    Raises ValueError when the value is unknown.
    """
    mode: ResizeMode = "antialiased" if value is None else value
    if mode not in get_args(ResizeMode):
        raise ValueError(f"unknown {RESIZE_KEY} {value!r}")
    return mode


def _read_spec(path: Path) -> tuple[ImageEncoderSpec, ResizeMode]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
        resize_mode = parse_resize_mode(settings.get(RESIZE_KEY))
        if "small" in settings:
            return SmallEncoder(**settings["small"]), resize_mode
        return OpenClipEncoder(**settings["open_clip"]), resize_mode
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: invalid image encoder settings ({error}); train or convert the model again"
        ) from error


def _small_visual(spec: SmallEncoder) -> nn.Module:
    from open_clip.transformer import VisionTransformer

    visual: nn.Module = VisionTransformer(
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        width=spec.width,
        layers=spec.layers,
        heads=spec.width // spec.head_width,
        mlp_ratio=4.0,
        output_dim=spec.embed_dim,
    )
    return visual


def _named_visual(architecture: str) -> nn.Module:
    import open_clip
    from open_clip.model import _build_vision_tower

    _check_architecture(architecture)
    settings = open_clip.get_model_config(architecture)
    visual: nn.Module = _build_vision_tower(
        settings["embed_dim"], settings["vision_cfg"], settings.get("quick_gelu", False)
    )
    return visual


def _check_architecture(architecture: str) -> None:
    import open_clip

    if architecture not in open_clip.list_models():
        raise UserError(f"open_clip has no architecture {architecture!r}; the paper uses ViT-H-14")


def _square_size(visual: nn.Module) -> int:
    size = visual.image_size
    return int(size[0] if isinstance(size, tuple) else size)  # type: ignore[arg-type]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2])[:300]
