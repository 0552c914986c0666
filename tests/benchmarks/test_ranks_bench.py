"""The benchmark of several ranks with two gloo processes, at a size that takes seconds."""

import json

import pytest

from benchmarks.train import ranks_bench


def _arguments(**sizes: object) -> list[str]:
    sizes = {"shape": "micro", "device": "cpu", "objects": 1, "steps": 1, "rounds": 1, "stage": 1, **sizes}
    return [text for name, value in sizes.items() for text in (f"--{name}", *str(value).split())]


@pytest.mark.parametrize(
    ("world", "parallel", "names"),
    [
        ("2", "ddp", ["one", "ddp-2"]),
        pytest.param("2 4", "ddp fsdp", ["one", "ddp-2", "fsdp-2", "ddp-4", "fsdp-4"], marks=pytest.mark.slow),
    ],
)
def test_the_benchmark_compares_the_same_training(world, parallel, names, capsys):
    accumulated = 4 // int(world.split()[-1])
    assert ranks_bench.main(_arguments(world=world, parallel=parallel, **{"grad-accum-steps": accumulated})) == 0
    *ways, line = [json.loads(text) for text in capsys.readouterr().out.splitlines() if text.startswith("{")]
    assert [way["name"] for way in ways] == names
    assert [way["world"] * way["grad_accum_steps"] for way in ways] == [4] * len(ways)
    assert line["global_batch_objects"] == 4
    assert list(line["views_per_s"]) == list(line["first_losses"]) == names
    for way in ways:
        speedup = way["views_per_s"] / ways[0]["views_per_s"]
        assert line["speedups"][way["name"]] == pytest.approx(speedup, abs=1e-3)
        assert line["efficiency"][way["name"]] == pytest.approx(speedup / way["world"], abs=1e-3)
    assert list(line["communication_share"]) == [name for name in names if name.startswith("ddp")]
    assert list(line["reduction_s"]) == names[1:]
    assert max(line["largest_loss_difference"].values()) < 1e-5
    assert line["losses_agree"] is line["weights_agree"] is True


@pytest.mark.parametrize(("world", "number"), [("2 3", "2"), ("1", "1")])
def test_a_number_of_processes_that_cannot_share_the_batch_is_refused(world, number, capsys):
    with pytest.raises(SystemExit, match="2"):
        ranks_bench.main(_arguments(world=world, **{"grad-accum-steps": 1}))
    assert f"--world {number} cannot share a step" in capsys.readouterr().err
