import base64
import json

import numpy as np
import pytest

from render.model_files.errors import ModelError, NonFinitePositions, UnsafeReference
from render.model_files.gltf import Scenes, check_gltf
from tests.support.fault_models import rigged
from tests.support.make_models import Gltf, box_glb


def separate(path, uri, buffer=None, image=None):
    """A box as .gltf whose buffer is at `uri`; `buffer` is written beside it, `image` is one more reference."""
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    gltf.document["buffers"] = [{"byteLength": len(gltf.binary), "uri": uri}]
    if image:
        gltf.document["images"] = [{"uri": image}]
    path.write_text(json.dumps(gltf.document))
    if buffer:
        buffer.parent.mkdir(exist_ok=True)
        buffer.write_bytes(gltf.binary)
    return gltf.binary


def test_sound_files_pass(tmp_path):
    check_gltf(box_glb(tmp_path / "a.glb"))
    separate(tmp_path / "b.gltf", "sub%20folder/b.bin", tmp_path / "sub folder" / "b.bin")
    check_gltf(tmp_path / "b.gltf")
    binary = separate(tmp_path / "c.gltf", "")
    text = (tmp_path / "c.gltf").read_text()
    data = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    (tmp_path / "c.gltf").write_text(text.replace('"uri": ""', f'"uri": "{data}"'))
    check_gltf(tmp_path / "c.gltf")


@pytest.mark.parametrize(
    "uri",
    ["../outside.bin", "%2e%2e/outside.bin", "..\\outside.bin", "/etc/passwd", "file:///etc/passwd", "http://x/y"],
)
def test_references_out_of_the_folder_are_refused(tmp_path, uri):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"x")
    separate(folder / "a.gltf", uri)
    with pytest.raises(UnsafeReference):
        check_gltf(folder / "a.gltf")
    separate(folder / "b.gltf", "b.bin", folder / "b.bin", image=uri)
    with pytest.raises(UnsafeReference):
        check_gltf(folder / "b.gltf")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    separate(folder / "a.gltf", "a.bin", tmp_path / "outside.bin")
    (folder / "a.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(UnsafeReference):
        check_gltf(folder / "a.gltf")


def test_a_missing_reference_is_named(tmp_path):
    separate(tmp_path / "a.gltf", "gone.bin")
    with pytest.raises(ModelError, match=r"gone\.bin"):
        check_gltf(tmp_path / "a.gltf")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_no_numbers_are_found(tmp_path, value):
    with pytest.raises(NonFinitePositions):
        check_gltf(box_glb(tmp_path / "a.glb", spoil=value))


def test_every_truncation_is_found(tmp_path):
    data = box_glb(tmp_path / "a.glb").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "b.glb").write_bytes(data[:length])
        with pytest.raises(ModelError):
            check_gltf(tmp_path / "b.glb")


@pytest.mark.parametrize("change", [{"meshes": 3}, {"accessors": []}, {"bufferViews": [{}]}, {"buffers": [{"uri": 5}]}])
def test_malformed_documents_are_errors_not_crashes(tmp_path, change):
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    gltf.document["buffers"] = [{"byteLength": len(gltf.binary)}]
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({**gltf.document, **change}))
    with pytest.raises(ModelError):
        check_gltf(path)


@pytest.mark.parametrize("uri", ["data:,/../../etc/passwd", "data:image/png,x", "a\0b", "x" * 5000, "."])
def test_odd_uris_are_errors_for_buffers(tmp_path, uri):
    separate(tmp_path / "a.gltf", uri)
    with pytest.raises(ModelError):
        check_gltf(tmp_path / "a.gltf")


def test_a_missing_picture_is_no_error_but_a_picture_that_is_no_file_is(tmp_path):
    separate(tmp_path / "a.gltf", "a.bin", tmp_path / "a.bin", image="gone.png")
    check_gltf(tmp_path / "a.gltf")
    separate(tmp_path / "a.gltf", "a.bin", image=".")
    with pytest.raises(ModelError, match="not a file"):
        check_gltf(tmp_path / "a.gltf")


def test_scenes_are_counted_and_the_first_is_shown_by_default(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    gltf.document["scenes"].append({})
    gltf.document["scene"] = 1
    assert check_gltf(gltf.write(tmp_path / "a.glb")) == Scenes(2, 1)
    del gltf.document["scene"]
    assert check_gltf(gltf.write(tmp_path / "a.glb")) == Scenes(2, 0)


def test_sparse_positions_are_checked(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    place = gltf.document["accessors"][gltf.accessor(np.array([0], np.uint16), "SCALAR")]
    for value, bad in ((5.0, False), (np.nan, True)):
        values = gltf.document["accessors"][gltf.accessor(np.full((1, 3), value, np.float32), "VEC3")]
        gltf.document["accessors"][0]["sparse"] = {
            "count": 1,
            "indices": {"bufferView": place["bufferView"], "componentType": 5123},
            "values": {"bufferView": values["bufferView"]},
        }
        path = gltf.write(tmp_path / "a.glb")
        if not bad:
            check_gltf(path)
            continue
        with pytest.raises(NonFinitePositions):
            check_gltf(path)


def spoiled(value, rng):
    """The same JSON with one of its values, anywhere, replaced by an odd one."""
    odd = (None, -1, 1e999, 2**70, "", "x", [], {}, [[]], True, 10**6, float("nan"))
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return odd[rng.integers(len(odd))]
    keys = list(value) if isinstance(value, dict) else range(len(value))
    chosen = keys[rng.integers(len(keys))]
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[chosen] = spoiled(value[chosen], rng)
    return changed


def test_whatever_the_json_says_the_answer_is_yes_or_a_model_error(tmp_path):
    rng, refused = np.random.default_rng(0), 0
    gltf = rigged()
    gltf.node(extensions={"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 0}}}, translation=[0, 0, 0])
    gltf.document["images"] = [{"uri": "gone.png"}]
    gltf.document["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": 0}]
    whole = dict(gltf.document)
    for _ in range(600):
        gltf.document = spoiled(whole, rng)
        if isinstance(gltf.document, dict):
            try:
                check_gltf(gltf.write(tmp_path / "a.glb"))
            except ModelError:
                refused += 1
    assert 100 < refused < 600
