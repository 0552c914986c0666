"""The benchmark of the frozen networks, at toy size on a CPU."""

import json

import pytest
import torch

from benchmarks.train import frozen_networks


def test_every_measurement_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert frozen_networks.main(["--toy", "--batches", "1", "--repeats", "1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["network"] for row in rows[:-1] if "network" in row} == {"vae", "vit"}
    assert {"vae", "vit", "matmul_peak_tflops"} <= rows[-1].keys()
    assert all(row["views_per_s"] > 0 for row in rows[:-1] if "network" in row)


def test_plain_attention_is_torchs() -> None:
    query, key, value = torch.randn(3, 2, 1, 16, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(frozen_networks.plain_attention(query, key, value), expected)
