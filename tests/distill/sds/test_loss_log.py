"""The loss log: rows that a run appends, rows after a kill and a resume, and files that are no loss log."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.sds.loop import distill
from distill.sds.loss_log import Losses, LossLog, open_loss_log, read_losses
from distill.sds.schedule import DistillSettings, plan_step, views_until
from tests.support.distill_toy import SETTINGS, make_guidance

VIEWS = partial(views_until, SETTINGS)


def columns_of(path: Path) -> list[tuple[float, ...]]:
    """Return step and losses of every row, without times."""
    losses = read_losses(path)
    return [tuple(row[name] for name in ("step", *losses.names)) for row in losses.rows]


def test_rows_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    with open_loss_log(path, 0, VIEWS) as history:
        for step, value in ((1, 0.1 + 0.2), (2, 1e-12), (3, 5e20)):
            history.record(step, {"sds": value, "orient": 2.0})
    losses = read_losses(path)
    assert path.read_text().splitlines()[0] == "step,seconds,views_per_s,sds,orient"
    assert losses.names == ("sds", "orient")
    assert losses.of("sds") == ([1, 2, 3], [0.1 + 0.2, 1e-12, 5e20])
    seconds = losses.of("seconds")[1]
    assert seconds == sorted(seconds)
    assert all(rate > 0 for rate in losses.of("views_per_s")[1])


def test_rates_follow_the_clock_and_a_resumed_run_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("distill.sds.loss_log.time.perf_counter", lambda: now)
    path = tmp_path / "losses.csv"
    with open_loss_log(path, 0, VIEWS) as history:
        now = 102.0
        history.record(2, {"sds": 1.0})  # read every second step: two steps of 4 views in 2 s
        now = 103.0
        history.record(4, {"sds": 1.0})
    now = 900.0
    with open_loss_log(path, 2, VIEWS) as history:
        now = 900.5
        history.record(4, {"sds": 1.0})
    losses = read_losses(path)
    assert losses.of("seconds") == ([2, 4], [2.0, 2.5])
    assert losses.of("views_per_s")[1] == [4.0, 16.0]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 1.0])
def test_views_are_those_of_the_plans(fraction: float) -> None:
    settings = replace(DistillSettings(steps=7), coarse_fraction=fraction)
    counts = [len(plan_step(settings, step).views) for step in range(7)]
    assert [views_until(settings, step) for step in range(8)] == [sum(counts[:step]) for step in range(8)]


def test_a_loss_that_comes_later_is_one_more_column(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    with open_loss_log(path, 0, VIEWS) as history:
        history.record(1, {"sds": 1.0})
        history.record(2, {"sds": 2.0, "reference": 0.5})
        history.record(3, {"sds": 3.0})
    losses = read_losses(path)
    assert losses.names == ("sds", "reference")
    assert losses.of("reference") == ([2], [0.5])
    assert losses.of("sds")[1] == [1.0, 2.0, 3.0]


def test_flush_is_what_reaches_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    history = LossLog(path, 0, VIEWS)
    history.record(1, {"sds": 1.0})  # a new column: the file is written again
    history.record(2, {"sds": 2.0})
    assert len(read_losses(path).rows) == 1  # buffered
    history.flush()
    assert len(read_losses(path).rows) == 2
    history.close()


def killed_after(steps: int) -> Callable[[], None]:
    """Raises after so many steps, the second time: simulates a kill."""
    left = steps

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise SystemExit

    return count


def test_a_killed_and_repeated_run_has_each_step_once(tmp_path: Path) -> None:
    """The kill is after the checkpoint of step 4: step 5 is already on disk and is repeated."""
    distill(SETTINGS, make_guidance(), tmp_path / "whole", request=asdict(SETTINGS))
    guidance, count = make_guidance(), killed_after(6)

    def denoise(*arguments):
        count()
        return guidance.denoise(*arguments)

    with pytest.raises(SystemExit):
        distill(SETTINGS, replace(guidance, denoise=denoise), tmp_path / "parts", request=asdict(SETTINGS))
    assert [step for step, *_ in columns_of(tmp_path / "parts" / "losses.csv")] == [1, 2, 3, 4, 5]
    with (tmp_path / "parts" / "losses.csv").open("a") as file:
        file.write("6,1.2,3")  # and a line was under way
    distill(SETTINGS, make_guidance(), tmp_path / "parts", request=asdict(SETTINGS))
    whole = columns_of(tmp_path / "whole" / "losses.csv")
    assert [step for step, *_ in whole] == [1, 2, 3, 4, 5, 6]
    assert columns_of(tmp_path / "parts" / "losses.csv") == whole


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    assert read_losses(tmp_path / "losses.csv") == Losses()
    (tmp_path / "losses.csv").write_text("step,sec")
    assert read_losses(tmp_path / "losses.csv") == Losses()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "not a loss log"),
        ("step,seconds,views_per_s,sds\n1,2,3\n", "does not match the columns step"),
        ("step,seconds,views_per_s,sds\n1,2,3,x\n", "does not match the columns step"),
        ("step,seconds,views_per_s,sds\n,2,3,4\n", "does not match the columns step"),
    ],
)
def test_something_else_is_refused_by_name(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "losses.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=complaint) as caught:
        read_losses(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError):
        LossLog(path, 0, VIEWS)
    assert path.read_text() == content
