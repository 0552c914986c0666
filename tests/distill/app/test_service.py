"""What the app does, with short Python programs in place of distillations."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.app import service as module
from distill.app.inputs import Crop, CutOut
from distill.app.presets import QUALITIES, describe
from distill.app.service import AppService, device_names
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
        lambda image, model, background, out, device: (
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
    assert "min on 2 cores" in describe("normal", measured=True)
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


def test_invalid_requests_are_refused(service: AppService, cut: CutOut) -> None:
    with pytest.raises(UserError, match="the seed"):
        service.start(cut, "draft", -1)
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
