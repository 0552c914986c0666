import io

import numpy as np
import pytest
import trimesh

from render.model_files.errors import ModelError, NonFinitePositions
from render.model_files.ply import check_ply


def written(tmp_path, encoding, spoil=None):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    if spoil is not None:
        vertices[3, 1] = spoil
    colors = np.full((4, 4), 255, np.uint8)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3]], vertex_colors=colors, process=False)
    path = tmp_path / "a.ply"
    path.write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding=encoding))
    return path


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
