"""The options of `python -m distill.evaluate`."""

from typing import Any

import pytest
import tyro

from distill.evaluate.__main__ import parse_args
from distill.evaluate.config import AssetEvaluationArgs


def test_help_explains_every_option(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(AssetEvaluationArgs, args=["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{option.replace('_', '-')}" in shown for option in AssetEvaluationArgs.__dataclass_fields__)


def test_renamed_flags_keep_working(capsys: Any) -> None:
    old = parse_args(["--model", "m", "--objects", "7", "--reference=both", "--sampling-steps", "5"])
    assert (old.max_objects, old.compare_reference, old.ddim_steps) == (7, "both", 5)
    assert "--objects is now --max-objects" in capsys.readouterr().err
    new = ["--model", "m", "--max-objects", "7", "--compare-reference", "both", "--ddim-steps", "5"]
    assert parse_args(new) == old
    assert capsys.readouterr().err == ""
