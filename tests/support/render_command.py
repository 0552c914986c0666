"""Run `python -m render` as a process, and inspect its files and processes."""

import subprocess
import sys
import time
from pathlib import Path

from tests.support.paths import ROOT

MARK = "ISOTROPIC3D_TEST_RUN"


def command(source, shards, *options):
    tiny = ("--resolution", "16", "--samples", "1", "--objects-per-shard", "3")
    return [sys.executable, "-m", "render", "--source", source, "--shards", str(shards), *tiny, *options]


def render(source, shards, *options):
    line = command(source, shards, *options)
    return subprocess.run(line, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)


def contents(folder):
    """The files of a set whose bytes depend only on the request: all except outcome tables, which contain times."""
    files = (
        path for path in Path(folder).rglob("*") if path.is_file() and path.parent.name not in ("outcomes", "logs")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def processes_marked(mark):
    """Ids of the Blender processes of a run, found by a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
                if marked and b"render.blender" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # ended meanwhile
                continue
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
