import base64
import struct

import pytest

from render.model_files.errors import TooLarge
from render.model_files.fbx import prepare_fbx
from tests.support.fault_models import png

BOMB = png(8, 8)[:16] + struct.pack(">II", 30_000, 30_000) + bytes(40)


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "models"
    inside.mkdir()
    (tmp_path / "outside.png").write_bytes(png(8, 8))
    (inside / "in.png").write_bytes(png(8, 8))
    (inside / "bomb.JPG").write_bytes(BOMB)
    return inside


def binary(folder, *values):
    """A file with these strings as FBX stores them: S, length, bytes."""
    body = b"".join(b"S" + struct.pack("<I", len(value)) + value for value in values)
    (folder / "a.fbx").write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", 7400) + body)
    return folder / "a.fbx"


def text(folder, line):
    (folder / "a.fbx").write_text(f"; FBX 7.4.0 project file\n{line}\n")
    return folder / "a.fbx"


def held(picture):
    return b"\x07ContentR" + struct.pack("<I", len(picture)) + picture


def check_fbx(path):
    """Prepare a file whose source is its folder, which must not need a copy."""
    assert prepare_fbx(path, path.parent.resolve(), path.parent).path == path


def test_what_lies_inside_or_is_not_there_passes(folder):
    check_fbx(
        binary(folder, b"in.png", b"C:\\art\\in.png", b"../gone.png", b"/home/ann/gone.tga", b"x" * 9000 + b".png")
    )
    check_fbx(text(folder, 'FileName: "in.png"'))
    (folder / "a.fbx").write_bytes(b"x" + held(png(8, 8)) + held(b""))
    check_fbx(folder / "a.fbx")


@pytest.mark.parametrize("name", ["../outside.png", "..\\outside.png", "ABSOLUTE", "link.png"])
def test_the_name_of_an_image_outside_is_replaced_in_both_forms(folder, tmp_path, name):
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (tmp_path / "scratch").mkdir()
    name = str(folder.parent / "outside.png") if name == "ABSOLUTE" else name
    for path in (binary(folder, b"in.png", name.encode()), text(folder, f'A: "in.png" B: "{name}"')):
        model = prepare_fbx(path, folder.resolve(), tmp_path / "scratch")
        data = model.path.read_bytes()
        assert len(data) == path.stat().st_size
        assert name.encode() not in data
        assert b"in.png" in data
        assert model.path != path


@pytest.mark.parametrize("name", ["../outside.png", "..\\outside.png"])
def test_an_image_beside_the_folder_is_read_if_the_source_holds_both(folder, name):
    path = binary(folder, name.encode())
    assert prepare_fbx(path, folder.parent.resolve(), folder).path == path


@pytest.mark.parametrize("name", [b"bomb.JPG", b"D:\\art\\bomb.JPG"])
def test_a_bomb_beside_it_is_refused_by_its_header(folder, name):
    with pytest.raises(TooLarge):
        check_fbx(binary(folder, name))


def test_a_bomb_within_is_refused_in_both_forms(folder):
    (folder / "a.fbx").write_bytes(b"x" + held(png(8, 8)) + held(BOMB))
    with pytest.raises(TooLarge):
        check_fbx(folder / "a.fbx")
    with pytest.raises(TooLarge):
        check_fbx(text(folder, f'Content: , "{base64.b64encode(BOMB).decode()}"'))
    check_fbx(text(folder, 'Content: , "AAAAA=AAAAAAAAAAAAAAAAAAAAA"'))
