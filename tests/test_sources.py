"""Sources: what a folder, a manifest and a count list, and what they refuse."""

from pathlib import Path

import pytest

from dataset.errors import UserError
from render.procedural.catalog import uid_of
from render.sources import list_assets

SHARED = Path(__file__).resolve().parents[2] / "shared" / "objects"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def listed(root: Path) -> dict[str, str]:
    return {
        asset.uid: Path(asset.path or "").relative_to(root).as_posix() for asset in list_assets(f"folder:{root}", 0)
    }


def test_folder_lists_every_model_file_and_nothing_else(tmp_path):
    names = ["a.glb", "b.gltf", "c.obj", "sub/d.FBX", "sub/deep/e.ply", "f.stl"]
    touch(tmp_path, *names, "f.mtl", "readme.txt", "b.bin", "._a.glb", "texture.png")
    assert sorted(listed(tmp_path).values()) == sorted(names)


def test_uids_are_sanitised_paths_and_collisions_carry_a_hash(tmp_path):
    touch(tmp_path, "a/chair 1.glb", "a-chair_1.glb", "lamp.glb", "lamp.obj", "ü.glb")
    uids = listed(tmp_path)
    assert uids["_"] == "ü.glb"
    assert len(uids) == 5
    assert sum(uid.startswith("lamp-") for uid in uids) == 2
    assert sum(uid.startswith("a-chair_1-") for uid in uids) == 2
    (tmp_path / "zebra.glb").write_bytes(b"x")
    assert uids.items() <= listed(tmp_path).items()  # another file changes no uid


def test_a_very_long_path_still_makes_a_valid_uid(tmp_path):
    touch(tmp_path, f"{'a' * 100}/{'b' * 100}.glb", f"{'a' * 100}/{'b' * 101}.glb")
    assert [len(uid) for uid in listed(tmp_path)] == [128, 128]


def test_limit_takes_the_first(tmp_path):
    touch(tmp_path, "b.glb", "a.glb", "c.glb")
    assert [asset.uid for asset in list_assets(f"folder:{tmp_path}", 0, limit=2)] == ["a", "b"]


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = touch(tmp_path / "outside", "secret.glb")
    inside = touch(tmp_path / "inside", "a.glb")
    (inside / "again.glb").symlink_to(inside / "a.glb")
    assert list(listed(inside)) == ["a"]
    (inside / "link.glb").symlink_to(outside / "secret.glb")
    with pytest.raises(UserError, match=r"link\.glb .*leads out of the folder"):
        listed(inside)
    (inside / "link.glb").unlink()
    (inside / "more").symlink_to(outside)
    with pytest.raises(UserError, match="leads out of the folder"):
        listed(inside)


@pytest.mark.parametrize("where", ["in", "beside"])
def test_a_manifest_is_the_list(tmp_path, where):
    folder = touch(tmp_path / "things", "a.glb", "b.glb", "unlisted.glb")
    manifest, prefix = (folder, "") if where == "in" else (tmp_path, "things/")
    rows = [f"second,{prefix}b.glb,CC0-1.0,Ann", f"first,{prefix}a.glb,CC-BY-4.0,Bob"]
    if where == "beside":
        rows.append("elsewhere,other/c.glb,CC0-1.0,Ann")
    (manifest / "manifest.csv").write_text("\n".join(["uid,file,license,author", *rows]))
    assets = list_assets(f"folder:{folder}", 0)
    assert [(a.uid, a.license, a.author, a.source) for a in assets] == [
        ("second", "CC0-1.0", "Ann", "things"),
        ("first", "CC-BY-4.0", "Bob", "things"),
    ]
    assert assets[0].path == str(folder / "b.glb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid,file\nx,../outside.glb\n", "leads out of the folder"),
        ("uid,file\nx,/etc/outside.glb\n", "absolute path"),
        ("uid,file\nx,a.txt\n", "not one of"),
        ("uid,file\na.b,a.glb\n", "not usable"),
        ("uid,file\nx,a.glb\nx,b.glb\n", "more than once"),
        ("uid,file\n,a.glb\n", "line 2"),
        ("name,file\nx,a.glb\n", "lacks the column uid"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, text, message):
    folder = touch(tmp_path / "things", "a.glb", "b.glb")
    (folder / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        listed(folder)


def test_a_foreign_manifest_beside_the_folder_is_not_ours(tmp_path):
    folder = touch(tmp_path / "things", "a.glb")
    (tmp_path / "manifest.csv").write_text("something,else\n1,2\n")
    assert list(listed(folder)) == ["a"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("things", "unknown source"),
        ("http:x", "unknown source"),
        ("folder:", "unknown source"),
        ("folder:/no/such/folder", "not a folder"),
        ("procedural:0", "number of objects"),
        ("procedural:many", "number of objects"),
    ],
)
def test_unknown_sources_are_refused(source, message):
    with pytest.raises(UserError, match=message):
        list_assets(source, 0)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no model file"):
        list_assets(f"folder:{tmp_path}", 0)


def test_licences_and_limits_are_checked(tmp_path):
    touch(tmp_path, "a.glb")
    with pytest.raises(UserError, match="objaverse sources only"):
        list_assets(f"folder:{tmp_path}", 0, licenses=["by"])
    with pytest.raises(UserError, match="at least 1"):
        list_assets(f"folder:{tmp_path}", 0, limit=0)


def test_procedural_assets_are_the_catalogues():
    assets = list_assets("procedural:30", 5)
    assert [asset.uid for asset in assets] == [uid_of(index, 5) for index in range(30)]
    assert [asset.procedural_index for asset in assets] == list(range(30))


def test_the_shared_objects_keep_their_licences():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    assets = list_assets(f"folder:{SHARED}/kaykit_furniture", 0)
    assert len(assets) == 48
    assert {(asset.license, asset.author) for asset in assets} == {("CC0-1.0", "Kay Lousberg")}
