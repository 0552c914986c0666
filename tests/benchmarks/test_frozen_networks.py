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


def test_attention_is_counted_as_its_products() -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    tokens = torch.zeros(1, 5, 8)
    flops = frozen_networks.count_flops(lambda x: attention(x, x, x, need_weights=False), tokens)
    assert flops == 2 * (5 * 8 * 4 * 8 + 2 * 5 * 5 * 8)  # four projections; scores and their product with the values
