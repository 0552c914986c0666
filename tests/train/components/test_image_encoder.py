"""Training of an image encoder that starts from pretrained weights: augmentation and the feature term."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, MICRO
from train.components.backbone import load_backbone
from train.components.component import optimize
from train.components.drawings import Drawings
from train.components.image_encoder import PretrainedFeatures, ensure_image_encoder, number_kinds, train_image_encoder
from train.components.image_encoder_heads import feature_loss, kind_loss
from train.config.presets import ImageEncoderRecipe
from train.config.schedules import Schedule
from train.data.images import on_white
from train.model.image_encoder import build_image_encoder
from train.model.timm_encoder import TimmEncoder, TimmVisual

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = TimmEncoder("test_efficientnet", embed_dim=32, image_size=32, object_fill=0.75)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    visual = TimmVisual(SPEC)
    torch.save({**visual.trunk.state_dict(), "fc.weight": torch.zeros(2, 1), "fc.bias": torch.zeros(2)}, path)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(make_shard_set(tmp_path_factory.mktemp("set"), 8, 32))


def _recipe(steps: int, **values: Any) -> ImageEncoderRecipe:
    assert MICRO.tower_training is not None
    schedule = Schedule(steps=steps, objects=8, accumulation=1, peak_lr=3e-3, decay="constant", warmup_steps=1)
    return replace(
        MICRO.tower_training, contrast_weight=0.0, pretrained=True, augmented=True, schedule=schedule, **values
    )


def test_the_feature_loss_ignores_mean_and_length() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    centered = features - features.mean(0)
    assert float(feature_loss(3 * centered, features + 7)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(-centered, features)) == pytest.approx(2, abs=1e-6)


def test_the_features_are_those_before_the_training() -> None:
    encoder = build_image_encoder(SPEC)
    visual = encoder.visual
    assert isinstance(visual, TimmVisual)
    features_of, rgb = PretrainedFeatures(encoder, visual), torch.rand(2, 3, 32, 32)
    before = features_of(rgb)
    assert before.shape == (2, visual.num_features)
    with torch.no_grad():
        for parameter in visual.parameters():
            parameter.add_(1)
    encoder.train()
    assert torch.equal(features_of(rgb), before)
    assert not before.requires_grad


@pytest.mark.integration
def test_the_feature_term_falls(shards: ShardSet, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []
    rates: dict[int, float] = {}

    def remember(
        name: str,
        parameters: Any,
        schedule: Schedule,
        loss_of_step: Any,
        *,
        pretrained: Any,
        pretrained_lr_factor: float,
    ) -> None:
        def remembered(step: int) -> Any:
            loss, values = loss_of_step(step)
            shown.append(values["features"])
            return loss, values

        rates.update({id(each): pretrained_lr_factor for each in pretrained} | {id(each): 1.0 for each in parameters})
        optimize(
            name, parameters, schedule, remembered, pretrained=pretrained, pretrained_lr_factor=pretrained_lr_factor
        )

    monkeypatch.setattr("train.components.image_encoder.optimize", remember)
    encoder = train_image_encoder(shards, SPEC, _recipe(40, feature_weight=5.0), seed=0, device=CPU, backbone=weights)
    assert sum(shown[-5:]) < 0.8 * sum(shown[:5])
    assert not encoder.training
    visual = encoder.visual
    assert isinstance(visual, TimmVisual)
    assert {rates[id(each)] for each in visual.trunk.parameters()} == {0.05}
    assert {rates[id(each)] for each in visual.head.parameters()} == {1.0}


def test_batch_norms_keep_their_statistics(shards: ShardSet, weights: Path) -> None:
    encoder = train_image_encoder(shards, SPEC, _recipe(2), seed=0, device=CPU, backbone=weights)
    visual, untrained = encoder.visual, build_image_encoder(SPEC).visual
    assert isinstance(visual, TimmVisual)
    assert isinstance(untrained, TimmVisual)
    load_backbone(untrained, SPEC.architecture, weights)
    before = dict(untrained.trunk.named_buffers())
    torch.testing.assert_close(dict(visual.trunk.named_buffers()), before, atol=0, rtol=0)
    assert any("running_mean" in name for name in before)


def test_without_a_learning_rate_the_pretrained_network_does_not_change(shards: ShardSet, weights: Path) -> None:
    recipe = _recipe(3, feature_weight=1.0, pretrained_lr_factor=0.0)
    encoder = train_image_encoder(shards, SPEC, recipe, seed=0, device=CPU, backbone=weights)
    visual, untrained = encoder.visual, build_image_encoder(SPEC).visual
    assert isinstance(visual, TimmVisual)
    assert isinstance(untrained, TimmVisual)
    load_backbone(untrained, SPEC.architecture, weights)
    torch.testing.assert_close(visual.trunk.state_dict(), untrained.trunk.state_dict(), atol=0, rtol=0)


def test_pretrained_parameters_learn_more_slowly() -> None:
    fresh, slow = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    schedule = Schedule(steps=1, objects=1, accumulation=1, peak_lr=0.1, decay="constant", warmup_steps=0)
    optimize(
        "test", [fresh], schedule, lambda step: ((fresh + slow).sum(), {}), pretrained=[slow], pretrained_lr_factor=0.25
    )
    assert float(1 - slow.detach()[0]) == pytest.approx(float(1 - fresh.detach()[0]) / 4, rel=1e-3)


@pytest.mark.integration
def test_switches_are_stored_unless_off(shards: ShardSet, weights: Path, tmp_path: Path) -> None:
    recipe = _recipe(1, feature_weight=0.5)
    first = ensure_image_encoder(tmp_path / "a", shards, SPEC, recipe, seed=0, device=CPU, backbone=weights)
    stored = json.loads((tmp_path / "a" / "training.json").read_text())["recipe"]
    assert (stored["pretrained"], stored["augmented"], stored["feature_weight"]) == (True, True, 0.5)
    again = ensure_image_encoder(tmp_path / "a", shards, SPEC, recipe, seed=0, device=CPU)  # needs no weights
    torch.testing.assert_close(first.state_dict(), again.state_dict(), atol=0, rtol=0)
    off = replace(recipe, pretrained=False, augmented=False, feature_weight=0.0)
    ensure_image_encoder(tmp_path / "b", shards, MICRO.tower, off, seed=0, device=CPU)  # type: ignore[arg-type]
    stored = json.loads((tmp_path / "b" / "training.json").read_text())["recipe"]
    assert stored.keys().isdisjoint({"pretrained", "augmented", "feature_weight"})


def test_what_cannot_be_pretrained_is_refused(shards: ShardSet) -> None:
    with pytest.raises(ValueError, match="TimmEncoder"):
        train_image_encoder(shards, MICRO.tower, _recipe(1), seed=0, device=CPU)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="feature_weight"):
        train_image_encoder(shards, SPEC, replace(_recipe(1, feature_weight=1.0), pretrained=False), seed=0, device=CPU)


def _places(shards: ShardSet) -> list[tuple[int, int]]:
    return [(shard, sample) for shard, count in enumerate(shards.samples_per_shard) for sample in range(count)]


def test_objects_without_a_kind_do_not_count() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [9.0, -9.0]])
    both = kind_loss(logits, torch.tensor([0, 1, -1]))
    assert float(both) == pytest.approx(float(kind_loss(logits[:2], torch.tensor([0, 1]))))
    assert float(both) < float(kind_loss(logits, torch.tensor([1, 0, -1])))
    assert float(kind_loss(logits, torch.tensor([-1, -1, -1]))) == 0


def test_kinds_come_from_uids_and_labels(shards: ShardSet) -> None:
    uids = [shards.uid(*place) for place in _places(shards)]
    numbers, names = number_kinds(shards, {uids[0]: "mug", uids[3]: "chair", uids[5]: "mug", "elsewhere": "car"})
    assert (numbers.tolist(), names) == ([1, -1, -1, 0, -1, 1, -1, -1], ["chair", "mug"])
    assert number_kinds(shards, {})[1] == []


def test_an_encoder_that_learns_kinds_separates_them(shards: ShardSet, weights: Path) -> None:
    """Two kinds of alternating objects: the kind of a view is a linear function of its embedding."""
    kinds = torch.arange(8) % 2
    places = _places(shards)
    labels = {shards.uid(*place): ("chair", "mug")[i % 2] for i, place in enumerate(places)}

    def error(kind_weight: float) -> float:
        recipe = _recipe(40, kind_weight=kind_weight)
        encoder = train_image_encoder(shards, SPEC, recipe, seed=0, device=CPU, backbone=weights, labels=labels)
        views = torch.stack([on_white(torch.from_numpy(shards.views(*place, ALL_VIEWS[:4]))) for place in places])
        with torch.no_grad():
            embeddings = encoder(views.flatten(0, 1))
        inputs = torch.cat([embeddings, torch.ones(len(embeddings), 1)], 1)
        target = kinds.repeat_interleave(4).float()[:, None] * 2 - 1
        ridge = torch.linalg.solve(inputs.T @ inputs + 0.1 * torch.eye(inputs.shape[1]), inputs.T @ target)
        return float((inputs @ ridge - target).square().mean())

    assert error(5.0) < 0.5 * error(0.0)


def test_drawings_get_the_embeddings_of_their_kind(
    shards: ShardSet, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawings are squares, red for chairs and blue for mugs, and must lie on the side of the renders of their kind."""
    labels = {shards.uid(*place): ("chair", "mug")[i % 2] for i, place in enumerate(_places(shards))}
    squares = torch.zeros(8, 32, 32, 4, dtype=torch.uint8)
    squares[:, 4:28, 4:28, 3] = 255
    squares[::2, ..., 0], squares[1::2, ..., 2] = 200, 200
    drawings = Drawings(squares, ("chair", "mug") * 3 + ("car", "car"))

    def error(drawing_weight: float) -> float:
        recipe = replace(_recipe(40, kind_weight=5.0), drawings=6, drawing_weight=drawing_weight)
        encoder = train_image_encoder(
            shards, SPEC, recipe, seed=0, device=CPU, backbone=weights, labels=labels, drawings=drawings
        )
        views = torch.stack([on_white(torch.from_numpy(shards.views(*p, ALL_VIEWS[:4]))) for p in _places(shards)])
        with torch.no_grad():
            renders, drawn = encoder(views.flatten(0, 1)).view(8, 4, -1).mean(1), encoder(on_white(squares[:2]))
        chair, mug = renders[::2].mean(0), renders[1::2].mean(0)
        axis = (chair - mug) / (chair - mug).norm()
        return float((drawn[1] - drawn[0]) @ axis)  # negative: the red square is on the side of the chairs

    assert error(5.0) < min(error(0.0), 0)
    assert "6 of 8 drawings show kinds of the training objects" in capsys.readouterr().err
    recipe = replace(_recipe(1, kind_weight=1.0), drawings=2, drawing_weight=1.0)
    given = {"seed": 0, "device": CPU, "backbone": weights, "labels": labels}
    ensure_image_encoder(tmp_path / "a", shards, SPEC, recipe, **given, drawings=drawings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="drawings was"):
        ensure_image_encoder(tmp_path / "a", shards, SPEC, recipe, **given)  # type: ignore[arg-type]
    train_image_encoder(shards, SPEC, recipe, **given)  # type: ignore[arg-type]
    assert "trained without labelled drawings" in capsys.readouterr().err
    larger = Drawings(squares.repeat_interleave(2, 1).repeat_interleave(2, 2), drawings.kinds)
    train_image_encoder(shards, SPEC, recipe, **given, drawings=larger)  # type: ignore[arg-type]


def test_without_drawings_the_settings_are_those_of_a_recipe_without_them(
    shards: ShardSet, weights: Path, tmp_path: Path
) -> None:
    recipe = replace(_recipe(1, kind_weight=1.0), drawings=2, drawing_weight=1.0)
    ensure_image_encoder(tmp_path / "a", shards, SPEC, recipe, seed=0, device=CPU, backbone=weights)
    stored = json.loads((tmp_path / "a" / "training.json").read_text())
    assert not {"drawings", "drawing_weight"} & {*stored, *stored["recipe"]}


def test_an_encoder_from_scratch_ignores_the_rate_of_pretrained_weights(shards: ShardSet, tmp_path: Path) -> None:
    recipe = replace(_recipe(1, pretrained_lr_factor=0.0), pretrained=False, augmented=False)
    ensure_image_encoder(tmp_path / "encoder", shards, SPEC, recipe, seed=0, device=CPU)
    stored = json.loads((tmp_path / "encoder" / "training.json").read_text())["recipe"]
    assert "pretrained_lr_factor" not in stored
