"""Commands print at most one line when they end because of bad input, a signal or a closed pipe."""

import os
import signal
import subprocess
import sys

import pytest

from dataset.errors import UserError, run_cli
from tests.support.make_outcomes import make_set
from tests.support.paths import ROOT


def command(body, **options):
    """A process that runs `body` as the main function of a command."""
    code = f"import os, signal, sys, time\nfrom dataset.errors import run_cli\ndef main():\n    {body}\nrun_cli(main)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **{**pipes, **options})


def exit_status(main):
    with pytest.raises(SystemExit) as ended:
        run_cli(main)
    return ended.value.code


def raising(error):
    def main():
        raise error

    return main


def test_statuses_and_messages(capsys):
    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: 1) == 1
    assert exit_status(raising(SystemExit(3))) == 3
    assert exit_status(raising(UserError("x is 1; give 2"))) == 2
    assert exit_status(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.splitlines() == [
        "error: x is 1; give 2",
        "interrupted; run the same command again to resume",
    ]


def test_sigterm_is_one_line_and_runs_the_clean_up(capsys):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    assert exit_status(main) == 143
    assert capsys.readouterr().err == "terminated; run the same command again to resume\n"
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_child_is_ended_by_sigterm_as_usual():
    body = "pid = os.fork()\n    if not pid: signal.pause()\n    time.sleep(0.2); os.kill(pid, signal.SIGTERM)\n"
    process = command(body + "    print(os.waitpid(pid, 0)[1])")
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"15\n", b"", 0)


@pytest.mark.parametrize("body", ["[print(i) for i in range(10**6)]", "print(1)", "print(1); sys.exit(5)"])
def test_a_closed_pipe_ends_a_command_silently(body):
    read, write = os.pipe()
    os.close(read)
    process = command(body, stdout=write)
    os.close(write)
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 141)


def test_another_broken_pipe_is_still_an_error():
    process = command("raise BrokenPipeError('a socket')")
    assert b"BrokenPipeError: a socket" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


def test_a_name_that_is_not_utf8_is_printed_escaped():
    process = command(r"print(os.fsdecode(b'caf\xe9.glb'))", env={**os.environ, "PYTHONUTF8": "1"})
    assert (process.communicate(timeout=60), process.returncode) == ((b"caf\\udce9.glb\n", b""), 0)


def test_info_into_head_is_quiet(tmp_path):
    shards = make_set(tmp_path / "set", "x", 2, 8)
    line = f"{sys.executable} -m dataset info {shards} --quick | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() in ("0", "141")
    assert "Traceback" not in run.stderr
    assert "BrokenPipe" not in run.stderr
