"""ProgressMetrics reaches Ray's Prometheus endpoint; the rate is that of the last minute."""

import json
import re
import socket
import subprocess
import sys

import pytest

from render.workers.prometheus import Rate
from tests.support.paths import ROOT

# A Ray of its own, in a process of its own: the endpoint's port is a setting of the whole process.
COUNT_AND_SCRAPE = """
import json, sys, time, urllib.request
import ray
from render.workers.prometheus import ProgressMetrics

port = int(sys.argv[1])
ray.init(address="local", num_cpus=1, include_dashboard=False, _metrics_export_port=port, log_to_driver=False,
         logging_level="ERROR", object_store_memory=100 * 2**20)
progress = ProgressMetrics("data/set", total=10, ended=3)
progress.update(ok=2)
progress.update(ok=1, failed=1, skipped=1)
deadline, text = time.monotonic() + 60, ""
while "objects_per_second" not in text and time.monotonic() < deadline:
    time.sleep(0.5)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        continue
print(json.dumps([line for line in text.splitlines() if "isotropic3d" in line and not line.startswith("#")]))
"""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_of_the_last_minute():
    clock = Clock()
    rate = Rate(60.0, clock)
    assert rate.per_second() == 0.0
    clock.now += 10
    rate.add(30)
    assert rate.per_second() == pytest.approx(3.0)  # over the ten seconds since the start
    clock.now += 50
    rate.add(60)
    assert rate.per_second() == pytest.approx(1.5)
    clock.now += 30  # the 30 are 80 s old now
    assert rate.per_second() == pytest.approx(1.0)
    clock.now += 60
    assert rate.per_second() == 0.0


@pytest.mark.slow
def test_progress_is_on_the_metrics_endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", COUNT_AND_SCRAPE, str(port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=True)
    values = {}
    for line in json.loads(done.stdout.splitlines()[-1]):
        name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
        assert 'set="data/set"' in labels.lower()
        status = re.search(r'status="(\w+)"', labels, re.IGNORECASE)
        values[name, status[1] if status else ""] = float(value)
    prefix = "ray_isotropic3d_render_objects"
    assert values[f"{prefix}_ended_total", "ok"] == 3
    assert values[f"{prefix}_ended_total", "failed"] == 1
    assert values[f"{prefix}_ended_total", "skipped"] == 1
    assert values[prefix, ""] == 10
    assert values[f"{prefix}_left", ""] == 2
    assert values[f"{prefix}_per_second", ""] > 0
