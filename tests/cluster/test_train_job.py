"""Training on a cluster: mounts, the started command, the code sent to workers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from cluster import render_job, train_job
from dataset.io.ray_env import exclude_all_but
from tests.support.paths import ROOT
from train.launch import WORKER_PACKAGES


def submit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the job like `ray submit`: a single file, with the standard library only."""
    shutil.copy(ROOT / "cluster" / "train_job.py", home)
    command = [sys.executable, "-I", "-S", "train_job.py", *arguments]
    return subprocess.run(command, cwd=home, env={"HOME": str(home)}, capture_output=True, text=True, check=False)


def test_job_starts_the_mounted_training_on_this_cluster(tmp_path):
    package = tmp_path / "isotropic3d" / "train"
    package.mkdir(parents=True)
    (package / "launch.py").touch()
    (package / "__main__.py").write_text("import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()]))")
    done = submit(tmp_path, "stage1", "--workers", "8")
    asked = ["stage1", "--workers", "8", "--address", "auto"]
    assert json.loads(done.stdout) == [asked, str(tmp_path / "isotropic3d")], done.stderr
    for whole in (
        ["stage1", "--help"],
        ["stage1", "--address=ray://head:10001"],
        ["image-encoder", "--steps", "9"],
        [],
    ):
        assert json.loads(submit(tmp_path, *whole).stdout)[0] == whole


def test_job_says_where_no_checkout_is(tmp_path):
    done = submit(tmp_path, "stage1")
    assert done.returncode == 1
    assert "contains no checkout" in done.stderr


def test_the_mounts_hold_all_that_workers_import():
    mounts = yaml.safe_load((ROOT / "cluster" / "train.yaml").read_text())["file_mounts"]
    assert {f"{train_job.MOUNT}/{package}" for package in WORKER_PACKAGES} <= mounts.keys()
    assert train_job.MOUNT == render_job.MOUNT
    assert [line for line in exclude_all_but(WORKER_PACKAGES) if line.startswith("!")] == [
        "!/dataset",
        "!/dataset/**",
        "!/train",
        "!/train/**",
    ]
