"""Exact resume: with repeated objects, several readers, latents; on another number of ranks, at the same position."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.paths import ROOT
from tests.support.train_micro import micro_run, with_items
from train.loop import loop
from train.loop.loop import train
from train.loop.run_config import TrainingRun

pytestmark = [pytest.mark.usefixtures("one_thread", "quick_samples"), pytest.mark.integration]


def _final(run: Path, steps: int = 6) -> dict[str, torch.Tensor]:
    """Weights and the optimizer's moments of the last checkpoint."""
    last = run / "checkpoints" / f"step-{steps:09d}"
    return load_file(last / "unet.safetensors") | load_file(last / "optimiser.safetensors")


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_killed_and_repeated_with_items_and_readers_ends_in_the_same_weights(
    shards: Path, latents: Path, base: Path, tmp_path: Path, kind: str
) -> None:
    data, delay_s = shards if kind == "pictures" else latents, random.uniform(0, 0.15)
    print(f"killed {delay_s:.3f} s after the first checkpoint")
    whole, killed = (with_items(micro_run(data, tmp_path / name, 6, base=base)) for name in ("whole", "killed"))
    train(replace(whole, recipe=replace(whole.recipe, readers=1)))
    command = [sys.executable, "-m", "tests.support.train_micro", "items", data, killed.out, "6", base]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while not (killed.out / "checkpoints" / "step-000000002").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
    assert not (killed.out / "model.json").exists()
    assert len(train(killed)) < 6
    assert _same(_final(whole.out), _final(killed.out))
    saved = json.loads((killed.out / "checkpoints" / "step-000000006" / "progress.json").read_text())
    assert saved["stream"] == {"step": 6, "item": 24, "world": 1, "items_per_object": 4}


def _stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send a stop signal in the middle of a step."""
    plain, done = loop.update, []

    def asks(optimizer: torch.optim.AdamW, loss: torch.Tensor, norm: torch.Tensor) -> None:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(optimizer, loss, norm)

    monkeypatch.setattr(loop, "update", asks)


def _stopped(run: TrainingRun, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """Train and stop in step `steps`. Return the path and content of the checkpoint's progress.json."""
    with monkeypatch.context() as patch:
        _stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    progress = run.out / "checkpoints" / f"step-{steps:09d}" / "progress.json"
    return progress, json.loads(progress.read_text())


def test_a_run_of_other_ranks_is_resumed_at_its_place_in_the_epoch_and_says_so(
    latents: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint as two ranks of two objects each would have written it: one rank of four resumes with its items."""
    whole, stopped = (micro_run(latents, tmp_path / name, 6, base=base) for name in ("whole", "stopped"))
    train(whole)
    progress, saved = _stopped(stopped, 4, monkeypatch)
    assert saved["stream"] == {"step": 4, "item": 16, "world": 1, "items_per_object": 1}
    progress.write_text(json.dumps({**saved, "stream": {**saved["stream"], "item": 8, "world": 2}}))
    capsys.readouterr()
    assert len(train(stopped)) == 2
    told = capsys.readouterr().err
    assert "resumed on 1 ranks instead of 2: epoch 2 resumes after 4 of its 6 items" in told
    assert _same(_final(whole.out), _final(stopped.out))


def test_a_checkpoint_from_before_the_stream_was_saved_resumes(
    latents: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (micro_run(latents, tmp_path / name, 4, base=base) for name in ("whole", "stopped"))
    train(whole)
    progress, saved = _stopped(stopped, 3, monkeypatch)
    progress.write_text(json.dumps({key: value for key, value in saved.items() if key != "stream"}))
    assert len(train(stopped)) == 1
    assert _same(_final(whole.out, 4), _final(stopped.out, 4))
