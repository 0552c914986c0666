"""Distillation on a cluster: mounts, the started command, the code sent to workers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from cluster import distill_job, train_job
from dataset.io.ray_env import exclude_all_but
from distill.runs.ray_workers import WORKER_PACKAGES
from tests.support.paths import ROOT


def submit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the job like `ray submit`: a single file, with the standard library only."""
    shutil.copy(ROOT / "cluster" / "distill_job.py", home)
    command = [sys.executable, "-I", "-S", "distill_job.py", *arguments]
    return subprocess.run(command, cwd=home, env={"HOME": str(home)}, capture_output=True, text=True, check=False)


def test_job_starts_the_mounted_distillation_on_this_cluster(tmp_path):
    package = tmp_path / "isotropic3d" / "distill"
    package.mkdir(parents=True)
    (package / "runs").mkdir()
    (package / "runs" / "ray_workers.py").touch()
    (package / "__main__.py").write_text("import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()]))")
    asked = ["--image", "a cat.png", "b.png", "--num-seeds", "4"]
    done = submit(tmp_path, *asked)
    assert json.loads(done.stdout) == [[*asked, "--address", "auto"], str(tmp_path / "isotropic3d")], done.stderr
    for whole in (["--help"], ["--image", "a.png", "--address=ray://head:10001"]):
        assert json.loads(submit(tmp_path, *whole).stdout)[0] == whole


def test_job_says_where_no_checkout_is(tmp_path):
    done = submit(tmp_path, "--image", "a.png")
    assert done.returncode == 1
    assert "contains no checkout" in done.stderr


def test_the_mounts_hold_all_that_workers_import():
    mounts = yaml.safe_load((ROOT / "cluster" / "train.yaml").read_text())["file_mounts"]
    assert {f"{distill_job.MOUNT}/{package}" for package in WORKER_PACKAGES} <= mounts.keys()
    assert distill_job.MOUNT == train_job.MOUNT
    sent = [line for line in exclude_all_but(WORKER_PACKAGES) if line.startswith("!")]
    assert sent == [f"!/{package}{more}" for package in ("dataset", "train", "distill") for more in ("", "/**")]
