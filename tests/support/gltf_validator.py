"""Khronos' glTF validator, an npm package that is installed once into .venv from a lock file."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.paths import ROOT

TOOL: Final = ROOT / "tests" / "support" / "tools" / "gltf_validator"
NODE, NPM = shutil.which("node"), shutil.which("npm")
_UNREACHABLE: Final = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
)
_INSTALL: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000")


def validate(path: Path) -> dict[str, Any]:
    """The validator's report on a file. Skips the test, saying why, where it cannot be installed."""
    command = [NODE or "", str(TOOL / "validate.mjs"), str(_modules()), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _modules() -> Path:
    """The folder of the installed packages, named after the lock file; created at first use."""
    if not (NODE and NPM):
        pytest.skip("node or npm is not installed, so the glTF validator cannot run")
    lock = (TOOL / "package-lock.json").read_bytes()
    folder = ROOT / ".venv" / "npm" / hashlib.sha256(lock).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            _install(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / "node_modules"


def _install(folder: Path) -> None:
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(TOOL / name, folder)
    done = subprocess.run([NPM or "", *_INSTALL], cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if found := [code for code in _UNREACHABLE if code in done.stderr]:
        pytest.skip(f"npm cannot reach its registry ({found[0]}), so the glTF validator cannot be installed")
    if done.returncode:
        raise RuntimeError(f"npm {' '.join(_INSTALL)} in {TOOL} failed:\n{done.stderr[-2000:]}")
