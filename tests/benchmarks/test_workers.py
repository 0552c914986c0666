"""The benchmarks of several encoding and distillation workers, at toy size on a CPU or with a stub."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distill import distill_workers
from benchmarks.train import encode_workers
from dataset.errors import UserError


@pytest.mark.slow
def test_several_encoding_workers_make_the_same_latents(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--toy", "--objects-per-shard", "2", "--shards", "4", "--workers", "1", "2", "--work-dir", str(tmp_path)]
    assert encode_workers.main(words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["same_latents"] is True
    assert line["efficiency"]["1"] == 1
    assert line["efficiency"]["2"] == pytest.approx(line["views_per_s"]["2"] / line["views_per_s"]["1"] / 2, rel=0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--workers", "0"], "--workers is 0"), (["--shards", "3", "--toy"], "--shards is 3; it must be at least 4")],
)
def test_wrong_numbers_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        encode_workers.main(words)
    assert message in capsys.readouterr().err


def test_distillations_are_counted_per_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        runs = int(command[command.index("--num-seeds") + 1])
        assert command[command.index("--workers") + 1] == str(runs // 3)
        assert command[command.index("--steps") + 1] == "5"
        line = {"runs": [{"seconds": float(number)} for number in range(runs)]}
        return subprocess.CompletedProcess(command, 0, stdout=f"log\n{json.dumps(line)}\n", stderr="")

    monkeypatch.setattr(distill_workers.subprocess, "run", run)
    words = ["--workers", "1", "2", "--rounds", "3", "--device", "cpu", "--steps", "5"]
    assert distill_workers.main(words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["runs"] == {"1": 3, "2": 6}
    assert line["run_seconds"]["2"] == [0, 1, 2, 3, 4, 5]
    assert line["assets_per_minute"].keys() == line["seconds"].keys() == {"1", "2"}


def test_a_failed_distillation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="error: no such image")
    monkeypatch.setattr(distill_workers.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match="error: no such image"):
        distill_workers.main(["--workers", "1", "--device", "cpu"])
