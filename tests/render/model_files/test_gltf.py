import base64
import json
import struct

import numpy as np
import pytest

from render.model_files.errors import ModelError, NonFinitePositions, UnsafeReference
from render.model_files.gltf import Scenes, prepare_gltf
from tests.support.fault_models import animated, rigged
from tests.support.make_models import Gltf, box_glb


def check_gltf(path):
    """The scenes of a file whose source is its folder."""
    (path.parent / "scratch").mkdir(exist_ok=True)
    return prepare_gltf(path, path.parent.resolve(), path.parent / "scratch").scenes


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


def document(path):
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])


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
    check_gltf(folder / "b.gltf")
    assert document(folder / "scratch" / "b.glb")["images"] == [{"uri": "isotropic3d-missing"}]


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


def test_a_missing_image_is_no_error_but_an_image_that_is_no_file_is(tmp_path):
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


def test_a_sibling_folder_is_read_if_the_source_holds_both(tmp_path):
    folder = tmp_path / "scene"
    folder.mkdir()
    separate(folder / "a.gltf", "../buffers/b.bin", tmp_path / "buffers" / "b.bin", image="../t.png")
    model = prepare_gltf(folder / "a.gltf", tmp_path.resolve(), tmp_path)
    assert model.path == folder / "a.gltf"
    with pytest.raises(UnsafeReference):
        prepare_gltf(folder / "a.gltf", folder.resolve(), tmp_path)


def box(tmp_path, change, trailing=b""):
    """(the prepared model of a changed box, the document that is imported)."""
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    change(gltf)
    path = gltf.write(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes() + trailing)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    model = prepare_gltf(path, tmp_path.resolve(), tmp_path / "scratch")
    assert model.path.read_bytes()[-50:] == path.read_bytes()[: -len(trailing) or None][-50:]  # the binary chunk
    return model, document(model.path)


def test_a_sound_file_is_not_copied_and_bytes_after_its_end_are_cut_off(tmp_path):
    assert box(tmp_path, lambda gltf: None)[0].path == tmp_path / "a.glb"
    model, _ = box(tmp_path, lambda gltf: None, b"\0" * 37)
    assert model.path.read_bytes() == (tmp_path / "a.glb").read_bytes()[:-37]


def test_attributes_of_the_file_itself_are_left_out(tmp_path):
    def change(gltf):
        for primitive in gltf.document["meshes"][0]["primitives"]:
            primitive["attributes"] |= {"_WIND": 0, "_GROUP": 1}

    _, imported = box(tmp_path, change)
    assert {name for p in imported["meshes"][0]["primitives"] for name in p["attributes"]} == {"POSITION"}


def test_an_unknown_extension_of_materials_is_not_required_but_flagged(tmp_path):
    def change(gltf):
        gltf.document["extensionsUsed"] = gltf.document["extensionsRequired"] = ["ACME_paint"]
        gltf.document["materials"][0]["extensions"] = {"ACME_paint": {}}

    model, imported = box(tmp_path, change)
    assert model.flags == ("unsupported-extension",)
    assert "extensionsRequired" not in imported

    def geometry(gltf):
        change(gltf)
        gltf.document["nodes"][0]["extensions"] = {"ACME_paint": {}}

    model, imported = box(tmp_path, geometry)
    assert (model.flags, imported["extensionsRequired"]) == ((), ["ACME_paint"])


def test_hidden_nodes_and_their_descendants_lose_their_meshes(tmp_path):
    def change(gltf):
        gltf.document["extensionsUsed"] = gltf.document["extensionsRequired"] = ["KHR_node_visibility"]
        box, visible = gltf.document["nodes"][0]["mesh"], {"KHR_node_visibility": {"visible": True}}
        nodes = gltf.document["nodes"]
        nodes[0]["extensions"] = visible
        nodes.append({"children": [len(nodes) + 1], "extensions": {"KHR_node_visibility": {"visible": False}}})
        nodes.append({"mesh": box, "extensions": visible})

    model, imported = box(tmp_path, change)
    assert model.flags == ()
    assert ["mesh" in node for node in imported["nodes"]] == [True, False, False]
    assert not {"extensionsUsed", "extensionsRequired"} & set(imported)


def test_version_1_is_named_in_both_forms(tmp_path):
    (tmp_path / "a.gltf").write_text('{"asset": {"version": "1.0"}, "scene": "s", "nodes": {}}')
    (tmp_path / "a.glb").write_bytes(struct.pack("<4sIIII", b"glTF", 1, 22, 2, 0) + b"{}")
    for name in ("a.gltf", "a.glb"):
        with pytest.raises(ModelError, match=r"glTF 1\.0"):
            check_gltf(tmp_path / name)


def test_chains_are_measured_and_cycles_found(tmp_path):
    def chain(length):
        def change(gltf):
            for i in range(length - 1):
                gltf.node(root=False, children=[i])
            gltf.document["scenes"][0]["nodes"] = [length - 1]

        return change

    assert box(tmp_path, chain(1500))[0].depth == 1500
    with pytest.raises(ModelError, match="2001"):
        box(tmp_path, chain(2001))
    with pytest.raises(ModelError, match="own ancestor"):
        box(tmp_path, lambda gltf: gltf.document["nodes"][0].update(children=[0]))


def test_animations_are_left_out_on_request(tmp_path):
    path = animated().write(tmp_path / "a.glb")
    assert "animations" in document(prepare_gltf(path, tmp_path, tmp_path / "x").path)
    (tmp_path / "scratch").mkdir()
    assert "animations" not in document(prepare_gltf(path, tmp_path, tmp_path / "scratch", animations=False).path)
