"""The benchmark of the field and its renderer, at toy size."""

import json

from benchmarks.distill.field_bench import main


def test_the_last_line_is_json(capsys):
    assert main(["--preset", "tiny", "--points", "50", "--repeats", "1", "--device", "cpu"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["device"] == "cpu"
    for name in ("coarse torch", "fine torch", "grid torch"):
        assert line[name]["forward_ms"] > 0
        assert line[name]["forward_backward_ms"] > 0
    assert "coarse kernels" not in line
