"""Parts of GLB files that need no Blender. tests/render/blender/test_procedural_glb.py compares whole files."""

import json
import struct

import numpy as np
import pytest

from render.procedural.glb_file import GlbPart, glb_bytes

FLAT = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
UP = np.float32([[0, 0, 1]] * 3)
UNSIGNED_SHORT, UNSIGNED_INT = 5123, 5125


def part(positions=FLAT, corners=(0, 1, 2), normals=UP):
    """A white part without an image. Texture coordinates are zero."""
    uv = np.zeros((len(corners), 2), np.float32)
    return GlbPart("a", positions, np.array(corners, np.int32), normals, uv, (1.0, 1.0, 1.0, 1.0), None, 1.0, 1.0)


def parsed(glb):
    """The document of a GLB file, and a function that returns the values of an accessor."""
    (size,) = struct.unpack_from("<I", glb, 12)
    document, binary = json.loads(glb[20 : 20 + size]), glb[28 + size :]

    def values(accessor):
        entry = document["accessors"][accessor]
        view = document["bufferViews"][entry["bufferView"]]
        kind = {5126: np.float32, UNSIGNED_SHORT: np.uint16, UNSIGNED_INT: np.uint32}[entry["componentType"]]
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(data, kind).reshape(entry["count"], -1)

    return document, values


def test_defaults_are_left_out_and_equal_indices_are_shared():
    text = glb_bytes([part(), part()])
    assert b"pbrMetallicRoughness" not in text
    assert b"samplers" not in text
    assert text.count(b'"indices":3') == 2
    assert text.count(b'"target":34963') == 1


@pytest.mark.parametrize(("largest", "component"), [(65534, UNSIGNED_SHORT), (65535, UNSIGNED_INT)])
def test_the_index_65535_is_reserved_in_16_bits(largest, component):
    positions = np.zeros((largest + 1, 3), np.float32)
    positions[:, 0] = np.arange(largest + 1)
    corners = np.append(np.arange(largest + 1), [largest] * (-(largest + 1) % 3))
    document, values = parsed(glb_bytes([part(positions, corners, np.tile(UP[:1], (len(corners), 1)))]))
    (primitive,) = document["meshes"][0]["primitives"]
    assert document["accessors"][primitive["indices"]]["componentType"] == component
    np.testing.assert_array_equal(values(primitive["indices"])[:, 0], corners)
    np.testing.assert_array_equal(values(primitive["attributes"]["POSITION"]), positions)


def test_a_zero_normal_points_up():
    """As in Blender's exporter; glTF demands normals of length one. Normals that are rounded to zero count as zero."""
    normals = np.float32([[0, 0, 0], [4e-5, 0, -4e-5], [0, 3, 4]])
    document, values = parsed(glb_bytes([part(normals=normals)]))
    written = values(document["meshes"][0]["primitives"][0]["attributes"]["NORMAL"])
    np.testing.assert_allclose(written, [[0, 1, 0], [0, 1, 0], [0, 0.8, -0.6]], atol=1e-6)
