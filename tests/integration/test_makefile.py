"""The verbs of the Makefile: the command lines that they run."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
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


@pytest.fixture(scope="module")
def python_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints the words it was given as JSON, in place of Python."""
    stub = tmp_path_factory.mktemp("stub") / "python"
    stub.write_text(f"#!{sys.executable} -S\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stub.chmod(0o755)
    return stub


def make(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    installed = ("-o", ".venv/.installed", "-o", ".venv/.backbone", "-o", ".venv/.app")
    command = ["make", "-s", *installed, f"PY={python}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def words_of(python: Path, *arguments: str) -> list[str]:
    """The words that a verb passes to Python."""
    result = make(python, *arguments)
    assert result.returncode == 0, result.stderr
    words: list[str] = json.loads(result.stdout)
    return words


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


NAMES = [
    "two words",
    "it's",
    'a "b"',
    "a;b",
    "a&&b",
    "a`b",
    "s3://bucket/x?y=*",
    "a$b",
    "$(shell echo x)",
    "$(x",
    "a\\b",
]


@pytest.mark.parametrize("value", NAMES)
def test_each_value_is_one_word_of_the_shell(value: str) -> None:
    given = [f"{name}={value}" for name in ("MODEL", "OUT", "SHARDS")]
    first, second = map(options, training_commands("train-stage1", "train-stage2", *given))
    assert (first["--init-from"], first["--out"], first["--shards"]) == (value, f"{value}/stage1", value)
    assert (second["--init-from"], second["--out"], second["--shards"]) == (f"{value}/stage1", f"{value}/stage2", value)


VERBS = {
    ("render", "SOURCE"): "--source",
    ("render", "SHARDS"): "--shards",
    ("render", "HDRI"): "--hdri",
    ("verify", "SHARDS"): 3,
    ("report", "SHARDS"): 3,
    ("tiny-model", "SHARDS"): "--shards",
    ("tiny-model", "OUT"): "--out",
    ("encode MODEL=m", "SHARDS"): 2,
    ("encode MODEL=m", "OUT"): 3,
    ("encode", "MODEL"): "--model",
    ("export OUT=o", "MODEL"): 2,
    ("export MODEL=m", "OUT"): 3,
    ("sample", "IMG"): "--image",
    ("sample", "MODEL"): "--model",
    ("sample", "OUT"): "--out",
    ("evaluate", "SHARDS"): "--shards",
    ("evaluate", "OUT"): "--out",
    ("evaluate-assets", "SHARDS"): "--shards",
    ("evaluate-assets", "OUT"): "--out",
    ("evaluate-photos", "IMG"): "--images",
    ("evaluate-photos", "MODEL"): "--model",
    ("evaluate-photos", "OUT"): "--out",
    ("distill", "MODEL"): "--model",
    ("distill", "OUT"): "--out",
    ("app", "MODEL"): "--model",
    ("app", "OUT"): "--out",
    ("demo", "SOURCE"): "--source",
    ("demo", "OUT"): "--out",
    ("rehearsal", "OUT"): "--out",
    ("test", "MARK"): "-m",
}


@pytest.mark.parametrize(("verb", "variable"), VERBS)
def test_a_name_of_any_characters_reaches_the_command(python_stub: Path, verb: str, variable: str) -> None:
    place = VERBS[verb, variable]
    for value in ['two words \'n "quotes" $b', "$(x `y` ;*"]:
        words = words_of(python_stub, *verb.split(), f"{variable}={value}")
        at = place if isinstance(place, int) else len(words) - words[::-1].index(place)
        assert words[at] == value
        assert value not in words[:at] + words[at + 1 :]


@pytest.mark.parametrize(
    ("verb", "variable", "option"),
    [
        ("distill", "IMG", "--image"),
        ("evaluate", "MODEL", "--model"),
        ("evaluate-assets", "MODEL", "--model"),
        ("evaluate-photos", "SHARDS", "--shards"),
        ("view", "OUT", "distill.view"),
    ],
)
def test_a_list_is_one_existing_name_or_words_and_patterns(
    python_stub: Path, tmp_path: Path, verb: str, variable: str, option: str
) -> None:
    def values(value: str) -> list[str]:
        words = words_of(python_stub, verb, f"{variable}={value}")
        first = words.index(option) + 1
        return list(itertools.takewhile(lambda word: not word.startswith("--"), words[first:]))

    for name in ['it\'s a "$b" $(x.png', "b.png"]:
        (tmp_path / name).touch()
        assert values(f"{tmp_path}/{name}") == [f"{tmp_path}/{name}"]
    assert values(f"{tmp_path}/*.png") == [f"{tmp_path}/b.png", f'{tmp_path}/it\'s a "$b" $(x.png']
    assert values("a$b it's") == ["a$b", "it's"]


def test_lists_have_the_defaults_of_their_commands(python_stub: Path) -> None:
    assert words_of(python_stub, "distill") == ["-m", "distill", "--image", "examples/cat.png"]
    assert words_of(python_stub, "view") == ["-m", "distill.view", "out", "--open"]
    assert "--model" not in words_of(python_stub, "evaluate")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [(("export",), "MODEL"), (("export", "MODEL=a"), "OUT"), (("export", "OUT=a"), "MODEL"), (("encode",), "MODEL")],
)
def test_a_missing_variable_is_named_in_one_line(python_stub: Path, arguments: tuple[str, ...], missing: str) -> None:
    result = make(python_stub, *arguments)
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert f"{missing} is not set; give {missing}=" in line


def test_help_needs_no_variables(python_stub: Path) -> None:
    assert words_of(python_stub, "export", "ARGS=--help") == ["-m", "train.export", "--help"]


def test_the_help_lists_every_verb_with_what_both_together_do() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("  make ")}
    assert "OUT/stage1" in lines["train-stage1"]
    assert "OUT/stage2" in lines["train-stage2"]
