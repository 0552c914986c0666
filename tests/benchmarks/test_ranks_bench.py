"""The benchmark of several ranks with two gloo processes, at a size that takes seconds."""

import json

from benchmarks.train import ranks_bench


def test_the_benchmark_compares_the_same_training(capsys):
    sizes = {
        "shape": "micro",
        "device": "cpu",
        "objects": 1,
        "grad-accum-steps": 2,
        "steps": 1,
        "rounds": 1,
        "stage": 1,
    }
    assert ranks_bench.main([text for name, value in sizes.items() for text in (f"--{name}", str(value))]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["global_batch_objects"] == 4
    assert line["speedup"] == line["speedups"]["ddp"] > 0
    assert line["largest_loss_difference"]["ddp"] < 1e-5
    assert line["weights_agree"] is True
