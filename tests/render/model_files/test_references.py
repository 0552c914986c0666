import pytest

from render.model_files.references import find_file, is_inside


@pytest.fixture
def folder(tmp_path):
    """Return a model folder in a source folder, with other folders beside it and a file outside of the source."""
    for name in ("source/models/sub/Deep", "source/textures"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("outside.png", "source/models/sub/Deep/a.png", "source/textures/t.png", "source/models/in.png"):
        (tmp_path / name).write_bytes(b"x")
    return (tmp_path / "source" / "models").resolve()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("in.png", "models/in.png"),
        ("./sub/../in.png", "models/in.png"),
        ("SUB\\deep\\A.PNG", "models/sub/Deep/a.png"),
        ("/sub/Deep/a.png", "models/sub/Deep/a.png"),
        ("../Textures/T.png", "textures/t.png"),
        ("C:\\art\\t.png", "textures/t.png"),
        ("/home/ann/in.png", "models/in.png"),
        ("../../source/textures/t.png", "textures/t.png"),
    ],
)
def test_a_file_inside_is_found(folder, name, expected):
    assert find_file(name, folder, folder.parent) == folder.parent / expected


@pytest.mark.parametrize(
    "name", ["../../outside.png", "ABSOLUTE", "link.png", "loop.png", "up/outside.png", "a\0b", "x" * 5000, "sub", ""]
)
def test_a_file_outside_or_missing_is_not(folder, name):
    outside = folder.parents[1] / "outside.png"
    (folder / "link.png").symlink_to(outside)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to(folder.parents[1])
    assert find_file(str(outside) if name == "ABSOLUTE" else name, folder, folder.parent) is None
    assert not is_inside(folder / "loop.png", folder)
