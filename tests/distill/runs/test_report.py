"""`--json` prints one line about all runs, whatever happens; `--open` never makes a command fail."""

import json
import logging
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset.errors import UserError
from distill.__main__ import main
from distill.config import DistillArgs
from distill.runs import job as one
from distill.runs import plan
from tests.support.distill_micro import SETTINGS, draw, quick_results

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]
WARNING = "is unlike anything"


def results(*given: Any, **named: Any) -> Any:
    """Quick results, with metrics and a file per format."""
    report, out = quick_results(*given, **named), given[3]
    (out / "metrics.json").write_text(json.dumps({"steps": 4, "warnings": [WARNING]}))
    for kind in named["kinds"]:
        (out / f"mesh.{kind}").write_text(kind)
    return report


@pytest.fixture
def args(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> DistillArgs:
    """One image, a few small steps, and results that take no time."""
    monkeypatch.setattr(plan, "PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(one, "write_results", results)
    image = draw(tmp_path / "red.png", (200, 30, 30))
    return DistillArgs(image=(image,), model=base, out=tmp_path / "out", device="cpu", json=True)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    """Return what was printed, which must be one line."""

    def read() -> dict[str, Any]:
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1, printed
        values = json.loads(printed)
        assert isinstance(values, dict)
        return values

    return read


def test_a_run_and_its_repetition(args: DistillArgs, line: Callable[[], dict[str, Any]]) -> None:
    args = replace(args, formats=("usdz",), seed=3)
    assert main(args) == 0
    values = line()
    (run,) = values.pop("runs")
    assert values.pop("seconds") >= run.pop("seconds") > 0
    assert values == {"status": "done", "error": None}
    assert args.out is not None
    assert run == {
        "name": "red",
        "image": str(args.image[0]),
        "seed": 3,
        "status": "done",
        "error": None,
        "out": str(args.out),
        "files": {"glb": str(args.out / "mesh.glb"), "usdz": str(args.out / "mesh.usdz")},
        "faces": 12,
        "warnings": [WARNING],
        "notices": run["notices"],
        "metrics": {"steps": 4, "warnings": [WARNING]},
    }
    assert main(args) == 0
    (again,) = line()["runs"]
    assert {**again, "status": "done", "seconds": 0} == {**run, "seconds": 0}
    assert again["status"] == "skipped"


def test_failures_are_entries_too(args: DistillArgs, tmp_path: Path, line: Callable[[], dict[str, Any]]) -> None:
    (tmp_path / "cut.png").write_bytes(b"cut")
    assert main(replace(args, image=(tmp_path / "cut.png", *args.image), num_seeds=2)) == 1
    values = line()
    assert values["status"] == "failed"
    assert [(run["name"], run["seed"], run["status"]) for run in values["runs"]] == [
        *(("cut-seed-0", 0, "failed"), ("cut-seed-1", 1, "failed")),
        *(("red-seed-0", 0, "done"), ("red-seed-1", 1, "done")),
    ]
    assert "cannot be read as an image" in values["runs"][0]["error"]
    assert values["runs"][0]["files"] == values["runs"][0]["metrics"] == {}


def test_an_error_of_the_command_is_in_the_line(
    args: DistillArgs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[[], dict[str, Any]]
) -> None:
    (tmp_path / "cut.png").write_bytes(b"cut")
    with pytest.raises(UserError):
        main(replace(args, image=(tmp_path / "cut.png",)))
    values = line()
    assert (values["status"], values["runs"][0]["status"]) == ("failed", "failed")
    assert "cannot be read as an image" in values["error"]
    assert values["error"] == values["runs"][0]["error"]
    for wrong, message in (({"faces": 5}, "--faces is 5"), ({"image": (tmp_path / "none.png",)}, "none.png")):
        with pytest.raises(UserError):
            main(replace(args, **wrong))
        assert message in line()["error"]

    def mistaken(*given: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(one, "model_guidance", mistaken)
    with pytest.raises(KeyError):
        main(args)
    assert line()["error"] == "KeyError('a mistake')"


def test_a_stop_is_in_the_line(
    args: DistillArgs, monkeypatch: pytest.MonkeyPatch, line: Callable[[], dict[str, Any]]
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "model_guidance", stop)
    for count in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            main(replace(args, num_seeds=count))
        values = line()
        assert values["status"] == "stopped"
        assert [run["status"] for run in values["runs"]] == ["stopped"] * count


def test_a_dry_run_is_one_line_too(args: DistillArgs, line: Callable[[], dict[str, Any]]) -> None:
    assert main(replace(args, dry_run=True)) == 0
    assert line()["settings"]["steps"] == SETTINGS.steps


def test_without_json_nothing_of_it_is_printed(args: DistillArgs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(replace(args, json=False)) == 0
    assert "{" not in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2])
def test_the_page_is_written_and_opened(args: DistillArgs, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.setattr("distill.__main__.write_pages", lambda folders, page: page.write_text(f"{len(folders)}"))
    assert args.out is not None
    assert main(replace(args, open=True, num_seeds=count)) == 0
    assert opened == [(args.out / "page.html").as_uri()]
    assert (args.out / "page.html").read_text() == str(count)


def test_a_page_that_cannot_be_shown_is_no_failure(
    args: DistillArgs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("there is no screen"))
    assert main(replace(args, open=True)) == 0  # the files of quick results cannot be shown either

    def refuse(folders: Any, page: Any) -> None:
        raise UserError("no page")

    monkeypatch.setattr("distill.__main__.write_pages", refuse)
    assert main(replace(args, open=True)) == 0
    assert "no page" in caplog.text
