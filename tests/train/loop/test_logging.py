"""Log lines, progress bar, TensorBoard and W&B of a run."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.summary.writer import event_file_writer

from dataset.errors import UserError
from train.loop import logging
from train.loop.disk_full import continue_without
from train.loop.logging import Meter, StepResult, TrainingStatus, open_log

STATUS = TrainingStatus(
    steps=1200,
    total_steps=50_000,
    seen_images=921_600,
    loss=0.04321,
    learning_rate=1.2e-5,
    gradient_norm=0.3149,
    views_per_s=812.4,
    data_wait_share=0.0123,
    eta_s=3 * 3600 + 20 * 60 + 11.4,
)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _scalars(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_line_holds_what_matters() -> None:
    assert STATUS.line() == (
        "step 1,200/50,000  images 921,600  loss 0.0432  lr 1.20e-05  grad norm 0.315  views/s 812  "
        "data wait 1.2%  ETA 3:20:11"
    )
    assert set(STATUS.on_bar()) == {"images", "loss", "lr", "norm", "views/s", "wait"}


def test_mfu_is_shown_if_it_is_known() -> None:
    """It is not measured on a CPU, and then there is no field."""
    status = replace(STATUS, mfu=0.4567)
    assert "views/s 812  MFU 45.7%  data wait 1.2%" in status.line()
    assert status.on_bar()["MFU"] == "46%"
    assert status.scalars()["mfu"] == 0.4567
    assert "mfu" not in " ".join((STATUS.line(), *STATUS.on_bar(), *STATUS.scalars())).lower()


def test_a_meter_gives_every_step_once_and_the_time_between_readings() -> None:
    clock = Clock()
    meter = Meter(clock)

    def slow() -> Any:
        clock.now += 1.5
        yield "views"

    assert meter.wait_for(slow()) == "views"
    meter.add(7, torch.tensor(0.5), torch.tensor(2.0), 8, 1e12)
    meter.add(8, torch.tensor(float("nan")), torch.tensor(3.0), 4, 3e12)
    clock.now += 4.5
    reading = meter.read()
    assert reading.results[0] == StepResult(7, 0.5, 2.0, 8)
    assert reading.results[1].step == 8
    assert reading.results[1].loss != reading.results[1].loss
    assert reading.views_per_s == pytest.approx(12 / 6)
    assert reading.data_wait_share == pytest.approx(1.5 / 6)
    assert reading.flops == 4e12
    clock.now += 99  # for example a sample sheet
    meter.restart()
    clock.now += 1
    empty = meter.read()
    assert (empty.results, empty.seconds, empty.waited_s, empty.flops) == ([], 1.0, 0.0, 0.0)


def test_steps_are_read_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, reads = Meter(), []
    for step in range(5):
        meter.add(step, torch.tensor(float(step)), torch.tensor(1.0), 1)
    plain: Callable[..., Any] = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self.shape) or plain(self))
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("a second transfer"))
    assert [result.loss for result in meter.read().results] == [0, 1, 2, 3, 4]
    assert reads == [(10,)]


def test_scalars_reach_tensorboard_and_those_beyond_the_checkpoint_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file_writer._global_uid, "_value", 9)  # in one second: names that sort as 10, 9
    for first, value in ((0, 1.0), (2, 5.0)):
        with open_log(tmp_path, first, None, {}) as log:
            for step in range(first, first + 3):
                log({"loss": value, **STATUS.scalars()}, step)
    found = _scalars(tmp_path)
    assert found["loss"] == [(0, 1.0), (1, 1.0), (2, 5.0), (3, 5.0), (4, 5.0)]
    assert found.keys() == {"loss", "views_per_s", "data_wait_share", "seen_images", "eta_s"}


def test_a_full_disk_ends_the_curves_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    calls: list[int] = []

    def full(self: object, name: str, value: float, step: int) -> None:
        calls.append(step)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with open_log(tmp_path, 0, None, {}) as log:
        log({"loss": 1.0}, 0)
        log({"loss": 1.0}, 1)
    assert calls == [0]
    assert capsys.readouterr().err.count("NOT WRITTEN") == 1


def test_only_a_full_disk_is_tolerated(capsys: pytest.CaptureFixture[str]) -> None:
    with continue_without("the samples"):
        raise OSError(28, "No space left on device")
    assert "NOT WRITTEN, because the disk is full: the samples (" in capsys.readouterr().err
    with pytest.raises(PermissionError), continue_without("the samples"):
        raise PermissionError(13, "Permission denied")


def test_wandb_is_asked_for_by_name_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if not installed
    with pytest.raises(UserError, match="pip install wandb"):
        logging.import_wandb()


def test_wandb_gets_the_same_numbers_and_a_resumed_run_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inits: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []
    finished: list[bool] = []
    run = SimpleNamespace(
        id="abc1", log=lambda values, step: logged.append((values, step)), finish=lambda: finished.append(True)
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: inits.append(given) or run))
    for first in (0, 1):
        with open_log(tmp_path, first, "views", {"seed": 3}) as log:
            log({"loss": 0.25}, first)
    assert logged == [({"loss": 0.25}, 0), ({"loss": 0.25}, 1)]
    assert [given["id"] for given in inits] == [None, "abc1"]
    assert inits[0]["project"] == "views"
    assert inits[0]["config"] == {"seed": 3}
    assert finished == [True, True]
    assert "project views" in capsys.readouterr().err
    assert _scalars(tmp_path)["loss"] == [(0, 0.25), (1, 0.25)]
