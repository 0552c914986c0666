"""A real cluster of ssh machines: `ray up`, `ray submit`, a node lost during the run, `ray down`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ssh_cluster import RENDER

NEEDED = {"/usr/sbin/sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "unshare": "util-linux"} | {
    "ip": "iproute2",
    "ps": "procps",
}


def obstacle() -> str:
    """Why the machines cannot be created here; empty when they can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root, for namespaces and sshd"
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing:
        return f"apt-get install {' '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "true"], check=False)
    return "namespaces are not allowed here" if tried.returncode else ""


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


@pytest.mark.slow
def test_the_set_is_complete_although_a_node_was_lost():
    if reason := obstacle():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ssh") as name:  # a short path: sockets lie below it
        folder = Path(name)
        command = [
            ROOT / "tests" / "support" / "ssh_hosts.sh",
            folder,
            sys.executable,
            "-m",
            "tests.support.ssh_cluster",
            folder,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{tail(folder / 'submit.log')}"
        seen = json.loads(done.stdout.splitlines()[-1])
        print(seen)  # with pytest -s: the times
        assert seen["running_when_killed"]
        assert seen["submit_status"] == 0, tail(folder / "submit.log")
        assert seen["nodes_left"] == 1
        assert "ray_isotropic3d_render_objects_ended_total" in seen["metrics"]
        assert (seen["raylets_before_down"], seen["raylets_after_down"]) == (1, 0)

        verify = [sys.executable, "-m", "dataset", "verify", folder / "set"]
        assert "24 objects" in subprocess.run(verify, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        logs = [path.name for path in (folder / "set" / "logs").glob("worker-*.log")]
        assert any(log.startswith("worker-head-") for log in logs)

        here = [sys.executable, "-m", "render", *RENDER, "--shards", folder / "here"]
        subprocess.run(here, cwd=ROOT, capture_output=True, check=True)
        assert shards(folder / "set") == shards(folder / "here")


def tail(log: Path) -> str:
    return log.read_text()[-4000:] if log.exists() else ""
