"""Locks of output folders and files: a second writer is refused, naming the first; killed processes free them."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dataset.errors import UserError
from dataset.io.lock import LEASE_S, LOCK_NAME, _stale, locked_file, locked_folder
from tests.support.paths import ROOT

LOCKS = pytest.mark.parametrize("lock", [locked_folder, locked_file])


@LOCKS
def test_a_second_process_is_refused_by_one_line_that_names_the_first(tmp_path, lock):
    out = tmp_path / "runs" / "out"
    code = (
        "import sys, time; from pathlib import Path; from dataset.io import lock\n"
        f"with lock.{lock.__name__}(Path(sys.argv[1]), 'training'): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, out], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError) as refused, lock(out, "training"):
        pass
    holder = f"process {process.pid} on {socket.gethostname()}"
    assert (
        str(refused.value)
        == f"another training is writing {out}: {holder}; wait until that process has ended, or stop it"
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with lock(out, "training"):
        left = next(path for path in out.parent.rglob(f"*{LOCK_NAME}"))
        assert left.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert not list(out.parent.rglob(f"*{LOCK_NAME}"))


@LOCKS
def test_two_outputs_do_not_hinder_each_other_and_errors_unlock(tmp_path, lock):
    with lock(tmp_path / "a", "run"), lock(tmp_path / "b", "run"):
        pass
    with pytest.raises(KeyError), lock(tmp_path / "a", "run"):
        raise KeyError
    with lock(tmp_path / "a", "run"):
        pass


def test_a_new_folder_that_stays_empty_is_removed_and_others_stay(tmp_path):
    with locked_folder(tmp_path / "new", "run"):
        pass
    (tmp_path / "old").mkdir()
    with locked_folder(tmp_path / "old", "run"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    with locked_folder(tmp_path / "out", "run"):
        (tmp_path / "out/file").write_bytes(b"x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


@LOCKS
def test_an_unwritable_place_is_one_line(tmp_path, lock):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"cannot write .*check the path and permissions"),
        lock(tmp_path / "file/out", "run"),
    ):
        pass


@pytest.mark.parametrize(("age_s", "stale"), [(0.9 * LEASE_S, False), (1.1 * LEASE_S, True)])
def test_a_lease_of_another_machine_is_taken_over_when_it_was_not_renewed(age_s, stale):
    assert _stale({"host": "elsewhere", "pid": os.getpid(), "time": time.time() - age_s}) == stale


def test_a_lease_of_a_process_that_no_longer_exists_is_taken_over_immediately():
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    assert _stale({"host": socket.gethostname(), "pid": ended.pid, "time": time.time()})
    assert not _stale({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()})


def test_temporary_files_of_a_killed_process_are_removed(tmp_path, monkeypatch):
    out, killed = tmp_path / "out", "results.json.0123abcd.tmp"
    with locked_folder(out / "runs/other", "run"):
        for folder in (out, out / "images", out / "runs/other"):
            folder.mkdir(exist_ok=True)
            (folder / killed).write_bytes(b"x")
            (folder / "mine.tmp").write_bytes(b"x")
        with locked_folder(out, "run"):
            left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.tmp"))
    assert left == ["images/mine.tmp", "mine.tmp", "runs/other/mine.tmp", f"runs/other/{killed}"]
