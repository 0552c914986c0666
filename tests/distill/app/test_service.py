"""What the app does, with short Python programs in place of distillations."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dataset.errors import UserError
from distill.app import service as module
from distill.app.inputs import Crop, CutOut
from distill.app.presets import describe
from distill.app.service import AppService, device_names
from distill.quality import QUALITIES
from tests.support.distill_micro import draw
from tests.support.paths import ROOT
from train.model.multiview import BUNDLED_MODEL

LIMIT_S = 30.0
MODEL = ROOT / BUNDLED_MODEL


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppService]:
    """An app whose runs write their options into the run folder."""
    code = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'input.png').write_text('')"
    )
    monkeypatch.setattr(
        module, "distill_command", lambda options, out, device: (sys.executable, "-c", code, str(out), *options)
    )
    monkeypatch.setattr(
        module,
        "sample_command",
        lambda image, model, out, device, **background: (
            *(sys.executable, "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.parent.mkdir(); p.touch()"),
            str(out),
        ),
    )
    service = AppService(MODEL, tmp_path / "out", "cpu", steps_scale=0.5)
    yield service
    service.close()


@pytest.fixture
def cut(service: AppService, tmp_path: Path) -> CutOut:
    return service.cut_out(draw(tmp_path / "box.png", (200, 40, 40)), Crop(), "auto")


def test_a_run_is_listed_at_once_and_the_same_request_is_the_same_run(service: AppService, cut: CutOut) -> None:
    name = service.start(cut, "draft", 3)
    assert name == f"box-{cut.digest}-draft-seed-3"
    assert service.names() == [name]
    assert service.start(cut, "draft", 3) == name
    assert service.current() == name
    assert (service.out / "images" / f"box-{cut.digest}.png").is_file()


def test_presets_scale_the_number_of_steps(service: AppService) -> None:
    assert [service.steps(name) for name in QUALITIES] == [50, 200, 400]
    assert "about 5.5 min on 2 cores" in describe("normal", measured=True)
    assert "min" not in describe("normal", measured=False)


def test_again_takes_the_next_free_seed(service: AppService, cut: CutOut) -> None:
    first = service.start(cut, "draft", 0)
    second = service.again(first)
    assert second == first.replace("-seed-0", "-seed-1")
    assert service.again(first) == first.replace("-seed-0", "-seed-2")
    options = service.options(second)
    assert options[options.index("--seed") + 1] == "1"


def test_views_are_sampled_once(service: AppService, cut: CutOut) -> None:
    state, path = service.sample(cut)
    assert state is not None
    ended = service.wait_for_sample(cut, LIMIT_S)
    assert ended is not None
    assert ended.status == "finished"
    assert service.sample(cut) == (None, path)


def written_options(service: AppService, name: str) -> str:
    """The options with which the run was started last, without those of the mesh."""
    return " ".join(service.options(name))


def test_settings_of_the_mesh_are_passed_on_but_not_part_of_the_name(service: AppService, cut: CutOut) -> None:
    name = service.start(cut, "draft", 0, faces=2000, texture_size=256)
    assert written_options(service, name).endswith("--faces 2000 --texture-size 256")
    assert service.start(cut, "draft", 0, faces=2000, texture_size=256) == name
    default = service.mesh_settings
    other = service.start(cut, "draft", 1, faces=default.faces, texture_size=default.texture_size)
    assert "--faces" not in written_options(service, other)
    assert "--faces" in written_options(service, service.start(cut, "draft", 2, faces=100))


def test_a_run_that_waits_keeps_its_mesh(service: AppService, cut: CutOut) -> None:
    name = service.start(cut, "draft", 0, faces=2000)
    with pytest.raises(UserError, match="already waiting or running"):
        service.start(cut, "draft", 0, faces=500)
    assert written_options(service, name).endswith("--faces 2000")


def test_a_finished_run_gets_another_mesh(service: AppService, cut: CutOut, monkeypatch: pytest.MonkeyPatch) -> None:
    name = service.start(cut, "draft", 0, faces=2000)
    with pytest.raises(UserError, match="is not finished"):
        service.make_mesh_again(name, faces=500, texture_size=None)
    state = service.state(name)
    assert state is not None
    monkeypatch.setattr(service, "state", lambda _: replace(state, status="finished"))
    monkeypatch.setattr(service._runs, "submit", lambda *_: True)
    service.make_mesh_again(name, faces=500, texture_size=64)
    assert written_options(service, name).endswith("--faces 500 --texture-size 64")
    service.make_mesh_again(name, faces=None, texture_size=None)
    assert "--faces" not in written_options(service, name)
    with pytest.raises(UserError, match="the number of faces is 5"):
        service.make_mesh_again(name, faces=5, texture_size=None)


def test_the_threshold_of_the_background_is_part_of_the_name(service: AppService, tmp_path: Path) -> None:
    image = tmp_path / "box.png"
    Image.new("RGB", (40, 40), (40, 160, 60)).save(image)
    with Image.open(image) as picture:
        picture.paste((200, 30, 30), (10, 10, 30, 30))
        picture.save(image)
    plain, with_threshold = (service.cut_out(image, Crop(), "auto", threshold) for threshold in (None, 12.5))
    assert plain.digest != with_threshold.digest
    assert service.cut_out(image, Crop(), "keep", 12.5).background_threshold is None  # of no effect
    name = service.start(with_threshold, "draft", 0)
    assert with_threshold.digest in name
    assert "--background auto --background-threshold 12.5" in written_options(service, name)
    with pytest.raises(UserError, match="--background-threshold is 99"):
        service.cut_out(image, Crop(), "auto", 99.0)


def test_invalid_requests_are_refused(service: AppService, cut: CutOut) -> None:
    with pytest.raises(UserError, match="the seed"):
        service.start(cut, "draft", -1)
    with pytest.raises(UserError, match="the texture size is 1"):
        service.start(cut, "draft", 0, texture_size=1)
    for name in ("missing", "../..", "/etc"):
        assert service.state(name) is None
        with pytest.raises(UserError, match="this run is gone"):
            service.resume(name)


def test_folders_that_cannot_hold_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        AppService(MODEL, tmp_path / "file", "cpu")
    (tmp_path / "input.png").write_text("")
    with pytest.raises(UserError, match="folder of a single run"):
        AppService(MODEL, tmp_path, "cpu")
    with pytest.raises(UserError, match="not a model folder"):
        AppService(tmp_path / "no-model", tmp_path / "out", "cpu")


def test_there_is_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_names("cpu") == ["cpu"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_names("auto") == ["cuda:0", "cuda:1"]
    assert device_names("cuda:1") == ["cuda:1"]
