"""The file that `ray submit` copies finds the checkout and its Python; the driver joins the cluster or fails."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.driver import WORKER_PACKAGES, cluster_connection
from cluster.render_job import interpreter
from dataset.errors import UserError
from dataset.io.paths import ROOT as CHECKOUT
from dataset.io.ray_env import exclude_all_but
from tests.support.paths import ROOT

DRIVER = "import os, sys; print(sys.argv[1:], os.getcwd()); sys.exit(7)\n"


@pytest.fixture
def home(tmp_path):
    """A home folder after `ray up` and `ray submit`: the mounted checkout and the copied file."""
    cluster = tmp_path / "isotropic3d" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "driver.py").write_text(DRIVER)
    shutil.copy(ROOT / "cluster" / "render_job.py", tmp_path)
    return tmp_path


def submit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "render_job.py", *arguments]
    return subprocess.run(command, cwd=home, env={"HOME": str(home)}, capture_output=True, text=True, check=False)


def test_job_runs_the_mounted_driver_in_the_checkout(home):
    done = submit(home, "--source", "procedural:3", "--shards", "data/x")
    assert done.stdout.strip() == f"['--source', 'procedural:3', '--shards', 'data/x'] {home / 'isotropic3d'}"
    assert done.returncode == 7


def test_job_takes_another_root(home):
    (home / "isotropic3d").rename(home / "elsewhere")
    done = submit(home, "--source", "procedural:3", "--root", str(home / "elsewhere"))
    assert done.stdout.strip() == f"['--source', 'procedural:3'] {home / 'elsewhere'}"


def test_job_says_where_no_checkout_is(home):
    shutil.rmtree(home / "isotropic3d")
    done = submit(home, "--source", "procedural:3")
    assert done.returncode == 1
    assert f"{home / 'isotropic3d'} contains no checkout" in done.stderr
    assert "Traceback" not in done.stderr


def test_job_prefers_the_python_of_the_checkout(tmp_path):
    assert interpreter(tmp_path) == sys.executable
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert interpreter(tmp_path) == str(own)


def test_job_knows_the_standard_library_alone():
    """The job runs with the first Python on PATH and cannot import the checkout."""
    command = [sys.executable, "-I", "-S", ROOT / "cluster" / "render_job.py", "--root", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "/nowhere contains no checkout" in done.stderr


def test_driver_sends_the_code_along(monkeypatch):
    import ray

    asked = {}
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: asked.update(closed=True))
    with monkeypatch.context() as environ:
        environ.setenv("RAY_ADDRESS", "")
        with cluster_connection():
            assert asked["address"] == "auto"
            assert asked["runtime_env"] == {"working_dir": str(CHECKOUT), "excludes": exclude_all_but(WORKER_PACKAGES)}
            assert "closed" not in asked
    assert asked["closed"]


def test_driver_without_a_cluster(monkeypatch):
    import ray

    def refuse(**options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "")
    with pytest.raises(UserError, match="start one with `ray up"), cluster_connection():
        pass
