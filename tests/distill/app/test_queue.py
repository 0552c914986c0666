"""The queue of commands, with Python one-liners in place of distillations."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.app import queue
from distill.app.queue import TaskQueue

LIMIT_S = 30.0
# Stops like `python -m distill`: the first SIGTERM ends it after it has written its checkpoint.
STOPPABLE = """
import pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("checkpoint")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def tasks() -> Iterator[TaskQueue]:
    tasks = TaskQueue(["cpu"])
    yield tasks
    tasks.close()


def python(code: str, *arguments: str) -> Callable[[str], Sequence[str]]:
    return lambda device: (sys.executable, "-c", code, *arguments, device)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ready(log: Path) -> Callable[[], bool]:
    return lambda: log.is_file() and "ready" in log.read_text()


def test_tasks_run_in_order_and_get_the_device(tasks: TaskQueue, tmp_path: Path) -> None:
    code = "import sys, pathlib; file = open(sys.argv[1], 'a'); file.write(sys.argv[2] + sys.argv[3] + ' ')"
    for name in ("a", "b", "c"):
        tasks.submit(name, python(code, str(tmp_path / "order"), name), tmp_path / f"{name}.log")
    for name in ("a", "b", "c"):
        state = tasks.wait(name, LIMIT_S)
        assert state is not None
        assert (state.status, state.message) == ("finished", "")
    assert (tmp_path / "order").read_text() == "acpu bcpu ccpu "
    assert [state.name for state in tasks.states()] == ["a", "b", "c"]
    assert tasks.state("unknown") is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('a note'); sys.exit('error: the disk is full; free some space')", "the disk is full"),
        ("raise ValueError('unexpected')", "ValueError: unexpected"),
        ("import sys; sys.exit(3)", "status 3"),
        ("import os; os.kill(os.getpid(), 9)", r"signal 9 \(SIGKILL\); the machine may be out of memory"),
        ("import os; os.abort()", "SIGABRT"),
    ],
)
def test_a_failure_costs_that_task_only(tasks: TaskQueue, tmp_path: Path, code: str, message: str) -> None:
    tasks.submit("bad", python(code), tmp_path / "logs" / "bad.log")
    tasks.submit("good", python("print('fine')"), tmp_path / "logs" / "good.log")
    failed, good = tasks.wait("bad", LIMIT_S), tasks.wait("good", LIMIT_S)
    assert failed is not None
    assert failed.status == "failed"
    assert re.search(message, failed.message), failed.message
    assert good is not None
    assert good.status == "finished"


def test_a_command_that_cannot_start_fails(tasks: TaskQueue, tmp_path: Path) -> None:
    tasks.submit("a", lambda device: (str(tmp_path / "no-program"),), tmp_path / "a.log")
    state = tasks.wait("a", LIMIT_S)
    assert state is not None
    assert state.status == "failed"
    assert "cannot start" in state.message
    (tmp_path / "file").write_text("")
    tasks.submit("b", python(""), tmp_path / "file" / "b.log")
    state = tasks.wait("b", LIMIT_S)
    assert state is not None
    assert state.status == "failed"


def test_a_running_task_is_stopped_and_can_be_resumed(tasks: TaskQueue, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    tasks.submit("run", python(STOPPABLE, str(tmp_path / "checkpoint")), log)
    until(ready(log))
    tasks.submit("run", python("raise SystemExit('it must not start twice')"), log)
    assert [state.status for state in tasks.states()] == ["running"]
    tasks.stop("run")
    state = tasks.wait("run", LIMIT_S)
    assert state is not None
    assert (state.status, state.message) == ("stopped", "")
    assert (tmp_path / "checkpoint").read_text() == "checkpoint"
    tasks.stop("run")  # it has ended: nothing happens
    tasks.submit("run", python("print('resumed')"), log)
    state = tasks.wait("run", LIMIT_S)
    assert state is not None
    assert state.status == "finished"


def test_a_second_stop_kills(tasks: TaskQueue, tmp_path: Path) -> None:
    tasks.submit("run", python(STUBBORN), tmp_path / "run.log")
    until(ready(tmp_path / "run.log"))
    tasks.stop("run")
    tasks.stop("run")
    state = tasks.wait("run", LIMIT_S)
    assert state is not None
    assert state.status == "stopped"


def test_a_waiting_task_does_not_start_after_a_stop(tasks: TaskQueue, tmp_path: Path) -> None:
    tasks.submit("first", python(STOPPABLE, str(tmp_path / "checkpoint")), tmp_path / "first.log")
    until(ready(tmp_path / "first.log"))
    for name in ("second", "third"):
        tasks.submit(name, python("print('started')"), tmp_path / f"{name}.log")
    assert [(state.status, state.before) for state in tasks.states()][1:] == [("waiting", 0), ("waiting", 1)]
    tasks.stop("second")
    tasks.stop("first")
    third = tasks.wait("third", LIMIT_S)
    second = tasks.state("second")
    assert third is not None
    assert second is not None
    assert (second.status, third.status) == ("stopped", "finished")
    assert not (tmp_path / "second.log").exists()


def test_devices_work_at_the_same_time(tmp_path: Path) -> None:
    tasks = TaskQueue(["cuda:0", "cuda:1"])
    for name in ("a", "b"):
        tasks.submit(name, python(STOPPABLE, str(tmp_path / name)), tmp_path / f"{name}.log")
    until(lambda: all(ready(tmp_path / f"{name}.log")() for name in ("a", "b")))
    assert [state.status for state in tasks.states()] == ["running", "running"]
    tasks.close()
    assert [state.status for state in tasks.states()] == ["stopped", "stopped"]
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "checkpoint"


def test_closing_kills_what_does_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_STOP_S", 0.2)
    tasks = TaskQueue(["cpu"])
    tasks.submit("run", python(STUBBORN), tmp_path / "run.log")
    until(ready(tmp_path / "run.log"))
    tasks.close()
    with pytest.raises(UserError, match="shutting down"):
        tasks.submit("next", python(""), tmp_path / "next.log")


def test_the_number_of_waiting_tasks_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MAX_WAITING", 2)
    tasks = TaskQueue([])
    for name in ("a", "b"):
        tasks.submit(name, python(""), tmp_path / "log")
    with pytest.raises(UserError, match="2 tasks are waiting"):
        tasks.submit("c", python(""), tmp_path / "log")
    tasks.close()
