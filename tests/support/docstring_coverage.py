"""Count public functions whose docstrings state array shapes and raised errors.

`python -m tests.support.docstring_coverage` prints the shares per package and names what is missing.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

PACKAGES: Final = ("dataset", "render", "train", "distill")
_ARRAY: Final = re.compile(r"\b(Tensor|NDArray|ArrayLike|ndarray|Float\w*|U?Int\d+|IntArray)\b")
_SHAPE: Final = re.compile(r"\[[a-z0-9_*+. ()-]+(, ?[a-z0-9_*+. ()-]+)*\]|\bscalar|any shape|same shape|0-d")
_RAISES: Final = re.compile(r"\bRaises?\b")
_KERNELS: Final = "kernels"  # Triton functions take pointers, not arrays


@dataclass
class Coverage:
    """Counts of documented shapes and errors in the public functions of a package."""

    with_arrays: int = 0
    with_raises: int = 0
    without_shapes: list[str] = field(default_factory=list)
    without_raises: list[str] = field(default_factory=list)

    @property
    def shapes_share(self) -> float:
        """Share, 0 to 1, of functions with array arguments that state shapes."""
        return 1 - len(self.without_shapes) / max(1, self.with_arrays)

    @property
    def raises_share(self) -> float:
        """Share, 0 to 1, of raising functions that say so."""
        return 1 - len(self.without_raises) / max(1, self.with_raises)


def _public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Functions and methods without a leading underscore, each with the docstring of its class, if any."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield member, ast.get_docstring(node) or ""


def _takes_arrays(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    annotations = [a.annotation for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return any(_ARRAY.search(ast.unparse(annotation)) for annotation in annotations if annotation is not None)


def _raises(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the body, nested functions aside, raises an error by name (`raise` alone re-raises another's)."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        pending.extend(ast.iter_child_nodes(node))
    return False


def count(package: Path) -> Coverage:
    """Count one package; names are `file.py:line name`."""
    coverage = Coverage()
    for path in sorted(package.rglob("*.py")):
        if _KERNELS in path.parts:
            continue
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for function, of_class in _public_functions(ast.parse(source)):
            if function.name.startswith("_") and function.name != "__call__":
                continue
            name = f"{path.relative_to(package.parent)}:{function.lineno} {function.name}"
            signature = "\n".join(lines[function.lineno - 1 : function.body[0].lineno - 1])
            text = ast.get_docstring(function) or ""
            if _takes_arrays(function):
                coverage.with_arrays += 1
                comments = "".join(re.findall(r"#.*", signature))
                if not _SHAPE.search(text + comments + of_class):
                    coverage.without_shapes.append(name)
            if _raises(function):
                coverage.with_raises += 1
                if not _RAISES.search(text):
                    coverage.without_raises.append(name)
    return coverage


def main() -> None:
    """Print the shares and what is missing."""
    for package in PACKAGES:
        found = count(ROOT / package)
        print(
            f"{package}: shapes stated in {found.shapes_share:.0%} of {found.with_arrays}, "
            f"raises in {found.raises_share:.0%} of {found.with_raises}"
        )
        for kind, names in (("shapes", found.without_shapes), ("raises", found.without_raises)):
            for name in names:
                print(f"  no {kind}: {name}")


if __name__ == "__main__":
    main()
