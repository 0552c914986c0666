"""Break lines of the code one at a time and check that a test fails: `python -m tests.support.mutations`.

Each mutation of `tests.support.mutation_list` is applied to a copy of the last commit, its tests run there, and the
copy is restored. A mutation that no test notices survives: the line needs a test. The exit status is 1 if one survives.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal, NamedTuple

from dataset.errors import UserError, run_cli
from tests.support.paths import ROOT

LINKED: Final = ("weights", ".venv")  # not copied
Status = Literal["killed", "survived", "error", "timeout"]


class Mutation(NamedTuple):
    """One change of the code and the tests that should notice it."""

    file: str  # relative to the checkout
    old: str  # occurs exactly once
    new: str
    tests: str  # words of a pytest command line, such as "tests/dataset/test_camera.py -k pole"


class Result(NamedTuple):
    """What the tests said of a mutation."""

    status: Status
    test: str = ""  # the test that failed, when killed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and print a table."""
    from tests.support.mutation_list import MUTATIONS

    options = _options(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.only in f"{mutation.file} {mutation.new}"]
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for number in range(options.jobs):
            copies.put(copy_commit(Path(folder) / str(number)))

        def run(mutation: Mutation) -> Result:
            copy = copies.get()
            try:
                result = try_mutation(copy, mutation, options.timeout)
            finally:
                copies.put(copy)
            print(row(mutation, result), flush=True)
            return result

        print("| file | now | then | tests | result | by |\n|---|---|---|---|---|---|", flush=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            counts = Counter(result.status for result in pool.map(run, chosen))
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    return 1 if counts["survived"] or counts["error"] else 0


def copy_commit(target: Path) -> Path:
    """Copy the files of the last commit to a new folder, with links to the weights and the environment."""
    target.mkdir()
    archive = subprocess.Popen(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(target)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise UserError(f"{ROOT}: cannot be copied with git archive; commit first")
    for name in LINKED:
        shutil.rmtree(target / name, ignore_errors=True)
        (target / name).symlink_to(ROOT / name)
    return target


def try_mutation(copy: Path, mutation: Mutation, timeout_s: float) -> Result:
    """Run the tests with a mutation, then restore the file. Raises UserError when `old` does not occur exactly once."""
    path = copy / mutation.file
    before = path.read_text()
    if before.count(mutation.old) != 1:
        raise UserError(f"{mutation.file}: {mutation.old!r} occurs {before.count(mutation.old)} times; update the list")
    path.write_text(before.replace(mutation.old, mutation.new))
    try:
        return run_tests(copy, mutation.tests, timeout_s)
    finally:
        path.write_text(before)


def run_tests(copy: Path, tests: str, timeout_s: float) -> Result:
    """Run tests in a copy of the checkout, until the first failure."""
    # Without bytecode: a mutation of equal length within the same second would run the cached code.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = ["nice", sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Result("timeout")
    if done.returncode == 0:
        return Result("survived")
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py(?:::\S+)?)", done.stdout, re.MULTILINE)
    return Result("killed" if done.returncode == 1 else "error", failed[1] if failed else "")


def row(mutation: Mutation, result: Result) -> str:
    """Return a row of the table in Markdown."""
    now, then = (" ".join(text.split()).replace("|", "\\|") for text in (mutation.old, mutation.new))
    tests = mutation.tests.removeprefix("tests/").replace("|", "\\|")
    return f"| {mutation.file} | `{now}` | `{then}` | {tests} | {result.status} | {result.test} |"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run only mutations whose file or new text contains this")
    parser.add_argument("--jobs", type=int, default=2, help="mutations tried at once")
    parser.add_argument("--timeout", type=float, default=600, help="seconds per mutation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_cli(main)
