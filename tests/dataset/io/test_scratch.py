"""Temporary folders are removed at the end; those of killed processes are removed at the next start."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dataset.io.scratch import PREFIX, ScratchFolder, remove_stale_folders, scratch_folder
from tests.support.paths import ROOT

HOLD = "import signal, sys; from dataset.io.scratch import ScratchFolder\nprint(ScratchFolder().path, flush=True)\n"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_removed_at_the_end_and_after_an_error(temporary):
    with scratch_folder() as path:
        (path / "sub").mkdir()
        assert path.parent == temporary
    with pytest.raises(KeyboardInterrupt), scratch_folder():
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_only_folders_of_dead_processes_are_removed(temporary):
    own = ScratchFolder()
    foreign = temporary / "isotropic3d-push-x"  # not of this form
    foreign.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + "signal.pause()"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    held = Path(process.stdout.readline().strip())
    (held / "big.glb").write_bytes(b"x")
    assert remove_stale_folders() == 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert remove_stale_folders() == 1
    assert sorted(temporary.iterdir()) == sorted([own.path, foreign])
    own.close()
    own.close()


def test_the_lock_protects_folders_of_other_containers(temporary, monkeypatch):
    with scratch_folder() as path:
        monkeypatch.setattr("dataset.io.scratch._exists", lambda pid: False)
        assert remove_stale_folders() == 0
        assert path.is_dir()


def test_links_are_not_followed(temporary):
    (temporary / "precious").mkdir()
    (temporary / f"{PREFIX}99999999-00000000").symlink_to("precious")
    assert remove_stale_folders() == 0
    assert (temporary / "precious").is_dir()
