"""The arrows of docs/architecture.md, read off the imports of every file."""

import ast
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
OURS = {*ALLOWED, "examples", "benchmarks", "tests"}
BPY_FILES = {
    "render/blender/scene.py",
    "render/blender/cycles.py",
    "render/blender/device.py",
    "render/blender/textures.py",
    "render/blender/__main__.py",
    "render/blender/procedural_glb.py",
    "benchmarks/render/plain_render.py",
    "benchmarks/render/denoise_share.py",
}


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(f"{'.' * node.level}{node.module or ''}")
    return modules


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    for path in files_of(package):
        modules = imported_modules(path)
        assert not [m for m in modules if m.startswith(".")], f"{path}: relative import"
        wrong = {m.split(".")[0] for m in modules} & (OURS - ALLOWED[package] - {package})
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_only_blenders_own_files_import_bpy():
    for path in files_of("render") + files_of("dataset") + files_of("train") + files_of("distill"):
        name = path.relative_to(ROOT).as_posix()
        if imported_modules(path) & {"bpy", "bmesh", "mathutils"}:
            assert name in BPY_FILES, f"{name} imports bpy"


@pytest.mark.parametrize("package", ["dataset", "render"])
def test_no_torch_where_blender_runs(package):
    for path in files_of(package):
        assert "torch" not in {m.split(".")[0] for m in imported_modules(path)}, (
            f"{path.relative_to(ROOT)} imports torch"
        )


def test_packages_have_empty_init():
    for package in ALLOWED:
        for init in (ROOT / package).rglob("__init__.py"):
            assert init.read_text() == "", f"{init.relative_to(ROOT)} is not empty"


def test_the_check_sees_a_wrong_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from train.model.multiview import load_model\nimport bpy\n")
    assert imported_modules(bad) == {"train.model.multiview", "bpy"}
