"""The state of runs, from their files and from the queue."""

import os
import socket
from pathlib import Path

import pytest

from distill.app.library import free_seed, is_locked, read_state, run_folders
from distill.app.queue import TaskState
from tests.support.toy_run import finished, under_way


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the runs done (finished) and part (under way), and folders that are no runs."""
    out = tmp_path_factory.mktemp("app") / "out"
    done = finished(out / "done")
    under_way(out / "part", done)
    for name in ("images", "logs"):
        (out / name).mkdir()
    os.utime(out / "done" / "config.json", (1, 1))
    os.utime(out / "done" / "input.png", (1, 1))
    return out


def lock(folder: Path, pid: int, host: str) -> None:
    (folder / "lock").write_text(f"process {pid} on {host}\n")


def test_runs_of_the_command_line_are_listed_newest_first(out: Path) -> None:
    assert list(run_folders(out)) == ["part", "done"]


def test_an_empty_or_missing_folder_has_no_runs(tmp_path: Path) -> None:
    assert run_folders(tmp_path) == {}
    assert run_folders(tmp_path / "missing") == {}


def test_links_that_lead_out_of_the_folder_are_not_listed(out: Path, tmp_path: Path) -> None:
    inside = tmp_path / "out"
    inside.mkdir()
    (inside / "link").symlink_to(out / "done", target_is_directory=True)
    assert run_folders(inside) == {}


def test_states_of_files(out: Path) -> None:
    done, part = (read_state(name, out / name, None) for name in ("done", "part"))
    assert (done.status, done.can_resume, done.can_stop) == ("finished", False, False)
    assert (part.status, part.can_resume, part.can_stop) == ("stopped", True, False)
    assert "at step 4 of 6; it can be resumed" in part.message


def test_a_run_of_another_process_is_running(out: Path) -> None:
    folder = out / "part"
    try:
        lock(folder, os.getpid(), socket.gethostname())
        state = read_state("part", folder, None)
        assert (state.status, state.elsewhere, state.can_stop, state.can_resume) == ("running", True, False, False)
        assert "outside of this app" in state.message
        lock(folder, 2**22 + 1, socket.gethostname())
        assert not is_locked(folder)  # a killed process left it
        lock(folder, os.getpid(), "another-machine")
        assert is_locked(folder)
        (folder / "lock").write_text("")
        assert not is_locked(folder)
    finally:
        (folder / "lock").unlink()


@pytest.mark.parametrize(
    ("task", "name", "status", "message"),
    [
        (TaskState("a", "waiting", before=2), "new", "waiting", "waits for the device; 2 before it"),
        (TaskState("a", "running"), "new", "running", "loads the model"),
        (TaskState("a", "running"), "part", "running", "step 4 of 6"),
        (TaskState("a", "running"), "done", "running", "makes the mesh again"),
        (TaskState("a", "failed", "the disk is full"), "part", "failed", "the disk is full"),
        (TaskState("a", "failed", "no memory"), "new", "failed", "no memory"),
        (TaskState("a", "failed", "the field is gone"), "done", "finished", "the field is gone"),
        (TaskState("a", "stopped"), "new", "stopped", "no step"),
        (TaskState("a", "finished"), "done", "finished", ""),
    ],
)
def test_states_of_tasks(out: Path, task: TaskState, name: str, status: str, message: str) -> None:
    state = read_state(name, out / name, task)
    assert state.status == status
    assert message in state.message


def test_a_damaged_run_shows_its_error(out: Path, tmp_path: Path) -> None:
    folder = under_way(tmp_path / "bad", out / "done")
    (folder / "config.json").write_text("{")
    state = read_state("bad", folder, None)
    assert state.status == "failed"
    assert "config.json is not valid JSON" in state.message
    assert state.stored is None


def test_the_next_seed_is_free() -> None:
    assert free_seed([0, 1, 3], 0) == 2
    assert free_seed([], 6) == 7
