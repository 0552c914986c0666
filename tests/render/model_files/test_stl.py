import struct

import pytest

from render.model_files.errors import ModelError
from render.model_files.prepare import prepare_stl

TRIANGLE = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0)


def prepared(folder, count, body, header=b""):
    """The prepared model of a binary file, and the bytes to import."""
    (folder / "scratch").mkdir()
    (folder / "a.stl").write_bytes(header.ljust(80, b"\0") + struct.pack("<I", count) + body)
    model = prepare_stl(folder / "a.stl", folder / "scratch")
    return model, model.path.read_bytes()


def test_a_file_of_the_declared_size_is_imported_itself(tmp_path):
    model, _ = prepared(tmp_path, 2, 2 * TRIANGLE, b"solid facet")
    assert (model.path, model.flags) == (tmp_path / "a.stl", ())


@pytest.mark.parametrize(("count", "body"), [(0, 2 * TRIANGLE), (2, 2 * TRIANGLE + b"end"), (0, 2 * TRIANGLE + b"end")])
def test_a_count_of_zero_and_trailing_bytes_are_corrected_in_a_copy(tmp_path, count, body):
    model, data = prepared(tmp_path, count, body)
    assert model.path == tmp_path / "scratch" / "a.stl"
    assert data == bytes(80) + struct.pack("<I", 2) + 2 * TRIANGLE


def test_a_binary_file_that_begins_like_text_is_corrected_too(tmp_path):
    model, data = prepared(tmp_path, 0, TRIANGLE, b"solid facet")
    assert model.path == tmp_path / "scratch" / "a.stl"
    assert data[80:] == struct.pack("<I", 1) + TRIANGLE


@pytest.mark.parametrize(("count", "body"), [(3, 2 * TRIANGLE), (2, 2 * TRIANGLE[:-1]), (4_000_000_000, TRIANGLE)])
def test_fewer_triangles_than_declared_are_an_error(tmp_path, count, body):
    with pytest.raises(ModelError, match=f"declares {count:,} triangles, but the file has [12]; download"):
        prepared(tmp_path, count, body)


def test_a_file_shorter_than_a_header_is_an_error(tmp_path):
    (tmp_path / "a.stl").write_bytes(bytes(83))
    with pytest.raises(ModelError, match="not an STL"):
        prepare_stl(tmp_path / "a.stl", tmp_path)


def test_colors_which_blender_does_not_read_are_flagged(tmp_path):
    assert prepared(tmp_path, 1, TRIANGLE, b"COLOR=\xff\0\0\xff")[0].flags == ("missing-material",)
