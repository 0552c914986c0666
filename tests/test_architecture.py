"""Which package and which folder may import which, read from the imports of every file (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ALLOWED = {
    "dataset": set(),
    "render": {"dataset"},
    "train": {"dataset"},
    "distill": {"train", "dataset"},
    "cluster": {"render", "train", "distill", "dataset"},
}
LAYERED = ("dataset", "render", "train", "distill")
OURS = {*ALLOWED, "examples", "benchmarks", "tests"}
BPY_FOLDER = "render/blender/"
INDEPENDENT = ("distill/nerf", "distill/mesh", "train/layers", "render/model_files")
MOST_MODULES = 13  # per folder: more than that is two topics


def imported_modules(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, `from a import b` as both `a` and `a.b`."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            modules.add(module)
            modules.update(f"{module}.{alias.name}" for alias in node.names)
    return modules


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def module_graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    names = {module_name(path): path for path in files_of(package) if path.name != "__init__.py"}
    return {name: (imported_modules(path) & names.keys()) - {name} for name, path in names.items()}


def folder_of(module: str) -> str:
    """The folder directly inside the package, or the module itself when it lies beside the folders."""
    return ".".join(module.split(".")[:2])


def folder_graph(package: str) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, imported in module_graph(package).items():
        folder = folder_of(module)
        graph.setdefault(folder, set()).update({folder_of(other) for other in imported} - {folder})
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one cycle in order, or none."""
    finished: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in finished:
            return []
        for other in sorted(graph.get(node, ())):
            if found := visit(other, [*path, node]):
                return found
        finished.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def top_level(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    for path in files_of(package):
        modules = imported_modules(path)
        assert not [m for m in modules if m.startswith(".")], f"{path}: relative import"
        wrong = top_level(modules) & (OURS - ALLOWED[package] - {package})
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", LAYERED)
def test_modules_do_not_import_each_other_in_a_circle(package):
    assert cycle_in(module_graph(package)) == []


@pytest.mark.parametrize("package", LAYERED)
def test_folders_import_one_way(package):
    assert cycle_in(folder_graph(package)) == []


@pytest.mark.parametrize("folder", INDEPENDENT)
def test_independent_folders_import_nothing_else_of_their_package(folder):
    package, own = folder.split("/")[0], folder.replace("/", ".")
    for path in files_of(folder):
        wrong = {m for m in imported_modules(path) if top_level({m}) == {package} and not f"{m}.".startswith(f"{own}.")}
        assert wrong <= {package}, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", LAYERED)
def test_nothing_imports_a_command(package):
    for path in files_of(package):
        commands = {m for m in imported_modules(path) if ".__main__" in m and top_level({m}) <= OURS}
        assert not commands, f"{path.relative_to(ROOT)} imports {sorted(commands)}"


def test_folders_stay_small():
    folders = {path.parent for package in LAYERED for path in files_of(package)}
    for folder in folders:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, f"{folder.relative_to(ROOT)} holds {len(modules)} modules"


def test_bpy_is_imported_in_one_folder_only():
    for path in files_of("render") + files_of("dataset") + files_of("train") + files_of("distill"):
        name = path.relative_to(ROOT).as_posix()
        if top_level(imported_modules(path)) & {"bpy", "bmesh", "mathutils"}:
            assert name.startswith(BPY_FOLDER), f"{name} imports bpy"


@pytest.mark.parametrize("package", ["dataset", "render"])
def test_no_torch_where_blender_runs(package):
    for path in files_of(package):
        assert "torch" not in top_level(imported_modules(path)), f"{path.relative_to(ROOT)} imports torch"


def test_packages_have_empty_init():
    set_environment = {ROOT / "train" / "__init__.py", ROOT / "distill" / "__init__.py"}  # before torch is imported
    for package in ALLOWED:
        for init in (ROOT / package).rglob("__init__.py"):
            if init in set_environment:
                assert imported_modules(init) == {
                    "dataset.openmp",
                    "dataset.openmp.let_threads_sleep",
                    "dataset.compile_cache",
                    "dataset.compile_cache.keep_compiled_code",
                }
            else:
                assert init.read_text() == "", f"{init.relative_to(ROOT)} is not empty"


def test_no_test_imports_another_test_file():
    for path in files_of("tests"):
        others = {m for m in imported_modules(path) if m.startswith("tests.") and ".test_" in m}
        assert not others, f"{path.relative_to(ROOT)} imports {sorted(others)}"


def mirrored_folders() -> Iterator[Path]:
    for path in files_of("tests"):
        relative = path.parent.relative_to(ROOT / "tests")
        if path.name.startswith("test_") and relative.parts and relative.parts[0] in LAYERED:
            yield relative


def test_tests_mirror_the_packages():
    for relative in mirrored_folders():
        assert (ROOT / relative).is_dir(), f"tests/{relative} has no counterpart"


def test_the_checks_see_what_they_look_for(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from train.model.multiview import load_model\nimport bpy\n")
    assert imported_modules(bad) == {"train.model.multiview", "train.model.multiview.load_model", "bpy"}
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
