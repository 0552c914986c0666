"""The target `app` of the Dockerfile, as far as it can be checked where there is no docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from distill.app.__main__ import AppArgs
from tests.support.docker import docker_copies, docker_stages, docker_words, is_sent_to_docker
from tests.support.paths import ROOT

APP = docker_stages()["app"]


def test_it_serves_the_network_on_the_exposed_port_and_not_as_root() -> None:
    (entry,) = docker_words(APP, "ENTRYPOINT")
    python, flag, module, *options = json.loads(entry)
    assert (python, flag, module) == ("python", "-m", "distill.app")
    args = tyro.cli(AppArgs, args=options)
    assert (args.host, args.device) == ("0.0.0.0", "auto")
    assert docker_words(APP, "EXPOSE") == [str(args.port)] == ["7860"]
    assert docker_words(APP, "VOLUME") == [str(args.out)]
    assert docker_words(APP, "USER") == ["app"]
    assert APP.index("\nUSER app") > APP.rindex("\nRUN ")
    assert f"useradd --uid 1000 --create-home app && install --directory --owner app {args.out}" in APP


def test_nothing_is_requested_from_the_network_at_run_time() -> None:
    environment = dict(word.split("=") for word in " ".join(docker_words(APP, "ENV")).split())
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_its_sources_exist_and_are_sent_to_the_builder_without_caches() -> None:
    copies = docker_copies(APP)
    assert {source for source, _ in copies} >= {"requirements.lock", "requirements-app.lock", "weights"}
    for source, _ in copies:
        assert is_sent_to_docker(source), source
    assert "**/__pycache__" in (ROOT / ".dockerignore").read_text().split()


@pytest.mark.parametrize(("device", "left_out"), [("cpu", "bpy|cuda-.*|nvidia-.*|triton"), ("gpu", "bpy")])
def test_all_packages_are_installed_but_those_of_blender_and_of_other_devices(device: str, left_out: str) -> None:
    (command,) = (line for line in docker_words(APP, "RUN") if "pip install" in line)
    patterns = re.findall(r"skip='([^']+)'", command)
    skip = patterns[1 if device == "cpu" else 0]
    names = [line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    skipped = {name for name in names if re.search(skip, name)}
    assert skipped == {name for name in names if re.fullmatch(left_out, name)}
    assert {"torch", "torchvision"}.isdisjoint(skipped)


@pytest.mark.integration
def test_the_copied_files_are_all_that_a_run_needs(tmp_path: Path) -> None:
    for source, target in docker_copies(APP):
        for path in ROOT.glob(source):
            if path.is_dir():
                shutil.copytree(path, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder = tmp_path / target if target.endswith("/") else tmp_path
                folder.mkdir(exist_ok=True)
                shutil.copy(path, folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    code = "import distill.app.service, train.sample; print(distill.__file__)"
    assert subprocess.run([sys.executable, "-c", code], check=True, **run).stdout.startswith(str(tmp_path))
    command = [sys.executable, "-m", "distill", "--image", "examples/cat.png", "--dry-run"]
    assert json.loads(subprocess.run(command, check=True, **run).stdout)["model"] == "weights/tiny"
