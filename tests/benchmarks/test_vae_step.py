"""The benchmark of the VAE's step runs at toy size, and reports an error as a row."""

import json

import torch

from benchmarks.distill import vae_step


def test_all_ways_at_toy_size(capsys):
    assert vae_step.main(["--toy", "--device", "cpu", "--repeats", "1"]) == 0
    *rows, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {(row["way"], row["half"]) for row in rows} == {
        (way, half) for way in vae_step.WAYS for half in ("coarse", "fine")
    }
    assert all(row["ms"] > 0 and row["host_ms"] > 0 and row["first_s"] > 0 for row in rows)
    for half in ("coarse", "fine"):
        assert last[half]["ms"] == min(row["ms"] for row in rows if row["half"] == half)


def test_an_error_is_a_row(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(vae_step, "_times", fail)
    assert vae_step.main(["--toy", "--device", "cpu", "--ways", "eager"]) == 0
    *rows, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [row["error"] for row in rows] == ["no memory"] * 2
    assert last == {"torch": torch.__version__}
