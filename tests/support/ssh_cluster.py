"""Use `cluster/local.yaml` on the machines of ssh_hosts.sh: up, submit, lose a node, down.

`python -m tests.support.ssh_cluster FOLDER` runs in `tests/support/ssh_hosts.sh FOLDER` and prints its observations as
one line of JSON.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.support.paths import ROOT

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
RENDER = ["--source", "procedural:24", "--resolution", "16", "--samples", "1", "--objects-per-shard", "8"]
COUNT_NODES = (
    "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); "
    "print('alive', sum(node['Alive'] for node in ray.nodes()))"
)


class Laptop:
    """Runs Ray's commands from the root of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, str(folder / "render.yaml")
        # docs/cluster.md: v2 of the autoscaler loses workers of the local provider.
        self.environ = {**os.environ, "RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0"}

    def write_config(self) -> None:
        """cluster/render.yaml with these machines in it; the rest is what a person would use."""
        config = yaml.safe_load((ROOT / "cluster" / "render.yaml").read_text())
        config["cluster_name"] = f"isotropic3d-{os.urandom(4).hex()}"
        config["provider"] |= {"head_ip": "127.0.0.2", "worker_ips": ["127.0.0.3"]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.folder / "keys" / "user")}
        Path(self.config).write_text(yaml.safe_dump(config))

    def start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as output:
            return subprocess.Popen(
                [*RAY, *arguments], cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def ray(self, *arguments: str) -> str:
        log = f"ray-{arguments[0]}.log"
        status = self.start(log, *arguments).wait()
        text = (self.folder / log).read_text()
        if status:
            sys.exit(f"ray {' '.join(arguments)} ended with {status}:\n{text[-8000:]}")
        return text

    def nodes(self) -> int:
        text = self.ray("exec", self.config, f'python -c "{COUNT_NODES}"')
        return int(text.rpartition("alive ")[2].split()[0])

    def processes(self, machine: str, name: str) -> int:
        """How many processes of that machine have `name` in their command line."""
        listing = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        children: dict[int, list[tuple[int, str]]] = {}
        for line in listing.splitlines():
            pid, parent, command = line.split(None, 2)
            children.setdefault(int(parent), []).append((int(pid), command))
        found, todo = 0, [self.top(machine)]
        while todo:
            below = children.get(todo.pop(), [])
            todo += [pid for pid, _ in below]
            found += sum(name in command for _, command in below)
        return found

    def top(self, machine: str) -> int:
        return int((self.folder / f"{machine}.pid").read_text())


def lend_environment(home: Path) -> None:
    """Link this .venv, so that `make setup` on the node installs nothing."""
    venv = home / "isotropic3d" / ".venv"
    venv.mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    (venv / ".installed").touch()


def metrics() -> str:
    """The head node's Prometheus endpoint, at the port that cluster/local.yaml names; empty when it does not answer."""
    try:
        with urllib.request.urlopen("http://127.0.0.2:8080/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.2)


def main(folder: Path) -> None:
    laptop, seen, started = Laptop(folder), {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal started
        seen[f"{name}_s"] = round(time.monotonic() - started, 1)
        started = time.monotonic()

    laptop.write_config()
    for machine in ("head", "worker"):
        lend_environment(folder / machine)
    laptop.ray("up", "--yes", laptop.config)
    lap("up")
    wait_for("two nodes", lambda: laptop.nodes() == 2, 300)
    lap("second_node")

    job = laptop.start(
        "submit.log", "submit", laptop.config, "cluster/render_job.py", "--", *RENDER, "--shards", "data/set"
    )
    shards = folder / "head" / "isotropic3d" / "data" / "set"
    wait_for("a result", lambda: any(p.is_file() for p in shards.glob(".staging/**/*")) or job.poll() is not None, 300)
    wait_for("Blender on the worker", lambda: laptop.processes("worker", "render.blender") > 0, 60)
    seen["running_when_killed"] = job.poll() is None
    os.kill(laptop.top("worker"), signal.SIGKILL)
    wait_for("metrics", lambda: "objects_ended_total" in metrics() or job.poll() is not None, 300)
    seen["metrics"] = sorted(set(re.findall(r"^ray_isotropic3d_\w+", metrics(), re.MULTILINE)))
    seen["submit_status"] = job.wait(900)
    lap("submit")

    seen["nodes_left"] = laptop.nodes()
    laptop.ray("rsync-down", laptop.config, "~/isotropic3d/data/set/", str(folder / "set"))
    seen["raylets_before_down"] = laptop.processes("head", "raylet/raylet")
    laptop.ray("down", "--yes", laptop.config)
    seen["raylets_after_down"] = laptop.processes("head", "raylet/raylet")
    lap("fetch_and_down")
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
