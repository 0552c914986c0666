"""Models that gltfpack and ktx2-encoder compressed; made by tests/support/tools/compressed_gltf."""

import base64
import importlib.util
import io
import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from render.model_files.compression import decompress, ktx2
from render.model_files.compression.ktx2 import decode_ktx2
from render.model_files.errors import ModelError, TooLarge
from render.model_files.gltf import prepare_gltf
from render.model_files.gltf_accessors import GltfData
from tests.support.fault_models import png, textured
from tests.support.paths import ROOT

FOLDER = ROOT / "tests" / "golden" / "compressed"
COMPRESSED = ["ext", "khr", "floats", "fallback"]
needs_ktx2 = pytest.mark.skipif(
    importlib.util.find_spec("opengl_basisu") is None, reason="the optional dependency `ktx2` is not installed"
)


def read(path):
    """(the document of a GLB file, its binary chunk)."""
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), memoryview(data)[28 + size :]


def write(path, document, binary):
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def prepared(path, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return prepare_gltf(path, path.parent.resolve(), scratch)


def changed(tmp_path, name, change):
    """A compressed model whose document `change` has changed."""
    document, binary = read(FOLDER / f"{name}.glb")
    change(document)
    return prepared(write(tmp_path / "a.glb", document, binary), tmp_path)


def values(path, attribute):
    """The values of a vertex attribute as floats, in the order of the corners of the triangles."""
    document, binary = read(path)
    data = GltfData(document, binary, path)
    primitive = document["meshes"][0]["primitives"][0]
    accessor = document["accessors"][primitive["attributes"][attribute]]
    rows = data.array(primitive["attributes"][attribute]).astype(float)
    if accessor.get("normalized"):
        rows /= np.iinfo({5120: "i1", 5121: "u1", 5122: "i2", 5123: "u2"}[accessor["componentType"]]).max
    if attribute == "POSITION":
        node = next(node for node in document["nodes"] if "mesh" in node)
        rows = rows * node.get("scale", [1, 1, 1]) + node.get("translation", [0, 0, 0])
    return rows[data.array(primitive["indices"])[:, 0]]


@pytest.mark.parametrize("name", COMPRESSED)
def test_geometry_is_that_of_the_model_before_compression(tmp_path, name):
    shutil.copy(FOLDER / f"{name}.glb", tmp_path)
    model = prepared(tmp_path / f"{name}.glb", tmp_path)
    assert model.flags == ()
    assert model.animated
    document, _ = read(model.path)
    assert set(document.get("extensionsRequired", [])) <= {"KHR_mesh_quantization"}
    assert not any("extensions" in view for view in document["bufferViews"])
    assert len(document["buffers"]) == 1
    positions, expected = values(model.path, "POSITION"), values(FOLDER / "plain.glb", "POSITION")
    assert len(positions) == len(expected)
    squares = ((positions[:, None] - expected) ** 2).sum(2)
    assert squares.min(0).max() < 1e-6
    near = squares.argmin(1)
    np.testing.assert_allclose(positions, expected[near], atol=1e-3)
    # the ball's poles and seam have one normal, but several texture coordinates, in one place
    np.testing.assert_allclose(
        values(model.path, "NORMAL")[:, :3], values(FOLDER / "plain.glb", "NORMAL")[near], atol=0.02
    )
    colors = values(FOLDER / "plain.glb", "COLOR_0")[near]
    np.testing.assert_allclose(values(model.path, "COLOR_0")[:, :3], colors, atol=0.01)


def test_animations_are_those_of_the_model_before_compression(tmp_path):
    shutil.copy(FOLDER / "khr.glb", tmp_path)
    path = prepared(tmp_path / "khr.glb", tmp_path).path
    document, binary = read(path)
    data = GltfData(document, binary, path)
    found = {}
    for channel in document["animations"][0]["channels"]:
        sampler = document["animations"][0]["samplers"][channel["sampler"]]
        found[channel["target"]["path"]] = data.array(sampler["output"])
    half = 0.25
    np.testing.assert_allclose(found["rotation"][0] / 32767, [0, np.sin(half), 0, np.cos(half)], atol=1e-3)
    np.testing.assert_allclose(found["translation"][0], [0.5, 0, 0.25], atol=1e-3)


def test_an_optional_compression_is_left_alone(tmp_path):
    """The plain data is there: the file is imported as it is."""

    def change(document):
        document["extensionsUsed"] = ["EXT_meshopt_compression"]
        document["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}

    assert changed(tmp_path, "plain", change).path == tmp_path / "a.glb"


def compression(document, number=0):
    return document["bufferViews"][number]["extensions"]["EXT_meshopt_compression"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("byteOffset", 1 << 40),
        ("byteOffset", -4),
        ("byteLength", 1 << 40),
        ("byteLength", 40),
        ("count", -1),
        ("count", 1.5),
        ("count", "many"),
        ("count", 3),
        ("byteStride", 0),
        ("byteStride", 6),
        ("mode", "STRIPS"),
        ("mode", None),
        ("filter", "SEPIA"),
        ("filter", "OCTAHEDRAL"),
        ("buffer", 1),
        ("buffer", 7),
    ],
)
def test_false_claims_are_refused(tmp_path, key, value):
    with pytest.raises(ModelError):
        changed(tmp_path, "floats", lambda document: compression(document).update({key: value}))


def test_damaged_data_is_named(tmp_path):
    document, binary = read(FOLDER / "ext.glb")
    spoiled = bytearray(binary)
    spoiled[compression(document)["byteOffset"]] ^= 255
    with pytest.raises(ModelError, match=r"a\.glb: buffer view 0 \(EXT_meshopt_compression\) has damaged data"):
        prepared(write(tmp_path / "a.glb", document, bytes(spoiled)), tmp_path)


def test_a_bomb_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(TooLarge, match="decompressed size of"):
        changed(tmp_path, "ext", lambda document: compression(document).update(count=1 << 30))


@pytest.mark.parametrize("name", ["ext", "khr"])
def test_any_damage_gives_one_error_or_a_model(tmp_path, name):
    document, binary = read(FOLDER / f"{name}.glb")
    random = np.random.default_rng(7)
    errors = 0
    for _ in range(100):
        spoiled = bytearray(binary)
        for place in random.integers(len(spoiled), size=int(random.integers(1, 4))):
            spoiled[place] = int(random.integers(256))
        try:
            prepared(write(tmp_path / "a.glb", document, bytes(spoiled)), tmp_path)
        except ModelError:
            errors += 1
    assert 10 < errors < 100


def ktx2_model(data, required=True, **texture):
    gltf = textured(data)
    gltf.document["textures"] = [{**texture, "extensions": {"KHR_texture_basisu": {"source": 0}}}]
    gltf.document["extensionsUsed"] = ["KHR_texture_basisu"]
    if required:
        gltf.document["extensionsRequired"] = ["KHR_texture_basisu"]
    return gltf


def gradient(alpha):
    """The pixels [48, 64, 4] that texture.mjs encodes."""
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    opacity = np.where((y >= 24) & alpha, 100, 255)
    return np.stack([x * 255 // 63, y * 255 // 47, np.where(x < 32, 200, 40), opacity], -1)


@needs_ktx2
@pytest.mark.parametrize(("codec", "alpha", "off"), [("etc1s", False, 40), ("uastc", True, 12)])
def test_textures_are_decoded_the_right_way_up(codec, alpha, off):
    image = Image.open(io.BytesIO(decode_ktx2((FOLDER / f"{codec}.ktx2").read_bytes(), "a")))
    assert image.mode == ("RGBA" if alpha else "RGB")
    error = np.abs(np.asarray(image.convert("RGBA"), int) - gradient(alpha))
    assert error.max() <= off
    assert error.mean() < 3


@needs_ktx2
@pytest.mark.parametrize("place", ["embedded", "file", "data"])
def test_a_ktx2_texture_becomes_a_png(tmp_path, place):
    data = (FOLDER / "etc1s.ktx2").read_bytes()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a b.ktx2").write_bytes(data)
    uris = {"file": "t/a%20b.ktx2", "data": "data:image/ktx2;base64," + base64.b64encode(data).decode()}
    gltf = ktx2_model({"uri": uris[place]} if place in uris else data, required=place != "file")
    model = prepared(gltf.write(tmp_path / "a.glb"), tmp_path)
    document, binary = read(model.path)
    assert model.flags == ()
    assert "extensionsRequired" not in document
    assert document["textures"] == [{"source": 0, "extensions": {}}]
    image = document["images"][0]
    assert "uri" not in image
    assert image["mimeType"] == "image/png"
    view = document["bufferViews"][image["bufferView"]]
    pixels = Image.open(io.BytesIO(binary[view["byteOffset"] :][: view["byteLength"]]))
    assert pixels.size == (64, 48)
    assert GltfData(document, binary, model.path).array(0).tolist()[2] == [1, 1, 0]


@needs_ktx2
def test_an_image_outside_of_the_source_is_not_read(tmp_path):
    folder = tmp_path / "models"
    shutil.copy(FOLDER / "etc1s.ktx2", tmp_path / "a.ktx2")
    model = prepared(ktx2_model({"uri": "../a.ktx2"}).write(folder / "a.glb"), tmp_path)
    assert "bufferView" not in read(model.path)[0]["images"][0]


def test_a_texture_with_another_image_keeps_it(tmp_path):
    model = prepared(ktx2_model(png(8, 8), required=False, source=0).write(tmp_path / "a.glb"), tmp_path)
    assert model.path == tmp_path / "a.glb"


def test_without_the_optional_package_the_texture_is_flagged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    gltf = ktx2_model((FOLDER / "etc1s.ktx2").read_bytes())
    model = prepared(gltf.write(tmp_path / "a.glb"), tmp_path)
    assert model.flags == ("unsupported-extension",)
    assert "`ktx2`" in caplog.text


@needs_ktx2
def test_a_huge_texture_is_refused_before_it_is_decoded():
    data = bytearray((FOLDER / "etc1s.ktx2").read_bytes())
    struct.pack_into("<II", data, 20, 1 << 15, 1 << 15)
    with pytest.raises(TooLarge):
        decode_ktx2(bytes(data), "a")


@needs_ktx2
@pytest.mark.parametrize("codec", ["etc1s", "uastc"])
def test_damaged_textures_count_as_missing(codec, monkeypatch):
    monkeypatch.setattr(ktx2, "check_image_size", lambda name, data: None)
    data, random = (FOLDER / f"{codec}.ktx2").read_bytes(), np.random.default_rng(3)
    for length in range(0, len(data), 7):
        assert decode_ktx2(data[:length], "a") is None
    lost = 0
    for _ in range(400):
        spoiled = bytearray(data)
        for place in random.integers(len(data) if random.random() < 0.5 else 250, size=int(random.integers(1, 4))):
            spoiled[place] = int(random.integers(256))
        size = struct.unpack_from("<II", spoiled, 20)
        if max(size) < 1 << 12:
            lost += decode_ktx2(bytes(spoiled), "a") is None
    assert lost > 20


def test_the_limit_is_that_of_the_decompressed_data(tmp_path, monkeypatch):
    shutil.copy(FOLDER / "ext.glb", tmp_path)
    document, _ = read(FOLDER / "ext.glb")
    size = sum(view["byteLength"] for view in document["bufferViews"])
    monkeypatch.setattr(decompress, "MAX_DECODED", size)
    prepared(tmp_path / "ext.glb", tmp_path)
    monkeypatch.setattr(decompress, "MAX_DECODED", size - 1)
    with pytest.raises(TooLarge):
        prepared(tmp_path / "ext.glb", tmp_path)
