"""The rehearsal: its command lines, measurements, table and failures; the whole path at toy size is slow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.rehearsal import __main__ as rehearsal
from benchmarks.rehearsal import memory, step_process, timed_log
from benchmarks.rehearsal.inputs import SHAPES, random_checkpoint
from benchmarks.rehearsal.plan import SIZES, SizeName, Step, plan
from benchmarks.rehearsal.runner import StepCost, StepFailed, run_steps, table
from dataset.errors import UserError
from distill.__main__ import parse_args as parse_distill
from tests.support.code_steps import code_step, write_code_module, writes
from tests.support.paths import ROOT
from train.__main__ import Stage1, Stage2
from train.__main__ import parse as parse_train
from train.config.presets import PAPER
from train.config.schedules import objects_per_micro_batch
from train.convert.__main__ import parse as parse_convert
from train.convert.convert import convert
from train.data.sampling import draw_branch
from train.encode.__main__ import parse as parse_encode
from train.loop.flops import number_of_frames
from train.model.multiview import load_model
from train.sample import parse as parse_sample

PARSERS = {
    "train": parse_train,
    "train.convert": parse_convert,
    "train.encode": parse_encode,
    "train.sample": parse_sample,
    "distill": parse_distill,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose code steps can be run."""
    monkeypatch.setenv("PYTHONPATH", str(write_code_module(tmp_path)))
    return tmp_path


def use_steps(monkeypatch: pytest.MonkeyPatch, *steps: Step) -> None:
    monkeypatch.setattr(rehearsal, "plan", lambda *_, **__: list(steps))


@pytest.mark.parametrize("size", SIZES)
def test_the_commands_of_all_steps_exist(size: SizeName, tmp_path: Path) -> None:
    steps = plan(size, tmp_path, device="cpu", compile_unet="blocks")
    assert [step.name for step in steps] == [
        *("checkpoint", "objects", "convert", "encode", "stage1", "stage2", "sample", "distill")
    ]
    for step in steps:
        module, *arguments = step.arguments
        if module in PARSERS:
            PARSERS[module](arguments)


def test_micro_batches_at_the_papers_size_are_close_to_those_of_eight_gpus(tmp_path: Path) -> None:
    steps = {step.name: step for step in plan("paper", tmp_path, device="cuda", compile_unet="blocks")}
    objects, fewer = {}, {"stage1": 4, "stage2": 0}
    for name, schedule in (("stage1", PAPER.stage1), ("stage2", PAPER.stage2)):
        args = parse_train(steps[name].arguments[1:])
        assert isinstance(args, Stage1 | Stage2)
        assert args.schedule.accumulation == schedule.accumulation
        objects[name] = objects_per_micro_batch(args.schedule, 1)
        assert objects[name] == objects_per_micro_batch(schedule, 8) - fewer[name]
        branches = {draw_branch(args.seed, step, args.recipe.single_view_chance) for step in range(args.schedule.steps)}
        assert branches == {"single", "multi"}
    views = PAPER.num_views
    frames = [number_of_frames("none", views), number_of_frames("attention", views)]
    assert objects["stage1"] * frames[0] == objects["stage2"] * frames[1]  # residual blocks are compiled once


def test_steps_that_run_together_read_nothing_of_each_other_and_one_uses_the_gpu(tmp_path: Path) -> None:
    steps = plan("paper", tmp_path, device="cuda", compile_unet="blocks")
    assert [step.name for step in steps if step.beside_previous] == ["objects"]
    together = steps[:2]
    assert [step.uses_gpu for step in together] == [True, False]
    for step in together:
        assert not {str(other.makes) for other in together if other is not step} & set(step.arguments)


def test_no_step_reads_what_an_earlier_step_made_obsolete(tmp_path: Path) -> None:
    gone: set[str] = set()
    for step in plan("toy", tmp_path, device="cpu", compile_unet="none"):
        assert not gone & set(step.arguments)
        gone |= {str(path) for path in step.obsolete}


def test_a_random_checkpoint_is_converted_to_a_whole_model(tmp_path: Path) -> None:
    torch.save(random_checkpoint(SHAPES["toy"], torch.device("cpu")), tmp_path / "random.pt")
    out, options = tmp_path / "model", SIZES["toy"].convert
    convert(parse_convert([str(tmp_path / "random.pt"), str(out), "--cameras", "relative", *options]))
    model = load_model(out, torch.device("cpu"))
    assert model.spec.image_size == SIZES["toy"].image_size
    assert model.spec.cameras == "relative"


def test_costs_are_measured_over_all_descendants(folder: Path) -> None:
    child = "import time; x = bytearray(300_000_000); time.sleep(1.5)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); {writes(folder / 'made')}"
    (cost,) = run_steps([code_step("heavy", code, folder / "made")], folder / "logs")
    assert cost.seconds >= 1.5
    assert cost.peak_rss_gib is not None
    assert 0.28 < cost.peak_rss_gib < 1
    assert cost.peak_gpu_gib is None


def test_memory_of_processes_that_are_not_descendants_is_not_counted(tmp_path: Path) -> None:
    parents = {"1": 0, "20": 1, "21": 20, "22": 21, "30": 1}
    for pid, parent in parents.items():
        (tmp_path / pid).mkdir()
        fields = ["S", str(parent), *["0"] * 19, "10", "0"]
        (tmp_path / pid / "stat").write_text(f"{pid} (a) name) {' '.join(fields)}")
    (tmp_path / "23").mkdir()  # a process that has ended meanwhile
    assert memory.tree_rss_bytes(20, tmp_path) is None
    (tmp_path / "self").mkdir()
    assert memory.tree_rss_bytes(20, tmp_path) == 30 * memory.PAGE_BYTES


def test_memory_in_use_before_the_rehearsal_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool, used = tmp_path / "nvidia-smi", tmp_path / "used"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *name*) echo Test GPU;; *) cat {used};; esac\n')
    tool.chmod(0o755)
    used.write_text("1000\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setattr(memory, "PERIOD_S", 0.01)
    gpu = memory.first_gpu()
    assert gpu is not None
    assert (gpu.name, gpu.identifier) == ("Test GPU", "3")
    with gpu:
        code = (
            f"import os, time; assert os.environ['CUDA_VISIBLE_DEVICES'] == '3'; used = {str(used)!r}\n"
            f"open(used, 'w').write('3048'); time.sleep(1.5); open(used, 'w').write('1000')\n"
            f"{writes(tmp_path / 'made')}"
        )
        monkeypatch.setenv("PYTHONPATH", str(write_code_module(tmp_path)))
        blind = "import os, time; assert not os.environ['CUDA_VISIBLE_DEVICES']; time.sleep(1)\n"
        steps = [
            code_step("gpu", code, tmp_path / "made"),
            code_step("cpu", blind + writes(tmp_path / "b"), tmp_path / "b", uses_gpu=False, beside=True),
        ]
        costs = {cost.name: cost for cost in run_steps(steps, tmp_path / "logs", gpu=gpu)}
    assert (costs["gpu"].peak_gpu_gib, costs["cpu"].peak_gpu_gib) == (2, None)


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.first_gpu() is None
    monkeypatch.setattr(rehearsal, "first_gpu", lambda: None)
    for arguments in (["--size", "paper"], ["--size", "toy", "--device", "cuda"], ["--device", "cpu"]):
        with pytest.raises(UserError, match="--size toy"):
            rehearsal.main([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_files_that_no_later_step_reads_are_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [folder / name for name in ("a", "b")]
    steps = [code_step(path.name, writes(path), path, obsolete=[path]) for path in made]
    assert [cost.name for cost in run_steps(steps, folder / "logs", keep=True)] == ["a", "b"]
    assert all(path.exists() for path in made)
    assert [cost.name for cost in run_steps(steps, folder / "logs")] == ["a", "b"]
    assert not any(path.exists() for path in made)
    assert "[2/2] b: python -m code_of_test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('first'); raise SystemExit('the cause')", "ended with exit status 1"),
        ("print('the cause')", "did not write"),
        ("import os; print('the cause', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_failing_step_is_named_with_its_log_and_the_last_lines(folder: Path, code: str, reason: str) -> None:
    log = folder / "logs" / "1-broken.log"
    with pytest.raises(StepFailed) as failure:
        list(run_steps([code_step("broken", code, folder / "never")], log.parent))
    assert failure.value.step == "broken"
    for part in ("the step broken", reason, str(log), " s  the cause"):
        assert part in str(failure.value)


def test_the_last_line_is_json_with_a_row_per_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_steps(monkeypatch, *(code_step(name, writes(folder / name), folder / name) for name in ("one", "two")))
    out = folder / "out"
    monkeypatch.setattr(rehearsal, "IMPORTS", ())
    rehearsal.main(["--size", "toy", "--device", "cpu", "--out", str(out)])
    printed = capsys.readouterr().out.splitlines()
    line = json.loads(printed[-1])
    assert line == json.loads((out / "rehearsal.json").read_text())
    assert (line["size"], line["device"], line["failed"], line["finished"]) == ("toy", "cpu", None, True)
    assert [row["name"] for row in line["steps"]] == ["one", "two"]
    assert sum(text.startswith(("one ", "two ", "total ")) for text in printed) == 3
    (out / "old").mkdir()
    rehearsal.main(["--size", "toy", "--device", "cpu", "--out", str(out)])
    assert not (out / "old").exists()


def test_steps_marked_so_run_at_the_same_time(folder: Path) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)\n"
    one, two, three = (folder / name for name in ("one", "two", "three"))
    steps = [
        code_step("one", writes(one) + "\n" + wait.format(str(two)), one),
        code_step("two", wait.format(str(one)) + writes(two), two, beside=True),
        code_step("three", writes(three), three),
    ]
    costs = list(run_steps(steps, folder / "logs"))
    assert {cost.name for cost in costs[:2]} == {"one", "two"}
    assert costs[2].name == "three"


@pytest.mark.parametrize("code", ["time.sleep(600)", "signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
def test_a_failing_step_stops_the_step_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(step_process, "STOP_S", 0.5)
    pid = folder / "pid"
    long = f"import os, signal, time; open({str(pid)!r}, 'w').write(str(os.getpid())); {code}"
    fails = f"import os, time\nwhile not os.path.exists({str(pid)!r}): time.sleep(0.01)\ntime.sleep(0.5); sys.exit(3)"
    steps = [code_step("long", long, folder / "a"), code_step("fails", fails, folder / "b", beside=True)]
    with pytest.raises(StepFailed, match="the step fails of the rehearsal ended with exit status 3"):
        list(run_steps(steps, folder / "logs"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_each_line_of_a_log_begins_with_its_time(folder: Path) -> None:
    code = "import time; print('one'); time.sleep(1.2); print('two', end='\\rthree', file=sys.stderr)\n"
    list(run_steps([code_step("slow", code + writes(folder / "x"), folder / "x")], folder / "logs"))
    lines = (folder / "logs" / "1-slow.log").read_text().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["one", "two", "three"]
    first, second, third = (float(line.split(" s  ")[0]) for line in lines)
    assert second - first >= 1.1
    assert third >= second


def test_a_step_ends_though_its_child_keeps_the_output_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_log, "END_S", 0.2)
    code = f"import subprocess; subprocess.Popen(['sleep', '30']); print('done'); {writes(folder / 'x')}"
    (cost,) = run_steps([code_step("leaves", code, folder / "x")], folder / "logs")
    assert cost.seconds < 20
    assert (folder / "logs" / "1-leaves.log").read_text().endswith("done\n")


def test_a_failing_rehearsal_prints_the_finished_steps_and_exits_with_an_error(folder: Path) -> None:
    code = (
        "from benchmarks.rehearsal import __main__ as r; from benchmarks.rehearsal.plan import Step; from pathlib "
        "import Path; from dataset.errors import run_cli\n"
        "r.IMPORTS = ()\n"
        "r.plan = lambda *a, **k: [Step('good', ('json.tool', '--help'), Path('/')), Step('bad', ('json.tool', "
        "'/nowhere'), Path('/'))]\n"
        f"run_cli(lambda: r.main(['--size', 'toy', '--device', 'cpu', '--out', {str(folder / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: the step bad of the rehearsal ended with exit status" in done.stderr
    assert "/nowhere" in done.stderr.splitlines()[-1]
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["failed"], line["finished"], len(line["steps"])) == ("bad", False, 1)


def test_an_interrupt_stops_the_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pid: int) -> int:
        (folder / "pid").write_text(str(pid))
        raise KeyboardInterrupt

    monkeypatch.setattr(step_process, "tree_rss_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(run_steps([code_step("long", "import time; time.sleep(600)", folder / "never")], folder / "logs"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


def test_other_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_steps(monkeypatch)
    (tmp_path / "mine").write_text("text")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match="give a new folder"):
            rehearsal.main(["--size", "toy", "--device", "cpu", "--out", str(out)])
    assert (tmp_path / "mine").read_text() == "text"
    monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda _: _Usage())
    with pytest.raises(UserError, match="0 GB free, but the rehearsal needs 1 GB"):
        rehearsal.main(["--size", "toy", "--device", "cpu", "--out", str(tmp_path / "new")])


class _Usage:
    free = 10**8


def test_the_table_shows_a_dash_for_what_was_not_measured() -> None:
    costs = [StepCost("encode", 1.25, 2.0, None), StepCost("stage1", 100.0, 3.5, None)]
    assert table(costs, 90.0).splitlines() == [
        "step          seconds   host memory   GPU memory",
        "encode            1.2       2.0 GiB            -",
        "stage1          100.0       3.5 GiB            -",
        "total            90.0       3.5 GiB            -",
    ]
    assert table([StepCost("encode", 1.0, None, 41.0)], 1.0).splitlines()[-1].endswith("-     41.0 GiB")


@pytest.mark.slow
def test_the_whole_path_at_toy_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rehearsal.main(["--size", "toy", "--device", "cpu", "--out", str(tmp_path)])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["finished"] is True
    assert all(row["seconds"] > 0 and row["peak_rss_gib"] > 0 for row in line["steps"])
    assert (tmp_path / "asset" / "mesh.glb").read_bytes()[:4] == b"glTF"
    assert {path.name for path in tmp_path.iterdir()} == {"asset", "logs", "rehearsal.json", "sample.png"}
