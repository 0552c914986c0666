"""Marching rays ahead of their step. On a CPU nothing is marched ahead; stand-ins replace the streams of a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from distill.sds import march_ahead
from distill.sds.checkpoint import new_distillation
from distill.sds.march_ahead import MarchAhead, MarchedStep, march_step
from distill.sds.schedule import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = replace(PRESETS["tiny"], steps=40, checkpoint_every=10)


class FakeStream:
    """Stands in for a stream of a GPU and its events, and records the calls of all streams in one list."""

    device = torch.device("cuda")

    def __init__(self, name: str, calls: list[tuple[str, ...]]) -> None:
        self._name, self._calls = name, calls

    def record_event(self) -> str:
        self._calls.append((self._name, "records"))
        return f"event of {self._name}"

    def wait_event(self, event: str) -> None:
        self._calls.append((self._name, "waits for", event))

    def wait_stream(self, stream: "FakeStream") -> None:
        self._calls.append((self._name, "waits for", stream._name))


@pytest.fixture
def calls() -> list[tuple[str, ...]]:
    """The calls of both streams, and the beginning and end of the marching, in order."""
    return []


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The tensors whose memory is kept until the main stream has used them."""
    tensors: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: tensors.append(tensor))
    return tensors


@pytest.fixture
def ahead(calls: list[tuple[str, ...]], recorded: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> MarchAhead:
    """An object that marches ahead on the CPU."""
    marching = MarchAhead(new_distillation(SETTINGS, "cpu"), SETTINGS, 1000)
    main, marching._stream = FakeStream("main", calls), FakeStream("side", calls)

    @contextmanager
    def stream(_: Any) -> Iterator[None]:
        calls.append(("side", "begins"))
        yield
        calls.append(("side", "ends"))

    def march(*arguments: Any) -> MarchedStep:
        calls.append(("march",))
        return march_step(*arguments)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: main)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(march_ahead, "march_step", march)
    return marching


def same(step: int, found: Any, state: Any) -> bool:
    expected = march_step(state, SETTINGS, step, 1000).marched.tensors
    return all(torch.equal(a, b) for a, b in zip(found.marched.tensors, expected, strict=True))


def test_on_a_cpu_rays_are_marched_in_their_step() -> None:
    state = new_distillation(SETTINGS, "cpu")
    ahead = MarchAhead(state, SETTINGS, 1000)
    ahead.take(4)
    ahead.start(5)
    state.occupancy.grid.binaries[:, :16] = True  # seen only by what is marched from now on
    assert same(5, ahead.take(5), state)


def test_rays_are_marched_ahead_before_the_update(ahead: MarchAhead) -> None:
    state = ahead._state
    state.occupancy.grid.binaries[:] = True
    ahead.take(4)
    ahead.start(5)
    prepared = march_step(state, SETTINGS, 5, 1000)
    state.occupancy.grid.binaries[:] = False
    found = ahead.take(5)
    assert len(found.marched.samples.t) == len(prepared.marched.samples.t) > 0
    assert not same(5, found, state)
    assert same(5, ahead.take(5), state)  # taken only once


def test_the_side_stream_waits_for_the_field_and_the_update_for_the_side_stream(
    ahead: MarchAhead, calls: list[tuple[str, ...]], recorded: list[torch.Tensor]
) -> None:
    ahead.take(4)
    ahead.start(5)
    assert calls == [
        ("main", "records"),
        ("march",),  # of step 4
        ("side", "begins"),
        ("side", "waits for", "event of main"),
        ("march",),  # of step 5
        ("side", "ends"),
        ("main", "waits for", "side"),
    ]
    kept = {id(tensor) for tensor in recorded}
    assert {id(tensor) for tensor in ahead.take(5).marched.tensors} <= kept


@pytest.mark.parametrize("step", [8, 10, 40])
def test_a_step_after_an_update_of_the_grid_or_a_checkpoint_is_not_marched_ahead(ahead: MarchAhead, step: int) -> None:
    ahead.take(step - 1)
    ahead.start(step)
    assert ahead._next is None
