import io
import struct

import numpy as np
import pytest
import trimesh

from render.model_files.errors import ModelError, NonFinitePositions
from render.model_files.ply import prepare_ply


def written(tmp_path, encoding, spoil=None):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    if spoil is not None:
        vertices[3, 1] = spoil
    colors = np.full((4, 4), 255, np.uint8)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3]], vertex_colors=colors, process=False)
    path = tmp_path / "a.ply"
    path.write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding=encoding))
    return path


def check_ply(path):
    prepare_ply(path, path.parent, path.parent)


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_positions_are_found_in_both_encodings(tmp_path, encoding, value):
    check_ply(written(tmp_path, encoding))
    with pytest.raises(NonFinitePositions):
        check_ply(written(tmp_path, encoding, value))


def test_big_endian_is_read_as_such(tmp_path):
    header = "ply\r\nformat binary_big_endian 1.0\r\nelement vertex 1\r\n"
    header += "".join(f"property double {axis}\r\n" for axis in "xyz") + "end_header\r\n"
    path = tmp_path / "a.ply"
    path.write_bytes(header.encode() + np.array([1.0, 2.0, 3.0], ">f8").tobytes())
    check_ply(path)
    path.write_bytes(header.encode() + np.array([1.0, np.nan, 3.0], ">f8").tobytes())
    with pytest.raises(NonFinitePositions):
        check_ply(path)


def test_what_is_not_a_ply_is_an_error(tmp_path):
    whole = io.BytesIO(written(tmp_path, "binary").read_bytes()).getvalue()
    for data in (b"", b"hello", whole[:40], whole[:-60], whole.replace(b"float x", b"floot x")):
        (tmp_path / "b.ply").write_bytes(data)
        with pytest.raises(ModelError):
            check_ply(tmp_path / "b.ply")


XYZ = "property float x\nproperty float y\nproperty float z\n"
RGB = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
FACE = "property list uchar int vertex_indices\n"
POINTS = ["0 0 0", "1 0 0", "0 1 0", "0 0 1"]
COLORS = ["255 0 0", "0 255 0", "0 0 255", "9 9 9"]


def plain(tmp_path, vertex, face, rows, *, comment="", faces_first=False):
    """(the prepared model, its mesh as trimesh reads it) of a text PLY with 4 vertices and 2 faces."""
    elements = [f"element vertex 4\n{vertex}", f"element face 2\n{face}"]
    vertices, faces = rows
    if faces_first:
        elements, (vertices, faces) = elements[::-1], (faces, vertices)
    header = f"ply\nformat ascii 1.0\n{comment}{''.join(elements)}end_header\n"
    (tmp_path / "a.ply").write_text(header + "\n".join([*vertices, *faces]) + "\n")
    (tmp_path / "scratch").mkdir(exist_ok=True)
    model = prepare_ply(tmp_path / "a.ply", tmp_path.resolve(), tmp_path / "scratch")
    return model, trimesh.load(model.path, process=False)


def joined(*columns):
    return [" ".join(row) for row in zip(*columns, strict=True)]


FACES = ["3 0 1 2", "3 0 1 3"]


def test_a_plain_file_is_not_copied(tmp_path):
    model, _ = plain(tmp_path, XYZ + RGB, FACE, (joined(POINTS, COLORS), FACES))
    assert (model.path, model.flags, model.texture) == (tmp_path / "a.ply", (), None)


@pytest.mark.parametrize("case", ["faces first", "list in vertices", "diffuse"])
def test_positions_faces_and_colors_are_kept(tmp_path, case):
    rows, vertex = joined(POINTS, COLORS), XYZ + RGB
    if case == "list in vertices":
        rows, vertex = joined(POINTS, COLORS, ["2 0 1", "0", "1 3", "0"]), vertex + "property list uchar int near\n"
    elif case == "diffuse":
        vertex = vertex.replace("uchar ", "uchar diffuse_")
    model, mesh = plain(tmp_path, vertex, FACE, (rows, FACES), faces_first=case == "faces first")
    assert model.path.parent.name == "scratch"
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 1, 3]])
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])


def test_the_colors_of_faces_go_to_their_corners(tmp_path):
    _, mesh = plain(tmp_path, XYZ, FACE + RGB, (POINTS, joined(FACES, ["255 0 0", "0 0 255"])))
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], [[255, 0, 0]] * 3 + [[0, 0, 255]] * 3)
    np.testing.assert_array_equal(mesh.vertices[[1, 4]], [[1, 0, 0]] * 2)


@pytest.mark.parametrize("image", ["wood.png", "gone.png"])
@pytest.mark.parametrize("wedges", [False, True])
def test_the_image_of_texture_coordinates_is_named(tmp_path, image, wedges):
    (tmp_path / "wood.png").write_bytes(b"x")
    uv = ["0 0", "1 0", "0 1", "1 1"]
    if wedges:
        faces = joined(FACES, ["6 0 0 1 0 0 1", "6 0 0 1 0 1 1"])
        given = (XYZ, FACE + "property list uchar float texcoord\n", (POINTS, faces))
    else:
        given = (XYZ + "property float u\nproperty float v\n", FACE, (joined(POINTS, uv), FACES))
    model, mesh = plain(tmp_path, *given, comment=f"comment TextureFile {image}\n")
    expected = (tmp_path / "wood.png", ()) if image == "wood.png" else (None, ("missing-texture",))
    assert (model.texture, model.flags) == expected
    assert len(mesh.vertices) == (6 if wedges else 4)
    assert b"property float s\nproperty float t\n" in model.path.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_lists_of_different_lengths_are_read(tmp_path, order):
    name = "binary_little_endian" if order == "<" else "binary_big_endian"
    header = f"ply\nformat {name} 1.0\nelement face 2\n{FACE}element vertex 4\n{XYZ}end_header\n"
    faces = struct.pack(f"{order}B3iB4i", 3, 0, 1, 2, 4, 0, 1, 3, 2)
    points = struct.pack(f"{order}12f", *map(float, " ".join(POINTS).split()))
    (tmp_path / "a.ply").write_bytes(header.encode() + faces + points)
    (tmp_path / "scratch").mkdir()
    model = prepare_ply(tmp_path / "a.ply", tmp_path, tmp_path / "scratch")
    body = model.path.read_bytes().partition(b"end_header\n")[2]
    np.testing.assert_array_equal(np.frombuffer(body, "<i4", offset=48), [3, 0, 1, 2, 4, 0, 1, 3, 2])
