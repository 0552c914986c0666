import pytest

from render.model_files.errors import ModelError, UnsafeReference
from render.model_files.obj import check_obj


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "models"
    (inside / "sub").mkdir(parents=True)
    for path in (tmp_path / "outside.png", tmp_path / "outside.mtl", inside / "in.png", inside / "sub" / "a b.png"):
        path.write_text("newmtl a\n")
    return inside


def written(folder, library="", material=None, name="a.mtl"):
    (folder / "a.obj").write_text(library + "v 0 0 0\n")
    if material is not None:
        (folder / name).write_text(material)
    return folder / "a.obj"


LIBRARIES = [
    "mtllib ../outside.mtl",
    'mtllib "../outside.mtl"',
    "mtllib a.mtl ../outside.mtl",
    "mtllib ..\\outside.mtl",
    "mtllib sub/../../outside.mtl",
    "mtllib \\\n ../outside.mtl",
    "  mtllib\t../outside.mtl\r",
]
PICTURES = [
    "map_Kd ../outside.png",
    "map_Kd /etc/passwd",
    "map_Kd //etc/passwd",
    "map_Kd \\\n../outside.png",
    "map_Bump -o 0 0 0 ..\\outside.png",
    "bump -bm 1 ../outside.png",
    "  MAP_KD ../outside.png",
    "norm '../outside.png'",
]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_material_file_outside_is_refused(folder, library):
    with pytest.raises(UnsafeReference, match=r"outside\.mtl"):
        check_obj(written(folder, f"{library}\n"))


@pytest.mark.parametrize("line", PICTURES)
def test_a_picture_outside_is_refused_also_in_the_unnamed_library(folder, line):
    with pytest.raises(UnsafeReference):
        check_obj(written(folder, "mtllib b.mtl\n", f"newmtl a\n{line}\n", "b.mtl"))
    with pytest.raises(UnsafeReference):
        check_obj(written(folder, "", f"newmtl a\n{line}\n"))


def test_what_lies_inside_or_is_not_there_passes(folder):
    lines = ("map_Kd in.png", "map_Kd sub/a b.png", "map_Ks C:\\art\\gone.png", "map_Bump ../gone.png", "map_d")
    check_obj(written(folder, "mtllib gone.mtl ../gone.mtl\n", "\n".join(lines)))
    check_obj(written(folder, "mtllib " + "x" * 5000 + "\n"))
    check_obj(written(folder, "mtllib a\0b.mtl\n"))


def test_a_link_out_of_the_folder_is_refused(folder):
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(UnsafeReference):
        check_obj(written(folder, "", "map_Kd link.png\n"))


def test_a_name_of_very_many_words_is_refused(folder):
    with pytest.raises(ModelError):
        check_obj(written(folder, "mtllib " + "x " * 5000 + "\n"))
