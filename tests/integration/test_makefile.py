"""The training verbs of the Makefile, as `make -n` prints them."""

import itertools
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def training_commands(*arguments: str) -> list[list[str]]:
    """The words of each `python -m train` command that make would run, in order."""
    printed = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    commands = [shlex.split(line) for line in printed.splitlines() if " -m train stage" in line]
    return [words[words.index("train") + 1 :] for words in commands]


def options(words: list[str]) -> dict[str, str]:
    """`--name value` pairs after the subcommand."""
    assert len(words) % 2 == 1, words
    return dict(zip(words[1::2], words[2::2], strict=True))


GIVEN = list(itertools.product((None, "data/mvdream"), (None, "data/run"), (None, "paper")))


def variables(model: str | None, out: str | None, preset: str | None) -> list[str]:
    return [f"{name}={value}" for name, value in (("MODEL", model), ("OUT", out), ("PRESET", preset)) if value]


@pytest.mark.parametrize(("model", "out", "preset"), GIVEN)
@pytest.mark.parametrize("goals", [("train-stage1", "train-stage2"), ("train-stage2", "train-stage1")])
def test_both_stages_in_one_command_hand_over_the_model(
    goals: tuple[str, str], model: str | None, out: str | None, preset: str | None
) -> None:
    first, second = training_commands(*goals, "SHARDS=data/s", *variables(model, out, preset))
    assert (first[0], second[0]) == ("stage1", "stage2")
    folder = out or "data"
    common = {"--shards": "data/s", "--preset": preset or "tiny"}
    start = {} if model is None else {"--init-from": model}
    assert options(first) == {**common, "--out": f"{folder}/stage1", **start}
    assert options(second) == {**common, "--out": f"{folder}/stage2", "--init-from": f"{folder}/stage1"}


@pytest.mark.parametrize(("model", "out", "preset"), GIVEN)
def test_one_stage_alone_writes_to_out_itself(model: str | None, out: str | None, preset: str | None) -> None:
    common = {"--shards": "data/shards", "--preset": preset or "tiny"}
    start = {} if model is None else {"--init-from": model}
    [first] = training_commands("train-stage1", *variables(model, out, preset))
    assert first[0] == "stage1"
    assert options(first) == {**common, "--out": out or "data/stage1", **start}
    [second] = training_commands("train-stage2", *variables(model, out, preset))
    assert second[0] == "stage2"
    assert options(second) == {**common, "--out": out or "data/stage2", "--init-from": model or "data/stage1"}


def test_workers_and_args_reach_both_stages() -> None:
    both = training_commands("train-stage1", "train-stage2", "WORKERS=8", "ARGS=--seed 3")
    assert [(options(words)["--workers"], options(words)["--seed"]) for words in both] == [("8", "3")] * 2


@pytest.mark.parametrize("value", ["two words", "it's", 'a "b"', "a;b", "a&&b", "a`b", "s3://bucket/x?y=*"])
def test_each_value_is_one_word_of_the_shell(value: str) -> None:
    given = [f"{name}={value}" for name in ("MODEL", "OUT", "SHARDS")]
    first, second = map(options, training_commands("train-stage1", "train-stage2", *given))
    assert (first["--init-from"], first["--out"], first["--shards"]) == (value, f"{value}/stage1", value)
    assert (second["--init-from"], second["--out"], second["--shards"]) == (f"{value}/stage1", f"{value}/stage2", value)


def test_the_help_lists_every_verb_with_what_both_together_do() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("  make ")}
    assert "OUT/stage1" in lines["train-stage1"]
    assert "OUT/stage2" in lines["train-stage2"]
