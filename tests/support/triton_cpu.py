"""Triton kernels without a GPU: the interpreter, and the compiler up to PTX."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.paths import ROOT

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton has no wheel for this system")


def interpreted(module: str, names: Collection[str]) -> dict[str, float]:
    """What `python -m MODULE cpu` prints as JSON when Triton interprets: a difference for each of `names`.

    Triton reads whether it interprets when it is imported: hence a process of its own.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, "cpu"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences: dict[str, float] = json.loads(done.stdout)
    assert set(differences) == set(names)
    return differences


def compiled_for_h100(
    kernel: Any, types: Sequence[str], constants: Mapping[str, Any], whole: Collection[str] = (), **options: Any
) -> str:
    """The PTX of a kernel whose arguments have these types; pointers, and sizes of the types `whole`, are multiples of
    16.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {
        argument: "constexpr" if argument in constants else types[index]
        for index, argument in enumerate(kernel.arg_names)
    }
    aligned = (index for index, kind in enumerate(types) if kind.startswith("*") or kind in whole)
    attributes = {(index,): [["tt.divisibility", 16]] for index in aligned}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=attributes)
    ptx: str = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    return ptx
