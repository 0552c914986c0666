"""The fork server of the rehearsal: forks run, end and fail like new Python processes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.rehearsal import __main__ as rehearsal
from benchmarks.rehearsal import fork_server as fork_server_module
from benchmarks.rehearsal.fork_server import ForkServer
from benchmarks.rehearsal.runner import StepFailed, run_steps
from benchmarks.rehearsal.step_process import environment_of
from tests.support.code_steps import code_step, write_code_module, writes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose code steps can be run."""
    monkeypatch.setenv("PYTHONPATH", str(write_code_module(tmp_path)))
    return tmp_path


@contextmanager
def fork_server(folder: Path, *modules: str) -> Iterator[ForkServer]:
    """A fork server for steps that use no GPU."""
    with ForkServer(modules, folder / "logs" / "imports.log", environment_of(None)) as server:
        yield server


def test_later_steps_are_forks_that_run_like_commands(folder: Path) -> None:
    first, later = folder / "first", folder / "later"
    state = "f'{os.getppid()} {\"colorsys\" in sys.modules}'"
    parent = f"import os; open({str(first)!r}, 'w').write({state})"
    checks = (
        "import __main__, atexit, os, signal, threading\n"
        f"atexit.register(lambda: open({str(later)!r}, 'w').write({state}))\n"
        "assert __name__ == '__main__' and vars(__main__) is globals() and __main__.__spec__.name == 'code_of_test'\n"
        "assert sys.argv[0].endswith('code_of_test.py') and len(sys.argv) == 2\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert threading.active_count() == 1 and os.environ['CUDA_VISIBLE_DEVICES'] == ''\n"
        "sys.stdout.reconfigure(errors='backslashreplace'); print('out'); print('err', file=sys.stderr)\n"
        "os.system('echo child')"
    )
    steps = [code_step("first", parent, first), code_step("later", checks, later)]
    with fork_server(folder, "colorsys") as server:
        costs = list(run_steps(steps, folder / "logs", fork_server=server))
        server_pid = server.pid
    assert first.read_text() == f"{os.getpid()} False"
    assert later.read_text() == f"{server_pid} True"
    assert [line.split(" s  ")[1] for line in (folder / "logs" / "2-later.log").read_text().splitlines()] == [
        *("out", "err", "child")
    ]
    assert costs[1].peak_rss_gib is None or costs[1].peak_rss_gib > 0
    assert "imported" in (folder / "logs" / "imports.log").read_text()


@pytest.mark.parametrize(
    ("code", "reason", "last"),
    [
        ("raise SystemExit('the cause')", "ended with exit status 1", "the cause"),
        ("from dataset.errors import *\ndef f(): raise UserError('bad')\nrun_cli(f)", "exit status 2", "error: bad"),
        ("raise KeyError('the cause')", "ended with exit status 1", "KeyError: 'the cause'"),
        ("import os; print('the cause', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL", "the cause"),
        ("import os; os.kill(os.getppid(), 9); import time; time.sleep(600)", "was killed by SIGKILL", "is empty)"),
    ],
)
def test_a_failing_fork_is_reported_like_a_failing_process(folder: Path, code: str, reason: str, last: str) -> None:
    steps = [code_step("good", "", Path("/")), code_step("broken", code, folder / "never")]
    with fork_server(folder) as server, pytest.raises(StepFailed) as failure:
        list(run_steps(steps, folder / "logs", fork_server=server))
    assert reason in str(failure.value)
    assert str(failure.value).endswith(last)


def test_if_the_imports_fail_all_steps_are_new_processes(folder: Path) -> None:
    steps = [code_step(name, writes(folder / name), folder / name) for name in ("one", "two")]
    with fork_server(folder, "no_such_module") as server:
        assert len(list(run_steps(steps, folder / "logs", fork_server=server))) == 2
    assert "No module named 'no_such_module'" in (folder / "logs" / "imports.log").read_text()


def test_a_server_that_still_imports_ends_at_once(folder: Path) -> None:
    (folder / "modules" / "slow_import.py").write_text("import time; time.sleep(600)\n")
    began = time.monotonic()
    with fork_server(folder, "slow_import"):
        time.sleep(0.5)
    assert time.monotonic() - began < fork_server_module.STOP_S


def test_forks_end_with_the_server(folder: Path) -> None:
    source, output = os.pipe()
    with fork_server(folder) as server:
        assert server.is_ready()
        forked = server.start(["code_of_test", "import time; time.sleep(600)"], {}, output)
        assert forked.poll() is None
    os.close(output)
    assert os.read(source, 100) == b""  # returns when the last process has closed the output
    assert forked.poll() is not None
    os.close(source)


def test_a_server_that_has_initialized_cuda_starts_new_processes(folder: Path) -> None:
    """Importing `asks_for_gpus` makes torch ask CUDA for the number of GPUs; a fork could no longer use CUDA."""
    (folder / "modules" / "asks_for_gpus.py").write_text("import torch\ntorch._C._cuda_getDeviceCount()\n")
    made = folder / "made"
    code = f"assert 'torch' not in sys.modules; {writes(made)}"
    steps = [code_step("good", "", Path("/")), code_step("new", code, made)]
    with fork_server(folder, "asks_for_gpus") as server:
        assert len(list(run_steps(steps, folder / "logs", fork_server=server))) == 2


def test_the_imports_start_no_threads_and_do_not_initialize_cuda(folder: Path) -> None:
    """OpenBLAS, which starts threads when it is loaded, is limited to none; it would stop them before a fork."""
    made = folder / "made"
    code = (
        "import os, torch; from torch._inductor import async_compile\n"
        "assert len(os.listdir('/proc/self/task')) == len(os.listdir(f'/proc/{os.getppid()}/task')) == 1\n"
        "assert not torch.cuda._is_in_bad_fork() and not async_compile._pool_set\n"
        "assert {'open_clip', 'diffusers', 'train.loop.loop', 'distill.sds.guidance'} <= set(sys.modules)\n"
        f"assert float((torch.ones(300, 300) @ torch.ones(300, 300)).sum()) == 27e6; {writes(made)}"
    )
    steps = [code_step("good", "", Path("/")), code_step("fork", code, made)]
    environment = {**environment_of(None), "OPENBLAS_NUM_THREADS": "1"}
    modules = [*rehearsal.IMPORTS, *rehearsal.COMPILER_IMPORTS]
    with ForkServer(modules, folder / "logs" / "imports.log", environment) as server:
        assert len(list(run_steps(steps, folder / "logs", fork_server=server))) == 2
