"""Marching rays ahead of their step. On a CPU nothing is marched ahead; streams of a GPU are replaced."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from distill.sds.checkpoint import new_distillation
from distill.sds.march_ahead import MarchAhead, march_step
from distill.sds.schedule import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = replace(PRESETS["tiny"], steps=40, checkpoint_every=10)


class FakeStream:
    """Stands in for streams and events of a GPU, and records the calls."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name) or self


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> MarchAhead:
    """An object that marches ahead on the CPU."""
    marching = MarchAhead(new_distillation(SETTINGS, "cpu"), SETTINGS, 1000)
    marching._stream = FakeStream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: marching._stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
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


def test_the_stream_waits_for_the_field_and_the_update_for_the_stream(ahead: MarchAhead) -> None:
    ahead.take(4)
    ahead.start(5)
    assert ahead._stream.calls == ["record_event", "wait_event", "wait_stream"]


@pytest.mark.parametrize("step", [8, 10, 40])
def test_a_step_after_an_update_of_the_grid_or_a_checkpoint_is_not_marched_ahead(ahead: MarchAhead, step: int) -> None:
    ahead.take(step - 1)
    ahead.start(step)
    assert ahead._next is None
