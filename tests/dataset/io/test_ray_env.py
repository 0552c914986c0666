"""Starting Ray: a slow start is retried, and signal handlers are kept."""

import signal

import pytest

from dataset.errors import UserError
from dataset.io.ray_env import RAY_STARTS, start_ray

ray = pytest.importorskip("ray")


class FakeRay:
    """Replaces `ray.init`, which fails a number of times and takes over SIGTERM as Ray does."""

    def __init__(self, monkeypatch, failures, error):
        self.failures, self.error, self.calls, self.shutdowns = failures, error, [], 0
        monkeypatch.setattr(ray, "init", self.init)
        monkeypatch.setattr(ray, "shutdown", self.shutdown)

    def init(self, **options):
        self.calls.append(options)
        signal.signal(signal.SIGTERM, lambda *_: None)
        if len(self.calls) <= self.failures:
            raise self.error

    def shutdown(self):
        self.shutdowns += 1


SLOW = Exception("The current node timed out during startup.\nThis could happen because")


def test_a_slow_start_is_tried_again_and_handlers_stay(monkeypatch, capsys):
    fake = FakeRay(monkeypatch, RAY_STARTS - 1, SLOW)
    before = signal.getsignal(signal.SIGTERM)
    start_ray(address="local", num_cpus=1)
    assert fake.calls == [{"address": "local", "num_cpus": 1}] * RAY_STARTS
    assert fake.shutdowns == RAY_STARTS - 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err.count("Ray did not start (The current node timed out") == RAY_STARTS - 1


def test_too_many_failed_starts_are_one_line(monkeypatch):
    FakeRay(monkeypatch, RAY_STARTS, SLOW)
    with pytest.raises(UserError, match="Ray did not start on this machine in 3 attempts") as caught:
        start_ray(address="local")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("address", "error"), [("auto", ConnectionError("none")), ("local", ValueError("num_cpus"))])
def test_other_errors_are_not_tried_again(monkeypatch, address, error):
    fake = FakeRay(monkeypatch, 1, error)
    with pytest.raises(type(error)):
        start_ray(address=address)
    assert len(fake.calls) == 1


def test_a_missing_cluster_is_one_line(monkeypatch):
    from render.workers.actor_pool import ray_connection
    from render.workers.resources import machine_size

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    FakeRay(monkeypatch, 1, ConnectionError("Could not find any running Ray instance"))
    with (
        pytest.raises(UserError, match=r"no Ray cluster at RAY_ADDRESS=10\.0\.0\.1:6379"),
        ray_connection(machine_size()),
    ):
        pass
