"""The image encoder, which maps an image to one embedding: ViT-H-14 in the paper, or a small network trained here.

The embedding is the projected output of the network, not normalized, as in the released Isotropic3D model.

The folder of an image encoder contains the settings in `image_tower.json` and the weights in `model.safetensors`. If
the settings name pretrained weights of open_clip, the folder contains no weights. open_clip then downloads the weights.
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
from train.model.color_grid import color_grid
from train.model.timm_encoder import TimmEncoder, TimmVisual

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)  # open_clip's OPENAI_DATASET_MEAN and _STD
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
SETTINGS_FILE: Final = "image_tower.json"
WEIGHTS_FILE: Final = "model.safetensors"
RESIZE_KEY: Final = "resize"  # stores `ImageEncoder.resize_mode`, unless it is "antialiased"


@dataclass(frozen=True)
class OpenClipEncoder:
    """Settings of an image encoder with an architecture of open_clip.

    `pretrained` is open_clip's tag of pretrained weights, or the path of a file with weights. None: the folder of the
    image encoder contains the weights.
    """

    architecture: str = "ViT-H-14"
    pretrained: str | None = "laion2b_s32b_b79k"


@dataclass(frozen=True)
class SmallEncoder:
    """Settings of an image encoder that is an open_clip VisionTransformer of any size.

    `image_size` and `patch_size` are in pixels, `embed_dim`, `width` and `head_width` in channels.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int
    object_fill: float | None = None
    """If set, `center_object` is applied to the images first, with this value as `fill`."""

    def __post_init__(self) -> None:
        """Raise ValueError unless `object_fill` is None, or above 0 and at most 1."""
        if self.object_fill is not None and not 0 < self.object_fill <= 1:
            raise ValueError(f"object_fill is {self.object_fill}; it must be above 0 and at most 1")


TrainedEncoder = SmallEncoder | TimmEncoder
"""Settings of an image encoder that `train.components.image_encoder` trains."""
ImageEncoderSpec = OpenClipEncoder | TrainedEncoder
ResizeMode = Literal["antialiased", "released_isotropic3d"]
"""How images are resized to the input size of the network: by `resize`, or by `released_resize` (released weights)."""


class ImageEncoder(nn.Module):
    """The network `visual` of open_clip or timm with its preprocessing, which runs on the device of the images."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageEncoderSpec, visual: nn.Module, resize_mode: ResizeMode = "antialiased") -> None:
        super().__init__()
        self.spec = spec
        self.visual = visual
        self.resize_mode = resize_mode
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        if isinstance(visual, TimmVisual):
            mean, std = visual.mean_and_std()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def embed_dim(self) -> int:
        """Number of channels of an embedding."""
        return int(self.visual.output_dim) + self.num_colors  # type: ignore[arg-type]

    @property
    def object_fill(self) -> float | None:
        """Fraction of the image's side to which objects are scaled (`center_object`); None: images are not changed."""
        return None if isinstance(self.spec, OpenClipEncoder) else self.spec.object_fill

    @property
    def num_colors(self) -> int:
        """Number of the last channels of the embedding that are colors; 0 without a color grid."""
        return self.spec.num_colors if isinstance(self.spec, TimmEncoder) else 0

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the float32 embeddings [b, c] of images [b, 3, h, w] in [0, 1] on white."""
        centered = self._centered(rgb, _square_size(self.visual))
        pixels = self._normalized(centered).to(next(self.visual.parameters()).dtype)
        embedding: Tensor = self.visual(pixels).float()
        if not isinstance(self.spec, TimmEncoder) or self.spec.color_grid is None:
            return embedding
        return torch.cat([embedding, color_grid(centered, self.spec.color_grid)], 1)

    def preprocess(self, rgb: Tensor, size: int) -> Tensor:
        """Return images [b, 3, h, w] in [0, 1] on white, resized, centered and normalized: float32 [b, 3, size, size].

        The images are centered only if `object_fill` is set.
        """
        return self._normalized(self._centered(rgb, size))

    def _normalized(self, centered: Tensor) -> Tensor:
        return (centered - self.mean.float()) / self.std.float()

    def _centered(self, rgb: Tensor, size: int) -> Tensor:
        released = self.resize_mode == "released_isotropic3d"
        resized = released_resize(rgb.float(), size) if released else resize(rgb.float(), size).clamp(0, 1)
        if self.object_fill is not None:
            resized = center_object(resized, self.object_fill)
        return resized


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images [n, c, h, w] to [n, c, size, size] with antialiased bicubic interpolation.

    The package `train` resizes images with this function everywhere except in the image encoder of the released weights
    (`released_resize`). Values are not clamped to [0, 1].
    """
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)


def released_resize(images: Tensor, size: int) -> Tensor:
    """Resize images [n, c, s, s] to [n, c, size, size] as Isotropic3D's released code does before CLIP.

    This is kornia's bicubic resizing with `align_corners` and `antialias`: images larger than `size` pixels are first
    blurred by a Gaussian whose sigma is (s / size - 1) / 2 pixels. Values are not clamped to [0, 1].
    """
    if images.shape[-2:] == (size, size):
        return images
    if images.shape[-1] > size:
        sigma = (images.shape[-1] / size - 1) / 2
        images = _blur(_blur(images, sigma).transpose(2, 3), sigma).transpose(2, 3)
    return functional.interpolate(images, (size, size), mode="bicubic", align_corners=True)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur the rows of images [n, c, h, w] with a Gaussian whose standard deviation is `sigma` pixels.

    The images are shifted and summed, because autocast would round a convolution to bf16.
    """
    side, radius = images.shape[-1], int(max(4 * sigma, 3)) // 2
    weights = [math.exp(-(offset**2) / (2 * max(sigma, 0.001) ** 2)) for offset in range(-radius, radius + 1)]
    padded = functional.pad(images, (radius, radius, 0, 0), mode="reflect")
    shifted = [weight * padded[..., start : start + side] for start, weight in enumerate(weights)]
    return torch.stack(shifted).sum(0) / sum(weights)


def center_object(rgb: Tensor, fill: float) -> Tensor:
    """Center and scale the object in images [n, 3, s, s] in [0, 1] on white.

    The bounding box of the non-white pixels is moved to the center and scaled so that its longer side is `fill` (0 to
    1) times the side of the image. Embeddings then do not depend on the object's size and position in the image. White
    images stay white. The host does not wait for the device, and autocast does not change the result.
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
    """Build an image encoder with random weights. Pretrained weights that `spec` names are not loaded."""
    if isinstance(spec, SmallEncoder):
        return ImageEncoder(spec, _small_visual(spec))
    if isinstance(spec, TimmEncoder):
        return ImageEncoder(spec, TimmVisual(spec))
    return ImageEncoder(spec, _named_visual(spec.architecture))


def empty_image_encoder(spec: ImageEncoderSpec) -> ImageEncoder:
    """Build an image encoder whose weights the caller must load with `visual.load_state_dict`.

    The weights of an open_clip network are not initialized, which saves seconds for large networks.
    """
    if isinstance(spec, TimmEncoder):  # timm networks can have buffers that are computed and not saved
        return build_image_encoder(spec)
    from open_clip.transformer import VisionTransformer

    with torch.device("meta"):
        visual = _small_visual(spec) if isinstance(spec, SmallEncoder) else _named_visual(spec.architecture)
    if not isinstance(visual, VisionTransformer):
        return build_image_encoder(spec)
    return ImageEncoder(spec, visual.to_empty(device="cpu"))


def fetch_image_encoder(spec: OpenClipEncoder) -> ImageEncoder:
    """Return an image encoder with pretrained weights of open_clip, which are downloaded into a cache at first use.

    Raises:
        UserError: open_clip does not know the architecture, `spec.pretrained` is None, or the weights cannot be loaded
            or downloaded.
    """
    import open_clip

    _check_architecture(spec.architecture)
    if spec.pretrained is None:
        raise UserError(
            f"the settings of the image encoder {spec.architecture} name no pretrained weights; set `pretrained` to "
            "one of open_clip's tags, such as laion2b_s32b_b79k"
        )
    try:
        clip = open_clip.create_model(spec.architecture, pretrained=spec.pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"image encoder {spec.architecture}/{spec.pretrained}: open_clip could not load the pretrained weights "
            f"({error}); connect to the network once, or put the file of the weights into open_clip's cache"
        ) from error
    return ImageEncoder(spec, clip.visual)


def image_encoder_from_state(architecture: str, state: Mapping[str, Tensor], where: str) -> ImageEncoder:
    """Build an image encoder of an open_clip architecture from a state dict, in float32.

    Args:
        architecture: open_clip's name of the architecture, such as ViT-H-14.
        state: Parameters by open_clip's names without the prefix `visual.`, each of any shape.
        where: Path of the file with the parameters, for the error message.

    Raises:
        UserError: The parameters are not exactly those of the architecture.
    """
    with torch.device("meta"):
        visual = _named_visual(architecture)
    try:
        visual.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{where}: the image encoder is not a {architecture} ({_first_line(error)}); give the open_clip "
            "architecture of the image encoder with --image-encoder"
        ) from error
    return ImageEncoder(OpenClipEncoder(architecture, None), visual)


def save_image_encoder(image_encoder: ImageEncoder, folder: Path) -> None:
    """Write the settings of an image encoder and, unless they can be downloaded, its weights into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = image_encoder.spec
    kind = {SmallEncoder: "small", TimmEncoder: "timm", OpenClipEncoder: "open_clip"}[type(spec)]
    if not isinstance(spec, OpenClipEncoder) or spec.pretrained is None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in image_encoder.visual.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE)
    settings: dict[str, Any] = {kind: asdict(spec)}
    if image_encoder.resize_mode != "antialiased":
        settings[RESIZE_KEY] = image_encoder.resize_mode
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def load_image_encoder(folder: Path) -> ImageEncoder:
    """Load the image encoder in a folder that `save_image_encoder` wrote, and put it in evaluation mode.

    Raises:
        UserError: A file is missing or damaged, or the weights do not match the settings.
    """
    spec, resize_mode = _read_spec(folder / SETTINGS_FILE)
    if isinstance(spec, OpenClipEncoder) and spec.pretrained is not None:
        image_encoder = fetch_image_encoder(spec).eval()
        image_encoder.resize_mode = resize_mode
        return image_encoder
    image_encoder = empty_image_encoder(spec)
    image_encoder.resize_mode = resize_mode
    try:
        image_encoder.visual.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / WEIGHTS_FILE}: not the weights of the image encoder that {SETTINGS_FILE} describes "
            f"({_first_line(error)}); train or convert the model again"
        ) from error
    return image_encoder.eval()


def parse_resize_mode(value: Any) -> ResizeMode:
    """Return the resize mode that is stored in a settings file; None, in older files, means "antialiased".

    Raises ValueError when `value` is not a resize mode.
    """
    mode: ResizeMode = "antialiased" if value is None else value
    if mode not in get_args(ResizeMode):
        raise ValueError(f"unknown {RESIZE_KEY} {value!r}, not one of {', '.join(get_args(ResizeMode))}")
    return mode


def _read_spec(path: Path) -> tuple[ImageEncoderSpec, ResizeMode]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
        resize_mode = parse_resize_mode(settings.get(RESIZE_KEY))
        if "small" in settings:
            return SmallEncoder(**settings["small"]), resize_mode
        if "timm" in settings:
            return TimmEncoder(**settings["timm"]), resize_mode
        return OpenClipEncoder(**settings["open_clip"]), resize_mode
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read as the settings of an image encoder ({error}); train or convert the model again"
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
        raise UserError(
            f"open_clip has no architecture {architecture!r} for the image encoder; give a name that "
            "`open_clip.list_models()` returns, such as ViT-H-14"
        )


def _square_size(visual: nn.Module) -> int:
    size = visual.image_size
    return int(size[0] if isinstance(size, tuple) else size)  # type: ignore[arg-type]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2])[:300]
