import pytest

from render.model_files.errors import ModelError
from render.model_files.prepare import prepare_model

CORNERS = "vertex 0 0 0\nvertex 1e0 0 0\nvertex 0 1 0\n"
STL = f"solid a\nfacet normal 0 0 1\nouter loop\n{CORNERS}endloop\nendfacet\nendsolid a\n"


@pytest.mark.parametrize("suffix", ["glb", "gltf", "obj", "fbx", "ply", "stl"])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        ("\n <!DOCTYPE html><html></html>", "HTML page"),
        ("<HTML lang='en'>", "HTML page"),
    ],
)
def test_what_stands_in_place_of_a_model_is_named(tmp_path, suffix, text, name):
    path = tmp_path / f"a.{suffix}"
    path.write_text(text)
    with pytest.raises(ModelError, match=name):
        prepare_model(path, tmp_path, tmp_path)


def test_keywords_of_a_text_stl_become_lower_case(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "a.stl").write_text(STL)
    assert prepare_model(tmp_path / "a.stl", tmp_path, tmp_path / "scratch").path == tmp_path / "a.stl"
    (tmp_path / "a.stl").write_text(STL.upper())
    assert prepare_model(tmp_path / "a.stl", tmp_path, tmp_path / "scratch").path.read_text() == STL.lower()
    binary = b"SOLID FACET".ljust(80) + (1).to_bytes(4, "little") + bytes(50)
    (tmp_path / "a.stl").write_bytes(binary)
    assert prepare_model(tmp_path / "a.stl", tmp_path, tmp_path / "scratch").path == tmp_path / "a.stl"
