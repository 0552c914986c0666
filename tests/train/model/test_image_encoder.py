"""open_clip image encoders: preprocessing, folders, the contrast, and that training keeps the viewpoint."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from dataset.camera import mvdream_camera, spherical_to_c2w
from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, MICRO
from train.components.component import is_trained, optimize, write_part
from train.components.image_encoder import ensure_image_encoder, mirror_half, other_view_labels, train_image_encoder
from train.components.image_encoder_heads import info_nce
from train.config.presets import TINY
from train.config.schedules import Schedule
from train.data.random_views import load_random_views
from train.model.clip_vision import load_clip_vision, save_clip_vision
from train.model.fingerprint import image_encoder_sha256
from train.model.image_encoder import (
    CLIP_MEAN,
    CLIP_STD,
    ImageEncoderSpec,
    OpenClipEncoder,
    SmallEncoder,
    build_image_encoder,
    center_object,
    empty_image_encoder,
    fetch_image_encoder,
    load_image_encoder,
    released_resize,
    resize,
    save_image_encoder,
)

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


def test_the_papers_image_encoder_is_vit_h_14() -> None:
    settings = open_clip.get_model_config(OpenClipEncoder().architecture)
    assert (settings["embed_dim"], settings["vision_cfg"]["width"]) == (1024, 1280)
    assert OpenClipEncoder().pretrained in open_clip.list_pretrained_tags_by_model("ViT-H-14")


@torch.no_grad()
def test_embedding_is_open_clips_on_open_clips_pixels_and_not_normalized(micro_clip: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model(micro_clip)
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    image_encoder = fetch_image_encoder(OpenClipEncoder(micro_clip, str(tmp_path / "clip.pt"))).eval()
    assert image_encoder.embed_dim == 24
    rgb = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(image_encoder(rgb), clip.eval().encode_image((rgb - mean) / std), rtol=1e-5, atol=1e-6)
    assert (CLIP_MEAN, CLIP_STD) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert (image_encoder(rgb).norm(dim=1) - 1).abs().max() > 1e-2
    assert image_encoder(torch.rand(2, 3, 100, 60)).shape == (2, 24)


def test_resize_keeps_a_constant_and_means() -> None:
    assert torch.allclose(resize(torch.full((1, 3, 64, 48), 0.3), 16), torch.tensor(0.3))
    image = torch.rand(1, 1, 64, 64)
    assert float(resize(image, 8).mean()) == pytest.approx(float(image.mean()), abs=0.02)
    assert float(resize(image, 8).std()) < 0.1  # antialiased: white noise averages out
    assert resize(image, 64) is image


@torch.no_grad()
@pytest.mark.parametrize(("side", "sigma", "width"), [(40, 1 / 8, 3), (128, 1.5, 7), (160, 2.0, 9)])
def test_the_releases_resize_blurs_and_samples_the_corners(side: int, sigma: float, width: int) -> None:
    """kornia.geometry.resize(bicubic, align_corners=True, antialias=True): scipy's blur, then torch's bicubic."""
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    smooth = torch.from_numpy(
        gaussian_filter(images.numpy(), sigma, axes=(2, 3), radius=width // 2, mode="mirror").astype(np.float32)
    )
    expected = functional.interpolate(smooth, (32, 32), mode="bicubic", align_corners=True)
    torch.testing.assert_close(released_resize(images, 32), expected, rtol=0, atol=1e-5)
    enlarged = released_resize(images, side + 8)
    torch.testing.assert_close(enlarged[..., 0, 0], images[..., 0, 0])
    torch.testing.assert_close(enlarged[..., -1, -1], images[..., -1, -1])
    assert released_resize(images, side) is images


@torch.no_grad()
def test_the_resize_is_a_property_of_the_folder(tmp_path: Path) -> None:
    encoder = build_image_encoder(MICRO.tower).eval()
    save_image_encoder(encoder, tmp_path / "plain")
    assert "resize" not in json.loads((tmp_path / "plain" / "image_tower.json").read_text())
    encoder.resize_mode = "released_isotropic3d"
    save_image_encoder(encoder, tmp_path / "released")
    save_clip_vision(encoder, tmp_path / "diffusers")
    plain, released = (load_image_encoder(tmp_path / name) for name in ("plain", "released"))
    assert (plain.resize_mode, released.resize_mode) == ("antialiased", "released_isotropic3d")
    assert load_clip_vision(tmp_path / "diffusers").resize_mode == "released_isotropic3d"
    rgb = torch.rand(1, 3, 50, 50)
    pixels = (released_resize(rgb, 32) - released.mean) / released.std  # not clamped
    torch.testing.assert_close(released(rgb), released.visual(pixels))
    assert not torch.allclose(released(rgb), plain(rgb), atol=1e-4)
    assert image_encoder_sha256(plain) != image_encoder_sha256(released)
    settings = json.loads((tmp_path / "released" / "image_tower.json").read_text())
    (tmp_path / "released" / "image_tower.json").write_text(json.dumps({**settings, "resize": "nearest"}))
    with pytest.raises(UserError, match="unknown resize 'nearest'"):
        load_image_encoder(tmp_path / "released")


def test_small_and_named_image_encoders_round_trip(micro_clip: str, tmp_path: Path) -> None:
    rgb = torch.rand(1, 3, 40, 40)
    for name, spec in (("small", MICRO.tower), ("named", OpenClipEncoder(micro_clip, None))):
        image_encoder = build_image_encoder(spec).eval()
        save_image_encoder(image_encoder, tmp_path / name)
        again = load_image_encoder(tmp_path / name)
        assert again.spec == spec
        assert torch.equal(again(rgb), image_encoder(rgb))


@pytest.mark.parametrize("spec", [MICRO.tower, OpenClipEncoder("micro-clip", None), OpenClipEncoder("RN50", None)])
def test_an_empty_image_encoder_has_all_weights_and_buffers(micro_clip: str, spec: ImageEncoderSpec) -> None:
    built, empty = build_image_encoder(spec), empty_image_encoder(spec)
    assert {name: tensor.shape for name, tensor in empty.state_dict().items()} == {
        name: tensor.shape for name, tensor in built.state_dict().items()
    }
    assert not any(tensor.is_meta for tensor in (*empty.parameters(), *empty.buffers()))
    torch.testing.assert_close(empty.mean, built.mean)
    assert empty.visual.state_dict().keys() >= {name for name, _ in empty.visual.named_buffers()}


def test_what_cannot_be_loaded_is_named(micro_clip: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no architecture"):
        build_image_encoder(OpenClipEncoder("ViT-X-99"))
    with pytest.raises(UserError, match="could not load"):
        fetch_image_encoder(OpenClipEncoder(micro_clip, "no_such_tag"))
    save_image_encoder(build_image_encoder(MICRO.tower), tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_image_encoder(tmp_path / "t")


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
    """A linear read-out of the embedding recovers the very view's colors beyond its object's mean."""
    assert TINY.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 8, 32))
    spec = SmallEncoder(embed_dim=64, image_size=32, patch_size=8, width=64, layers=2, head_width=32)
    schedule = Schedule(steps=80, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=5)
    recipe = replace(TINY.tower_training, thumbnail_size=4, schedule=schedule)
    image_encoder = train_image_encoder(shards, spec, recipe, seed=0, device=CPU)
    with torch.no_grad():
        images = load_random_views(shards, 5, 0, objects=8, views=16).images
        thumbnails = resize(images.flatten(0, 1), 4).flatten(1)
        embeddings = image_encoder(images.flatten(0, 1))
        target, features = (
            (rows.view(8, 16, -1) - rows.view(8, 16, -1).mean(1, keepdim=True)).flatten(0, 1)
            for rows in (thumbnails, embeddings)
        )
        ridge = features.T @ features + 1e-3 * len(features) * torch.eye(64)
        fitted = features @ torch.linalg.solve(ridge, features.T @ target)
        explained = 1 - float((target - fitted).square().mean() / target.square().mean())
    assert explained > 0.5


@pytest.mark.integration
def test_a_image_encoder_can_be_made_to_know_the_other_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It paints the view that another camera sees, better than where it is not told which camera."""
    assert TINY.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 8, 32))
    spec = SmallEncoder(embed_dim=64, image_size=32, patch_size=8, width=64, layers=2, head_width=32)
    schedule = Schedule(steps=240, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=5)
    recipe = replace(TINY.tower_training, thumbnail_size=8, novel_view_weight=30.0, schedule=schedule)
    shown: list[dict[str, float]] = []

    def optimize_and_remember(name: str, parameters: Any, schedule: Schedule, loss_of_step: Any, **_: Any) -> None:
        def remembered(step: int) -> Any:
            loss, values = loss_of_step(step)
            shown.append(values)
            return loss, values

        optimize(name, parameters, schedule, remembered)

    monkeypatch.setattr("train.components.image_encoder.optimize", optimize_and_remember)
    reached = {}
    for told in (True, False):
        if not told:
            monkeypatch.setattr(
                "train.components.image_encoder.other_view_labels", lambda _, angles: torch.zeros(16, 16)
            )
        shown.clear()
        train_image_encoder(shards, spec, recipe, seed=0, device=CPU, cameras="absolute")
        reached[told] = sum(values["novel view PSNR"] for values in shown[-20:]) / 20
    assert reached[True] > reached[False] + 0.3


def test_half_the_objects_are_mirrored_with_all_their_views(tmp_path: Path) -> None:
    shards = ShardSet(make_shard_set(tmp_path / "set", 4, 16))
    views = load_random_views(shards, 5, 0, objects=32, views=2)
    mirrored = mirror_half(views, torch.Generator().manual_seed(0))
    flipped = [torch.equal(after, before.flip(-1)) for before, after in zip(views.images, mirrored.images, strict=True)]
    assert 8 < sum(flipped) < 24
    for i, flip in enumerate(flipped):
        sign = torch.tensor([1.0, -1.0 if flip else 1.0])
        torch.testing.assert_close(mirrored.angles_deg[i], views.angles_deg[i] * sign)
        torch.testing.assert_close(mirrored.images[i], views.images[i].flip(-1) if flip else views.images[i])


def test_a_mirrored_view_is_the_mirrored_object_seen_from_the_other_side() -> None:
    """What `mirror_half` says of views, for points and by the cameras themselves."""
    points = np.random.default_rng(0).normal(size=(20, 3))
    mirrored = points * [-1, 1, 1]  # the camera of azimuth 0 is at -y

    def seen(azimuth_deg: float, objects: NDArray[np.float64]) -> NDArray[np.float64]:
        c2w = spherical_to_c2w(10.0, azimuth_deg, 1.5)
        return (objects - c2w[:3, 3]) @ c2w[:3, :3]

    np.testing.assert_allclose(seen(-30.0, mirrored), seen(30.0, points) * [-1, 1, 1], atol=1e-6)


def test_centered_images_show_the_object_at_one_place_and_size_and_keep_white() -> None:
    images = torch.ones(3, 3, 64, 64)
    images[0, :, 4:20, 30:38] = 0.25  # 16 high, 8 wide
    images[1, :, 16:64, 0:24] = 0.25  # the same object three times as large, at the border
    centered = center_object(images, 0.75)
    seen = (centered < 0.6).all(1)
    for box in (torch.where(seen[0].any(dim))[0] for dim in (0, 1)):
        assert float(box[0] + box[-1]) / 2 == pytest.approx(31.5, abs=0.5)
    assert int(seen[0].any(1).sum()) == pytest.approx(48, abs=1)
    assert int(seen[0].any(0).sum()) == pytest.approx(24, abs=1)
    assert float((centered[0] - centered[1]).abs().mean()) < 0.025  # one is blurred
    assert float((images[0] - images[1]).abs().mean()) > 0.2
    assert torch.equal(centered[2], images[2])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(center_object(images, 0.75), centered)


@torch.no_grad()
def test_an_embedding_does_not_depend_on_place_and_size_where_the_image_encoder_centers(tmp_path: Path) -> None:
    spec = SmallEncoder(embed_dim=8, image_size=64, patch_size=16, width=32, layers=2, head_width=16, object_fill=0.75)
    torch.manual_seed(0)
    image_encoder = build_image_encoder(spec).eval()
    color = torch.rand(3, 1, 1) * 0.8
    images = torch.ones(3, 3, 64, 64)
    images[0, :, 4:28, 30:50] = color
    images[1, :, 20:44, 8:28] = color  # elsewhere
    images[2, :, 8:56, 8:48] = color  # twice as large
    here, there, large = image_encoder(images)
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(here, large, atol=0.1, rtol=0)
    save_image_encoder(image_encoder, tmp_path / "encoder")
    torch.testing.assert_close(load_image_encoder(tmp_path / "encoder")(images), torch.stack([here, there, large]))
    plain = build_image_encoder(replace(spec, object_fill=None)).eval()
    plain.load_state_dict(image_encoder.state_dict())
    first, second, third = plain(images)
    assert float((first - second).abs().max()) > 1e-2
    assert float((first - third).abs().max()) > 0.2


@torch.no_grad()
def test_centring_survives_the_way_through_transformers(tmp_path: Path) -> None:
    spec = SmallEncoder(embed_dim=8, image_size=32, patch_size=16, width=32, layers=2, head_width=16, object_fill=0.75)
    image_encoder = build_image_encoder(spec).eval()
    save_clip_vision(image_encoder, tmp_path / "image_encoder")
    loaded = load_clip_vision(tmp_path / "image_encoder")
    assert loaded.spec == spec


def test_labels_of_the_other_view_are_of_the_other_view() -> None:
    angles_deg = torch.tensor([[[0.0, 10.0], [20.0, 90.0]], [[5.0, 180.0], [0.0, 0.0]]], dtype=torch.float64)
    absolute = other_view_labels("absolute", angles_deg)
    other = angles_deg.flip(1).flatten(0, 1).numpy()
    assert torch.equal(absolute, torch.from_numpy(mvdream_camera(other[:, 0], other[:, 1])))
    relative = other_view_labels("relative", angles_deg)
    assert torch.allclose(relative[0], torch.from_numpy(mvdream_camera(20.0, 80.0)))
    assert torch.allclose(relative[1], torch.from_numpy(mvdream_camera(-20.0, -80.0)))


def test_parts_are_taken_up_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(MICRO.tower, SmallEncoder)
    assert MICRO.tower_training is not None
    shards = ShardSet(make_shard_set(tmp_path / "set", 4, 16))
    folder = tmp_path / "image_tower"
    first = ensure_image_encoder(folder, shards, MICRO.tower, MICRO.tower_training, seed=0, device=CPU)
    again = ensure_image_encoder(folder, shards, MICRO.tower, MICRO.tower_training, seed=0, device=CPU)
    assert "already trained" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(UserError, match="other settings"):
        ensure_image_encoder(folder, shards, MICRO.tower, MICRO.tower_training, seed=1, device=CPU)


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
