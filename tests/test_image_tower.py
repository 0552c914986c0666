"""open_clip towers: preprocessing, folders, the contrast, and that training keeps the viewpoint."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn import functional

from dataset.camera import mvdream_camera
from dataset.errors import UserError
from dataset.stream import ShardSet
from tests.make_shards import make_shard_set
from tests.train_micro import CPU, MICRO
from train.feed import load_random_views
from train.image_tower import (
    CLIP_MEAN,
    CLIP_STD,
    NamedTower,
    SmallTower,
    build_tower,
    fetch_tower,
    load_tower,
    resize,
    save_tower,
)
from train.parts import is_trained, optimise, write_part
from train.recipe import TINY, Framing, Schedule
from train.tower_training import ensure_tower, info_nce, other_view_labels, reframe, train_tower

MICRO_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def micro_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "micro-clip.json").write_text(json.dumps(MICRO_CLIP))
    open_clip.add_model_config(folder)
    return "micro-clip"


def test_the_papers_tower_is_vit_h_14() -> None:
    settings = open_clip.get_model_config(NamedTower().architecture)
    assert (settings["embed_dim"], settings["vision_cfg"]["width"]) == (1024, 1280)
    assert NamedTower().pretrained in open_clip.list_pretrained_tags_by_model("ViT-H-14")


@torch.no_grad()
def test_embedding_is_open_clips_on_open_clips_pixels_and_not_normalised(micro_clip: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model(micro_clip)
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    tower = fetch_tower(NamedTower(micro_clip, str(tmp_path / "clip.pt"))).eval()
    assert tower.embed_dim == 24
    rgb = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(tower(rgb), clip.eval().encode_image((rgb - mean) / std), rtol=1e-5, atol=1e-6)
    assert (CLIP_MEAN, CLIP_STD) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert (tower(rgb).norm(dim=1) - 1).abs().max() > 1e-2
    assert tower(torch.rand(2, 3, 100, 60)).shape == (2, 24)


def test_resize_keeps_a_constant_and_means() -> None:
    assert torch.allclose(resize(torch.full((1, 3, 64, 48), 0.3), 16), torch.tensor(0.3))
    picture = torch.rand(1, 1, 64, 64)
    assert float(resize(picture, 8).mean()) == pytest.approx(float(picture.mean()), abs=0.02)
    assert float(resize(picture, 8).std()) < 0.1  # antialiased: white noise averages out
    assert resize(picture, 64) is picture


@torch.no_grad()
def test_small_and_named_towers_round_trip(micro_clip: str, tmp_path: Path) -> None:
    rgb = torch.rand(1, 3, 40, 40)
    for name, spec in (("small", MICRO.tower), ("named", NamedTower(micro_clip, None))):
        tower = build_tower(spec).eval()
        save_tower(tower, tmp_path / name)
        again = load_tower(tmp_path / name)
        assert again.spec == spec
        assert torch.equal(again(rgb), tower(rgb))


def test_what_cannot_be_loaded_is_named(micro_clip: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows no architecture"):
        build_tower(NamedTower("ViT-X-99"))
    with pytest.raises(UserError, match="could not load"):
        fetch_tower(NamedTower(micro_clip, "no_such_tag"))
    save_tower(build_tower(MICRO.tower), tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_tower(tmp_path / "t")


def test_info_nce_against_a_loop_and_twins_do_not_repel() -> None:
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    objects = torch.tensor([0, 1, 2, 1])
    unit_first, unit_second = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    total = 0.0
    for anchors, others in ((unit_first, unit_second), (unit_second, unit_first)):
        for i in range(4):
            rivals = [j for j in range(4) if j == i or objects[j] != objects[i]]
            scores = torch.stack([anchors[i] @ others[j] / 0.1 for j in rivals])
            total -= float(torch.log_softmax(scores, 0)[rivals.index(i)])
    assert float(info_nce(first, second, objects, 0.1)) == pytest.approx(total / 8, rel=1e-4)
    assert float(info_nce(first, first, torch.arange(4), 0.01)) < 1e-3


def test_training_keeps_the_viewpoint(tmp_path: Path) -> None:
    """A linear read-out of the embedding recovers the very view's colours beyond its object's mean."""
    assert TINY.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 8, 32))
    spec = SmallTower(embed_dim=64, image_size=32, patch_size=8, width=64, layers=2, head_width=32)
    schedule = Schedule(steps=80, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=5)
    recipe = replace(TINY.tower_training, thumbnail_size=4, schedule=schedule)
    tower = train_tower(shards, spec, recipe, seed=0, device=CPU)
    with torch.no_grad():
        pictures = load_random_views(shards, 5, 0, objects=8, views=16).pictures
        thumbnails = resize(pictures.flatten(0, 1), 4).flatten(1)
        embeddings = tower(pictures.flatten(0, 1))
        target, features = (
            (rows.view(8, 16, -1) - rows.view(8, 16, -1).mean(1, keepdim=True)).flatten(0, 1)
            for rows in (thumbnails, embeddings)
        )
        ridge = features.T @ features + 1e-3 * len(features) * torch.eye(64)
        fitted = features @ torch.linalg.solve(ridge, features.T @ target)
        explained = 1 - float((target - fitted).square().mean() / target.square().mean())
    assert explained > 0.5


def test_a_tower_can_be_made_to_know_the_other_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It paints the view that another camera sees, better than where it is not told which camera."""
    assert TINY.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 8, 32))
    spec = SmallTower(embed_dim=64, image_size=32, patch_size=8, width=64, layers=2, head_width=32)
    schedule = Schedule(steps=240, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=5)
    recipe = replace(TINY.tower_training, thumbnail_size=8, novel_view_weight=30.0, schedule=schedule)
    shown: list[dict[str, float]] = []

    def optimise_and_remember(name: str, parameters: Any, schedule: Schedule, loss_of_step: Any) -> None:
        def remembered(step: int) -> Any:
            loss, values = loss_of_step(step)
            shown.append(values)
            return loss, values

        optimise(name, parameters, schedule, remembered)

    monkeypatch.setattr("train.tower_training.optimise", optimise_and_remember)
    reached = {}
    for told in (True, False):
        if not told:
            monkeypatch.setattr("train.tower_training.other_view_labels", lambda _, angles: torch.zeros(16, 16))
        shown.clear()
        train_tower(shards, spec, recipe, seed=0, device=CPU, cameras="absolute")
        reached[told] = sum(values["novel view PSNR"] for values in shown[-20:]) / 20
    assert reached[True] > reached[False] + 0.3


def test_a_tower_can_be_trained_on_reframed_pictures(tmp_path: Path) -> None:
    assert isinstance(MICRO.tower, SmallTower)
    assert MICRO.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 4, 16))
    plain, framed = (
        train_tower(shards, MICRO.tower, replace(MICRO.tower_training, framing=framing), seed=0, device=CPU)
        for framing in (None, Framing((0.7, 1.2), 0.1))
    )
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), framed.parameters(), strict=True))
    assert all(torch.isfinite(weight).all() for weight in framed.parameters())


def test_reframed_pictures_keep_white_and_move_the_object_as_asked() -> None:
    square = torch.ones(1, 3, 64, 64)
    square[:, :, 24:40, 24:40] = 0.25
    numbers = torch.Generator().manual_seed(0)
    same = reframe(square, Framing((1.0, 1.0), 0.0), numbers)
    torch.testing.assert_close(same, square, atol=1e-4, rtol=0)
    half = reframe(square, Framing((0.5, 0.5), 0.0), numbers)
    assert float((half < 0.99).float().mean()) == pytest.approx(8 * 8 / 64**2, rel=0.6)
    assert float((1 - half).sum() / (1 - square).sum()) == pytest.approx(0.25, rel=0.01)
    many = reframe(square.repeat(50, 1, 1, 1), Framing((0.5, 1.5), 0.2), numbers)
    assert float(many[:, :, 0, 0].min()) == 1  # white stays white
    darkness = 1 - many.mean((1,))
    rows = torch.arange(64).float()
    middles = torch.stack([darkness.sum(dim) @ rows for dim in (1, 2)], 1) / darkness.sum((1, 2))[:, None]
    assert float((middles - 31.5).abs().max()) < 0.2 * 64 + 0.5
    assert float(middles.std(0).min()) > 4
    assert float((1 - many).max()) == pytest.approx(0.75, abs=0.01)


def test_labels_of_the_other_view_are_of_the_other_view() -> None:
    angles_deg = torch.tensor([[[0.0, 10.0], [20.0, 90.0]], [[5.0, 180.0], [0.0, 0.0]]], dtype=torch.float64)
    absolute = other_view_labels("absolute", angles_deg)
    other = angles_deg.flip(1).flatten(0, 1).numpy()
    assert torch.equal(absolute, torch.from_numpy(mvdream_camera(other[:, 0], other[:, 1])))
    relative = other_view_labels("relative", angles_deg)
    assert torch.allclose(relative[0], torch.from_numpy(mvdream_camera(20.0, 80.0)))
    assert torch.allclose(relative[1], torch.from_numpy(mvdream_camera(-20.0, -80.0)))


def test_parts_are_taken_up_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(MICRO.tower, SmallTower)
    assert MICRO.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 4, 16))
    folder = tmp_path / "image_tower"
    first = ensure_tower(folder, shards, MICRO.tower, MICRO.tower_training, seed=0, device=CPU)
    again = ensure_tower(folder, shards, MICRO.tower, MICRO.tower_training, seed=0, device=CPU)
    assert "trained already" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(UserError, match="other settings"):
        ensure_tower(folder, shards, MICRO.tower, MICRO.tower_training, seed=1, device=CPU)


def test_a_part_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_part(tmp_path / "vae", {"a": 1}, fails)
    assert not is_trained(tmp_path / "vae", {"a": 1})
    write_part(tmp_path / "vae", {"a": 1}, lambda folder: None)
    assert is_trained(tmp_path / "vae", {"a": 1})
    with pytest.raises(UserError, match="other settings"):
        is_trained(tmp_path / "vae", {"a": 2})
