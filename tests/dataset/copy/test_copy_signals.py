"""`python -m dataset copy` as a process: after an interrupt or kill no process remains, and the copy resumes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.check.verify import verify
from dataset.format.schema import dump_meta, meta_name, parse_meta
from tests.support.make_outcomes import LICENSES, make_set
from tests.support.make_shards import make_sample
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_no_process_and_resumes(tmp_path: Path, sent: signal.Signals) -> None:
    source, out = _many(tmp_path / "source", 400), tmp_path / "out"
    line = [sys.executable, "-m", "dataset", "copy", source, "--out", str(out), "--resolution", "4"]
    line += ["--objects-per-shard", "2", "--workers", "2"]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "outcomes/shard-000001.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if sent == signal.SIGINT:  # Ctrl-C reaches every process of the terminal
        os.killpg(process.pid, sent)
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted; run the same command again to resume")
    else:
        process.send_signal(sent)
        process.communicate(timeout=60)
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    assert not (out / "index.json").exists()
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{out}: 400 objects, 12800 views in 200 shards")
    assert verify(out) == []


def _many(folder: Path, objects: int) -> str:
    """A set of one object under many names."""
    one = make_sample("x", 0, 8)
    meta = parse_meta(one[meta_name("x")], "x")

    def sample(uid: str, i: int, _: int) -> dict[str, bytes]:
        members = {name.replace("x.", f"{uid}."): data for name, data in one.items()}
        return {**members, meta_name(uid): dump_meta(replace(meta, uid=uid, license=LICENSES[i % 2]))}

    return make_set(folder, "x", objects, 8, per_shard=40, sample=sample)


def _alive(group: int) -> bool:
    """Whether a process of the group runs (one that has ended and waits for its parent does not)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, leader = stat.read_text().rpartition(")")[2].split()[:3]
            if int(leader) == group and state != "Z":
                return True
    return False
