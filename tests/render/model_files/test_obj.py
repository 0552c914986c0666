import pytest

from render.model_files.errors import ModelError
from render.model_files.obj import prepare_obj

FACE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


@pytest.fixture
def folder(tmp_path):
    """A model's folder `models` in the source's folder `source`; files of the same names are outside of the source."""
    inside = tmp_path / "source" / "models"
    for each in (inside / "sub", tmp_path / "source" / "images", tmp_path / "scratch"):
        each.mkdir(parents=True)
    for path in (tmp_path / "outside.png", inside / "in.png", inside / "sub" / "a b.png", inside / "../images/t.png"):
        path.write_text("picture")
    for path in (tmp_path / "outside.mtl", inside / "sub" / "m.mtl", inside / "../above.mtl"):
        path.write_text("newmtl a\nKd 1 0 0\n")
    return inside


def prepared(folder, head="", material=None, name="a.mtl"):
    """(the prepared model, the text of its material file) of an OBJ file with these lines before its face."""
    (folder / "a.obj").write_bytes(head.encode() + FACE.encode())
    if material is not None:
        (folder / name).write_bytes(material.encode())
    scratch = folder.parents[1] / "scratch"
    model = prepare_obj(folder / "a.obj", folder.parent, scratch)
    text = model.path.with_suffix(".mtl").read_text() if model.path.parent == scratch else ""
    return model, text


@pytest.mark.parametrize(
    "library",
    [
        "mtllib ../../outside.mtl",
        'mtllib "../../outside.mtl"',
        "mtllib gone.mtl ../../outside.mtl",
        "mtllib ..\\..\\outside.mtl",
        "mtllib sub/../../../outside.mtl",
        "mtllib \\\n ../../outside.mtl",
        "  mtllib\t../../outside.mtl\r",
        "mtllib gone.mtl",
        "mtllib a\0b.mtl",
        "mtllib " + "x" * 5000,
    ],
)
def test_a_material_file_outside_or_missing_is_not_named_in_the_copy_and_flagged(folder, library):
    model, text = prepared(folder, f"{library}\nusemtl a\n")
    assert model.flags == ("missing-material",)
    assert b"mtllib" not in model.path.read_bytes()
    assert "newmtl" not in text


@pytest.mark.parametrize(
    "head",
    [
        "mtllib sub/m.mtl\nusemtl a\n",
        "mtllib sub\\m.mtl\nusemtl a\n",
        "mtllib SUB/M.mtl\nusemtl a\n",
        "mtllib ../above.mtl\nusemtl a\n",
        "mtllib gone.mtl sub/m.mtl\nusemtl a\n",
        "mtllib sub/m.mtl\nusemtl A\n",
        "\ufeffmtllib sub/m.mtl\nusemtl a\n",
        "mtllib sub/m.mtl\nusemtl a\nusemtl (null)\n",
    ],
)
def test_material_files_inside_the_source_are_found(folder, head):
    model, text = prepared(folder, head)
    assert model.flags == ()
    assert "Kd 1 0 0" in text
    assert not model.path.read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_linked_material_file_of_the_same_name_is_not_opened_outside(folder):
    (folder / "a.mtl").symlink_to(folder.parents[1] / "outside.mtl")
    model, text = prepared(folder, "usemtl a\n")
    assert (model.flags, text) == (("missing-material",), "")
    assert model.path != folder / "a.obj"


def test_an_unknown_material_is_flagged_and_what_uses_none_is_not(folder):
    assert prepared(folder, "mtllib sub/m.mtl\nusemtl b\n")[0].flags == ("missing-material",)
    assert prepared(folder, "mtllib gone.mtl\n")[0].flags == ()
    plain, _ = prepared(folder)
    assert (plain.path, plain.flags) == (folder / "a.obj", ())


@pytest.mark.parametrize(
    ("head", "flags"),
    [
        ("mtllib sub/m.mtl\n", ("missing-material",)),
        (f"mtllib sub/m.mtl\n{FACE}usemtl a\n", ("missing-material",)),
        ("usemtl a\nmtllib sub/m.mtl\n", ()),
    ],
)
def test_faces_without_a_material_are_flagged_if_a_file_defines_materials(folder, head, flags):
    assert prepared(folder, head)[0].flags == flags


def test_a_material_file_of_the_same_name_that_no_face_uses_is_flagged(folder):
    assert prepared(folder, "", "newmtl a\nKd 1 0 0\n")[0].flags == ("missing-material",)
    assert prepared(folder, "", "# no materials\n")[0].flags == ()


def test_a_file_with_carriage_returns_only_is_read(folder):
    (folder / "a.mtl").write_text("newmtl a\rKd 0 1 0\r")
    (folder / "a.obj").write_text(("usemtl a\n" + FACE).replace("\n", "\r"))
    model = prepare_obj(folder / "a.obj", folder.parent, folder.parents[1] / "scratch")
    assert model.flags == ()
    assert model.path.read_text() == "usemtl a\n" + FACE
    assert "Kd 0 1 0" in model.path.with_suffix(".mtl").read_text()


def test_utf_16_is_read(folder):
    (folder / "m.mtl").write_bytes("\ufeffnewmtl a\nKd 0 1 0\n".encode("utf-16-be"))
    (folder / "a.obj").write_bytes(("\ufeffmtllib m.mtl\nusemtl a\n" + FACE).encode("utf-16-le"))
    model = prepare_obj(folder / "a.obj", folder.parent, folder.parents[1] / "scratch")
    assert model.flags == ()
    assert model.path.read_text() == "#mtlib m.mtl\nusemtl a\n" + FACE
    assert "Kd 0 1 0" in model.path.with_suffix(".mtl").read_text()


def test_decimal_commas_of_materials_are_read(folder):
    _, text = prepared(folder, "usemtl a\n", "newmtl a\nKd 0,8 0,1 0\nNs 1,5\n")
    assert text == "newmtl a\nKd 0.8 0.1 0\nNs 1.5\n"


def test_decimal_commas_are_read(folder):
    (folder / "a.obj").write_text("o a,b\nv 0,0 0,0 0\nv 1,5 0 0\nv 0 -1,5e0 0\nvt 0,5 1\nf 1 2 3\n")
    model = prepare_obj(folder / "a.obj", folder.parent, folder.parents[1] / "scratch")
    assert model.path.read_text() == "o a,b\nv 0.0 0.0 0\nv 1.5 0 0\nv 0 -1.5e0 0\nvt 0.5 1\nf 1 2 3\n"


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd ../../outside.png",
        "map_Kd /etc/passwd",
        "map_Kd //etc/passwd",
        "map_Kd \\\n../../outside.png",
        "map_Kd -o 0 0 0 ..\\..\\outside.png",
        "  MAP_KD ../../outside.png",
        "map_Kd '../../outside.png'",
        "map_Kd\t../../outside.png\rmtllib ../../outside.mtl",
        "map_Kd link.png",
        "map_Kd gone.png",
    ],
)
def test_an_image_outside_is_replaced_by_none(folder, line):
    (folder / "link.png").symlink_to(folder.parents[1] / "outside.png")
    _, text = prepared(folder, "usemtl a\n", f"newmtl a\n{line}\n")
    assert text.splitlines() == ["newmtl a", next(t for t in text.splitlines() if t.startswith("map_Kd "))]
    assert text.endswith(" isotropic3d-missing.png\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("map_Kd in.png", "map_Kd {}/models/in.png"),
        ("map_Kd IN.PNG", "map_Kd {}/models/in.png"),
        ("map_Kd C:\\art\\in.png", "map_Kd {}/models/in.png"),
        ("map_Kd sub/a b.png", "map_Kd {}/models/sub/a b.png"),
        ("map_kd ..\\images\\t.png", "map_Kd {}/images/t.png"),
        ("map_Kd t.png", "map_Kd {}/images/t.png"),
        ("map_Kd -s 2 2 -clamp on in.png", "map_Kd -s 2 2 1 {}/models/in.png"),
        ("bump -bm 0.5 in.png", "map_Bump -bm 0.5 {}/models/in.png"),
    ],
)
def test_an_image_inside_is_named_by_its_path(folder, line, expected):
    _, text = prepared(folder, "usemtl a\n", f"newmtl a\n{line}\n")
    assert text.splitlines()[1] == expected.format(folder.parent.resolve())


def test_a_name_of_very_many_words_is_refused(folder):
    with pytest.raises(ModelError):
        prepared(folder, "mtllib " + "x " * 5000 + "\n")
