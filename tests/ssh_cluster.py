"""What a person does with `cluster/local.yaml`, on the machines of ssh_hosts.sh: up, submit, lose a node, fetch, down.

`python -m tests.ssh_cluster FOLDER` runs inside of `tests/ssh_hosts.sh FOLDER` and prints what it saw as one line of JSON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = 24
RENDER = ["--source", f"procedural:{OBJECTS}", "--resolution", "16", "--samples", "1", "--objects-per-shard", "8"]


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "render.yaml"
        # v2 of the autoscaler loses the workers of the local provider; docs/cluster.md says so too.
        self.environ = {**os.environ, "RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0"}

    def ray(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def submit(self, *arguments: str) -> subprocess.Popen[bytes]:
        script = ["submit", str(self.config), "cluster/render_job.py", "--", *arguments]
        log = (self.folder / "submit.log").open("wb")
        command = [sys.executable, "-m", "ray.scripts.scripts", *script]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    def nodes(self) -> int:
        code = "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); print('alive', sum(n['Alive'] for n in ray.nodes()))"
        return int(self.ray("exec", str(self.config), f'python -c "{code}"').rpartition("alive ")[2].split()[0])

    def processes(self, machine: str, name: str) -> list[int]:
        """Processes of that machine whose command line holds `name`."""
        top = int((self.folder / f"{machine}.pid").read_text())
        listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listing.splitlines()]
        children: dict[int, list[tuple[int, str]]] = {}
        for pid, parent, args in rows:
            children.setdefault(int(parent), []).append((int(pid), args))
        found, todo = [], [top]
        while todo:
            for pid, args in children.get(todo.pop(), []):
                todo.append(pid)
                if name in args:
                    found.append(pid)
        return found

    def pull_the_plug(self, machine: str) -> None:
        os.kill(int((self.folder / f"{machine}.pid").read_text()), signal.SIGKILL)


def write_config(cluster: Cluster) -> None:
    """cluster/local.yaml with this test's machines in it; the rest is what a person would use."""
    config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    config["cluster_name"] = f"isotropic3d-{os.urandom(4).hex()}"
    config["provider"] |= {"head_ip": "127.0.0.2", "worker_ips": ["127.0.0.3"]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(cluster.folder / "keys" / "user")}
    cluster.config.write_text(yaml.safe_dump(config))


def lend_environment(home: Path) -> None:
    """A .venv that is this one, so that the node's `make setup` finds nothing to install."""
    venv = home / "isotropic3d" / ".venv"
    venv.mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    (venv / ".installed").touch()


def wait(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.2)


def main(folder: Path) -> None:
    cluster, seen, started = Cluster(folder), {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal started
        seen[f"{name}_s"] = round(time.monotonic() - started, 1)
        started = time.monotonic()

    write_config(cluster)
    for machine in ("head", "worker"):
        lend_environment(folder / machine)
    cluster.ray("up", "--yes", str(cluster.config))
    lap("up")
    wait("two nodes", lambda: cluster.nodes() == 2, 120)
    lap("both_nodes")
    shards = folder / "head" / "isotropic3d" / "data" / "set"
    job = cluster.submit(*RENDER, "--shards", "data/set", *sys.argv[2:])
    wait("a result", lambda: any(p.is_file() for p in shards.glob(".staging/**/*")) or job.poll() is not None, 180)
    wait("work on the worker", lambda: bool(cluster.processes("worker", "render.blender")) or job.poll() is not None, 60)
    seen["unfinished_when_killed"] = job.poll() is None
    seen["blender_on_worker"] = len(cluster.processes("worker", "render.blender"))
    cluster.pull_the_plug("worker")
    seen["submit_status"] = job.wait(600)
    lap("submit")
    seen["nodes_left"] = cluster.nodes()
    cluster.ray("rsync-down", str(cluster.config), "~/isotropic3d/data/set/", str(folder / "set"))
    cluster.ray("down", "--yes", str(cluster.config))
    lap("fetch_and_down")
    seen["raylets_after_down"] = len(cluster.processes("head", "raylet/raylet"))
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
