"""Files of objects: which are opened, and which the digest of an object covers."""

import hashlib
import json
import os
import struct

import pytest

from dataset.errors import UserError
from render.sources.model_file import (
    NameNotUtf8,
    NotRegularFile,
    SymlinkLoop,
    locate,
    object_sha256,
    open_regular,
    referenced_files,
)
from tests.support.make_models import box_glb


def write(root, **files):
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        stem, _, suffix = name.rpartition("_")
        (root / f"{stem}.{suffix}").write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def names(path, root=None):
    root = (root or path.parent).resolve()
    return [each.relative_to(root).as_posix() for each in referenced_files(path.resolve(), root)]


def test_a_file_without_references_has_the_digest_of_its_bytes(tmp_path):
    for path in (box_glb(tmp_path / "a.glb"), write(tmp_path, b_stl=b"solid x").joinpath("b.stl")):
        assert object_sha256(path, tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()
    write(tmp_path, c_obj="mtllib gone.mtl\nv 0 0 0\n", d_gltf='{"images":[{"uri":"gone.png"}]}', e_fbx=b"\0gone.png\0")
    for name in ("c.obj", "d.gltf", "e.fbx"):
        path = tmp_path / name
        assert object_sha256(path, tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("main", "others"),
    [
        ({"m_obj": "mtllib m x.mtl\n"}, {"m x_mtl": "newmtl a\nKd 1 0 0\n"}),
        ({"m_obj": "v 0 0 0\n"}, {"m_mtl": "newmtl a\nmap_Kd -s 1 1 1 t.png\n", "t_png": b"1"}),
        ({"m_obj": "mtllib C:\\\\work\\\\b.mtl\n"}, {"b_mtl": "map_Kd a b.png\n", "a b_png": b"1"}),
        ({"m_gltf": json.dumps({"buffers": [{"uri": "a%20b.bin"}]})}, {"a b_bin": b"1"}),
        ({"m_gltf": json.dumps({"images": [{"uri": "data:image/png;base64,AA"}, {"uri": "t.png"}]})}, {"t_png": b"1"}),
        ({"m_fbx": b"Kaydara\0\x05C:\\work\\t.png\0"}, {"t_png": b"1"}),
        ({"m_ply": "ply\ncomment TextureFile t.png\nend_header\n"}, {"t_png": b"1"}),
    ],
)
def test_the_digest_covers_each_referenced_file(tmp_path, main, others):
    first, same, other = (write(tmp_path / name, **main, **others) for name in ("first", "same", "other"))
    name = next(path.name for path in first.iterdir() if path.name.startswith("m.") and path.suffix != ".mtl")
    found = names(first / name)
    assert found == sorted(path.name for path in first.iterdir() if path.name != name)
    digests = {object_sha256(folder / name, tmp_path) for folder in (first, same, other)}
    assert len(digests) == 1
    for changed in found:
        before = (other / changed).read_bytes()
        (other / changed).write_bytes(before + b"2")
        assert object_sha256(other / name, tmp_path) not in digests
        (other / changed).write_bytes(before)
    assert object_sha256(other / name, tmp_path) in digests


def test_references_are_found_as_the_importer_finds_them(tmp_path):
    """References lead to the usual neighboring folders, and to names that differ in case."""
    write(tmp_path / "images", t_png=b"1")
    model = write(tmp_path / "models", m_obj="mtllib M.MTL\n", m_mtl="map_Kd ..\\\\images\\\\T.png\n")
    assert names(model / "m.obj", tmp_path) == ["images/t.png", "models/m.mtl"]


def test_a_glb_may_refer_to_images(tmp_path):
    text = json.dumps({"images": [{"uri": "t.png"}]}).encode()
    data = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text + b'"uri":"secret.png"'
    write(tmp_path, a_glb=data, t_png=b"1", secret_png=b"2")
    assert names(tmp_path / "a.glb") == ["t.png"]


def test_only_regular_files_inside_the_source_folder_are_read(tmp_path):
    write(tmp_path, secret_png=b"1")
    inside = write(tmp_path / "root/models", m_gltf=json.dumps({"images": [{"uri": u} for u in URIS]}))
    write(tmp_path / "root/images", t_png=b"1")
    os.mkfifo(inside / "fifo.png")
    (inside / "loop.png").symlink_to("loop.png")
    assert names(inside / "m.gltf", tmp_path / "root") == ["images/t.png"]


URIS = ["../images/t.png", "../../secret.png", "fifo.png", "loop.png", "a\0b.png", "x" * 5000 + ".png", "/etc/passwd"]


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.glb")
    (tmp_path / "folder.glb").mkdir()
    for name in ("fifo.glb", "folder.glb"):
        with pytest.raises(NotRegularFile, match=f"{name} is a folder, FIFO"):
            open_regular(tmp_path / name)


def test_paths_that_cannot_be_located_are_named(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "loop.glb").symlink_to("loop.glb")
    with pytest.raises(SymlinkLoop, match="leads to itself"):
        locate(root, "loop.glb")
    with pytest.raises(NameNotUtf8, match=r"caf\\xe9\.glb is not valid UTF-8"):
        locate(root, "caf\\xe9.glb")
    with pytest.raises(UserError, match="outside of the source folder"):
        locate(root, "../x.glb")
    (root / "odd\\xe9.glb").write_bytes(b"1")
    assert locate(root, "odd\\xe9.glb").read_bytes() == b"1"
