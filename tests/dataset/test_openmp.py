"""OpenMP threads sleep while they wait, in every process that imports train or distill before torch."""

import os
import re
import subprocess
import sys

import pytest

from dataset.openmp import let_threads_sleep
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def displayed(module: str, **given: str) -> dict[str, str]:
    """Return the settings that OpenMP's library reports when the command prints its help."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **given}
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return dict(re.findall(r"(\w+) = '([^']*)'", result.stderr))


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP library on Linux")
def test_openmp_reads_the_wait_policy_before_a_command_starts():
    for module in ("distill", "train.sample"):
        settings = displayed(module)
        assert (settings["OMP_WAIT_POLICY"], settings["GOMP_SPINCOUNT"]) == ("PASSIVE", "0"), module


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP library on Linux")
def test_the_environment_of_the_user_takes_precedence():
    assert displayed("distill", GOMP_SPINCOUNT="77")["GOMP_SPINCOUNT"] == "77"


@pytest.mark.parametrize("given", [None, *NAMES])
def test_a_variable_is_set_only_if_none_is(monkeypatch, given):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(given, "1")
    let_threads_sleep()
    now = {name: os.environ[name] for name in NAMES if name in os.environ}
    assert now == ({"OMP_WAIT_POLICY": "PASSIVE"} if given is None else {given: "1"})
