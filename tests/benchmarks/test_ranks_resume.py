"""The comparison of losses in the check of several ranks' checkpoints, and reading a killed run's output."""

import argparse
from pathlib import Path

import pytest

from benchmarks.train import ranks_kill, ranks_resume


def _losses() -> dict[str, list[float]]:
    """Losses of one process differ from those of two; those after the checkpoint of `one` differ from all others."""
    losses = {"one": [1.0] * 8, "ddp": [2.0] * 8, "fsdp": [2.0] * 8, "one-one": [1.0] * 4}
    losses |= {f"{a}-{b}": [2.0] * 4 for a in ("ddp", "fsdp") for b in ("ddp", "fsdp")}
    return losses | {f"{a}-one": [3.0] * 4 for a in ("ddp", "fsdp")} | {f"one-{b}": [4.0] * 4 for b in ("ddp", "fsdp")}


@pytest.mark.parametrize("changed", ["fsdp", "ddp-one", "one-fsdp", "ddp-fsdp", "fsdp-ddp", "one-one"])
def test_runs_of_the_same_training_are_compared(changed: str) -> None:
    assert set(ranks_resume.compare(_losses()).values()) == {0.0}
    losses = _losses()
    losses[changed][-1] += 0.5
    assert max(ranks_resume.compare(losses).values()) == 0.5


def test_steps_and_the_restart_are_read_from_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_kill.Command, "start", lambda _: None)
    command = ranks_kill.Command(argparse.Namespace(), tmp_path / "run")
    lines = ["step 1/9  images 4  loss 0.5  lr 1", "stage 2: 1/9 step", "step 2/9  images 8  loss 0.25  lr 1"]
    (tmp_path / "run.log").write_text("\n".join(lines))
    assert command.steps() == [(1, 0.5), (2, 0.25)]
    assert command.restarted_at() is None
    (tmp_path / "run.log").write_text("\n".join([*lines, "\x1b[36m(RayTrainWorker pid=7)\x1b[0m " + lines[2]]))
    assert (command.restarted_at(), command.last_step()) == (2, 2)
