import io

import pytest
from tqdm import tqdm

from dataset.io import progress
from dataset.io.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_short_loop_writes_one_line_into_a_pipe() -> None:
    pipe = io.StringIO()
    bar = ProgressBar(range(12), "stage 1", unit="step", file=pipe)
    for _ in bar:
        bar.set_postfix({"loss": "0.5"}, refresh=False)
        bar.refresh()
    [line] = pipe.getvalue().splitlines()
    assert line.startswith("stage 1: 12/12 step, ")
    assert "loss=0.5" in line
    assert "\r" not in pipe.getvalue()


def test_a_long_loop_writes_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    pipe = io.StringIO()
    with ProgressBar(total=100, desc="copy", unit="object", file=pipe) as bar:
        for _ in range(100):
            now += 0.25
            bar.update()
            bar.refresh()
    shown = [line.split(" object")[0] for line in pipe.getvalue().splitlines()]
    assert shown == ["copy: 20/100", "copy: 40/100", "copy: 60/100", "copy: 80/100", "copy: 100/100"]


def test_other_text_does_not_disturb_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in ProgressBar(range(3), "work"):
        tqdm.write("a line")
    printed = capsys.readouterr()
    assert printed.out == "a line\n" * 3
    assert printed.err.count("\n") == 1
    assert "\r" not in printed.err


def test_without_a_total_or_a_description_the_count_is_shown() -> None:
    pipe = io.StringIO()
    for _ in ProgressBar(iter([1, 2]), unit="object", file=pipe):
        pass
    assert pipe.getvalue().startswith("2/? object, ")


def test_a_disabled_bar_writes_nothing() -> None:
    pipe = io.StringIO()
    assert list(ProgressBar(range(3), "work", disable=True, file=pipe)) == [0, 1, 2]
    assert pipe.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    for _ in ProgressBar(range(3), "work", file=terminal, ncols=60):
        pass
    assert "\r" in terminal.getvalue()
    assert "work: 100%|" in terminal.getvalue()
