"""MODEL=pkunliu/Isotropic3D without a network: from the Hub's cache to sampling and distillation, the quirk with it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import distill.__main__ as distill_command
import distill.runs.job
import train.model.multiview
from dataset.errors import UserError
from distill.config import DistillArgs
from distill.sds.guidance import Guidance
from distill.sds.schedule import CameraViews
from tests.support.ldm_files import (
    HEAD_WIDTH,
    IMAGE_SIZE,
    TINY_IMAGE_ENCODER,
    golden_unet,
    hub_cache,
    register_tiny_image_encoder,
    release,
)
from tests.support.paths import GOLDEN_FOLDER
from tests.support.train_micro import CPU, micro_model
from train.convert.convert import ConvertArgs, convert
from train.convert.hub import PUBLISHED, hub_name
from train.convert.resolve import file_sha256, model_folder
from train.model.multiview import load_model, read_spec, save_model
from train.model.unet import load_unet
from train.sample import SampleArgs, run

RELEASE = "pkunliu/Isotropic3D"
BASE = "MVDream/MVDream"
CAMERAS = json.loads((GOLDEN_FOLDER / "cameras.json").read_text())


def _golden_camera(kind: str, azimuth_deg: float) -> Tensor:
    """[16] of the golden file at elevation 30."""
    (found,) = [c["c2w"] for c in CAMERAS[kind] if (c["elevation_deg"], c["azimuth_deg"]) == (30, azimuth_deg)]
    return torch.tensor(found, dtype=torch.float32)


RELEASED = torch.stack([_golden_camera("isotropic3d_released_camera", a) for a in (0, 90, 180, 270)])
TRUE = torch.stack([_golden_camera("mvdream_camera", a) for a in (0, 90, 180, 270)])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with both official files, small; a program that starts in an empty folder; no network at all."""
    root = tmp_path / "hub"
    register_tiny_image_encoder(monkeypatch)
    for repo, image_encoder in ((RELEASE, True), (BASE, False)):
        small = replace(PUBLISHED[repo], head_width=HEAD_WIDTH, image_size=IMAGE_SIZE, image_tower=TINY_IMAGE_ENCODER)
        monkeypatch.setitem(PUBLISHED, repo, small)
        hub_cache(root, repo, small.file, release(image_encoder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:35, 8:22] = (200, 40, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "thing.png")
    return tmp_path / "thing.png"


@pytest.fixture
def seen_cameras(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The camera labels of every call of the UNet."""
    seen: list[Tensor] = []
    plain = train.model.multiview.run_unet

    def spy(unet: Any, latents: Tensor, timesteps: Tensor, cameras: Tensor, context: Tensor, *, num_frames: int) -> Any:
        seen.append(cameras.float())
        return plain(unet, latents, timesteps, cameras, context, num_frames=num_frames)

    monkeypatch.setattr(train.model.multiview, "run_unet", spy)
    return seen


def test_the_table_of_published_weights_is_as_the_papers_authors_published_them() -> None:
    released, base = PUBLISHED[RELEASE], PUBLISHED[BASE]
    assert (released.file, released.cameras, released.has_image_encoder) == (
        "isotropic3d.ckpt",
        "released_isotropic3d",
        True,
    )
    assert (base.file, base.cameras, base.has_image_encoder) == ("sd-v2.1-base-4view.pt", "relative", False)
    assert {(p.head_width, p.image_size, p.image_tower) for p in PUBLISHED.values()} == {(64, 256, "ViT-H-14")}


def test_the_released_quirk_reaches_sampling(hub: Path, picture: Path, seen_cameras: list[Tensor]) -> None:
    run(SampleArgs(picture, Path(RELEASE), Path("views.png"), elevation_deg=0.0, ddim_steps=1, device="cpu"))
    assert Path("views.png").is_file()
    assert len(seen_cameras) == 1
    for cameras in seen_cameras[0].split(4):  # with the picture and without
        torch.testing.assert_close(cameras, RELEASED, rtol=0, atol=1e-6)
    assert (RELEASED - TRUE).abs().max() > 0.4  # the two conventions could not be taken for each other


def test_the_released_quirk_reaches_distillation(
    hub: Path, picture: Path, seen_cameras: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_step(settings: Any, guidance: Guidance, out: Path, **rest: Any) -> Any:
        views = CameraViews(np.full(4, 30.0), np.array([0.0, 90.0, 180.0, 270.0]), np.full(4, 2.0), np.full(4, 40.0))
        latents = guidance.encode(torch.rand(4, 3, IMAGE_SIZE, IMAGE_SIZE))
        predicted = guidance.denoise(latents, torch.full((4,), 500), views)
        assert predicted.guided.shape == latents.shape
        raise KeyboardInterrupt

    monkeypatch.setattr(distill.runs.job, "distill", one_step)
    with pytest.raises(KeyboardInterrupt):
        distill_command.main(
            DistillArgs((picture,), Path(RELEASE), Path("out"), elevation_deg=0.0, steps=1, device="cpu")
        )
    for cameras in seen_cameras[0].split(4):
        torch.testing.assert_close(cameras, RELEASED, rtol=0, atol=1e-6)
    assert json.loads(Path("out/config.json").read_text())["model"] == RELEASE


def test_the_second_start_finds_the_converted_model(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = model_folder(Path(RELEASE))
    told = capsys.readouterr()
    assert "from the Hub's cache" in told.err
    assert f"converting {RELEASE} once; the result is kept in" in told.err
    assert "skipped 2 tensors" in told.err
    assert told.out == ""
    assert read_spec(first).cameras == "released_isotropic3d"
    before = (first / "unet" / "config.json").stat().st_mtime_ns
    assert model_folder(Path(RELEASE)) == first
    assert "converted earlier" in capsys.readouterr().err
    assert (first / "unet" / "config.json").stat().st_mtime_ns == before
    assert json.loads((first / "source.json").read_text())["sha256"] == "ab" * 32
    assert [path.name for path in first.parent.iterdir()] == [first.name]  # nothing unfinished lies about


def test_a_dry_run_by_hub_name_prints_json_alone(hub: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distill_command.main(DistillArgs((picture,), Path(RELEASE), Path("out"), dry_run=True))
    assert json.loads(capsys.readouterr().out)["model"] == RELEASE


def test_convert_takes_the_name_of_mvdream(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(ConvertArgs(Path(BASE), Path("base")))
    assert "camera labels: relative (according to MVDream/MVDream" in capsys.readouterr().err
    assert read_spec(Path("base")).cameras == "relative"
    assert not Path("base/image_tower").exists()
    weight: Any = load_unet(Path("base/unet")).conv_in
    assert torch.equal(weight.weight, golden_unet()["input_blocks.0.0.weight"].float())
    convert(ConvertArgs(Path(RELEASE), Path("asked"), cameras="relative"))
    assert read_spec(Path("asked")).cameras == "relative"  # the command line has the last word


def test_a_file_by_path_is_converted_once_by_its_content(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {name: tensor.contiguous() for name, tensor in release(image_encoder=False).items()}
    save_file(state, "a.safetensors")
    with pytest.raises(UserError, match="head width 64"):
        model_folder(Path("a.safetensors"))
    assert list(Path("data/converted").iterdir()) == []  # a failure leaves nothing behind
    assert file_sha256(Path("a.safetensors")) != file_sha256(next(hub.rglob("*.ckpt")))


def test_another_file_under_the_published_name_is_refused(hub: Path) -> None:
    file = next(hub.rglob("isotropic3d.ckpt"))
    torch.save(release(image_encoder=False), file.resolve())
    with pytest.raises(UserError, match="has no image encoder"):
        model_folder(Path(RELEASE))


def test_what_is_not_cached_says_how_to_get_it(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub / "elsewhere"))
    for name in (RELEASE, "hf:someone/model"):
        with pytest.raises(UserError, match=r"connect to the network, or run `hf download (pkunliu|someone)/"):
            model_folder(Path(name))


def test_names_and_paths_are_told_apart(hub: Path) -> None:
    assert hub_name(Path(RELEASE)) == RELEASE
    assert hub_name(Path("hf:someone/model")) == "someone/model"
    assert hub_name(Path("data/stage1")) is None  # a mistyped folder asks nobody
    assert model_folder(Path("data/stage1")) == Path("data/stage1")
    Path(RELEASE).mkdir(parents=True)
    assert hub_name(Path(RELEASE)) is None  # what is on this disk comes first
    with pytest.raises(UserError, match="OWNER/NAME"):
        hub_name(Path("hf:model"))
    with pytest.raises(UserError, match=r"not (an|one of the) official checkpoint"):
        convert(ConvertArgs(Path("hf:someone/model"), Path("out")))


def test_a_model_folder_in_the_hubs_cache_is_used_in_place(hub: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = hub / "models--someone--model"
    save_model(micro_model(), folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    found = model_folder(Path("hf:someone/model"))
    assert found.resolve() == (folder / "snapshots" / revision).resolve()
    assert load_model(found, CPU).spec == micro_model().spec
    (found / "model.json").unlink()
    with pytest.raises(UserError, match="not a model folder"):
        model_folder(Path("hf:someone/model"))


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("pkunliu/isotropic3d", RELEASE),
        ("pkuliu/Isotropic3D", RELEASE),
        ("isotropic3D", RELEASE),
        ("MVDream", BASE),
        ("mvdream/MVDreem", BASE),
    ],
)
def test_a_mistyped_published_name_is_offered(hub: Path, text: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"{text}: no such file or folder; did you mean {nearest}\?"):
        model_folder(Path(text))
    if "/" in text:  # by hf: a name is asked for as it is, so that it may exist
        with pytest.raises(UserError, match=rf"download failed.*did you mean {nearest}\?"):
            model_folder(Path(f"hf:{text}"))


@pytest.mark.parametrize("text", ["data/stage1", "data/mvdream", "out", "weights/tiny2", "someone/model"])
def test_other_paths_are_not_taken_for_published_names(hub: Path, text: str) -> None:
    assert model_folder(Path(text)) == Path(text)


def test_a_folder_of_a_published_name_is_used(hub: Path) -> None:
    Path("isotropic3d").mkdir()
    assert model_folder(Path("isotropic3d")) == Path("isotropic3d")


@pytest.mark.parametrize(
    ("index", "said"),
    [('{"_class_name": "StableDiffusionPipeline"}', "StableDiffusionPipeline"), ("{", "an unknown pipeline")],
)
def test_a_plain_diffusers_folder_is_named_as_such(hub: Path, index: str, said: str) -> None:
    folder = Path("stable-diffusion")
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=rf"is a plain diffusers folder \({said}\).*train.export.*{RELEASE}"):
        model_folder(folder)
    save_model(micro_model(), folder)  # with model.json it is a model of this project
    assert model_folder(folder) == folder


def test_a_plain_diffusers_repository_is_named_as_such(hub: Path) -> None:
    folder = hub / "models--someone--model"
    snapshot = folder / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    (snapshot / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(UserError, match=r"someone/model is a plain diffusers folder \(StableDiffusionPipeline\)"):
        model_folder(Path("hf:someone/model"))
