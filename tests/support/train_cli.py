"""The run that a training command line configures."""

from train.__main__ import Stage1, Stage2, parse, resolve
from train.loop.run_config import TrainingRun


def resolved(stage: str, *options: str) -> TrainingRun:
    """`python -m train STAGE --out x OPTIONS`, parsed and resolved but not started."""
    args = parse([stage, *(() if "--out" in options else ("--out", "x")), *options])
    assert isinstance(args, Stage1 | Stage2)
    return resolve(args)
