"""Steps of a rehearsal that run given Python code."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rehearsal.plan import Step


def write_code_module(folder: Path) -> Path:
    """Write the module that code steps run, which must be on PYTHONPATH; returns the folder to add there."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "code_of_test.py").write_text("import sys\nexec(sys.argv[1])\n")
    return modules


def code_step(
    name: str, code: str, makes: Path, obsolete: Sequence[Path] = (), *, uses_gpu: bool = True, beside: bool = False
) -> Step:
    return Step(name, ("code_of_test", code), makes, tuple(obsolete), uses_gpu, beside)


def writes(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"
