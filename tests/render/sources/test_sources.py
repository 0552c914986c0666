"""Sources: what a folder, a manifest, a pre-filled Objaverse cache and a count list, and what they refuse."""

import os
import socket
from pathlib import Path

import fsspec
import pytest

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, UNKNOWN, Manifest, write_manifest
from render.procedural.catalog import uid_of
from render.sources.source import SourceSelection, assets, fingerprint, parse_source
from tests.support.paths import SHARED_FOLDER

SHARED = SHARED_FOLDER / "objects"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def list_assets(source, seed=0, **selection):
    return list(assets(parse_source(source), seed, SourceSelection(**selection)))


def listed(root: Path) -> dict[str, str]:
    return {asset.uid: asset.file for asset in list_assets(f"folder:{root}")}


def test_folder_lists_every_model_file_and_nothing_else(tmp_path):
    names = ["a.glb", "b.gltf", "c.obj", "sub/d.FBX", "sub/deep/e.ply", "f.stl"]
    touch(tmp_path, *names, "f.mtl", "readme.txt", "b.bin", "._a.glb", "texture.png")
    assert sorted(listed(tmp_path).values()) == sorted(names)


def test_uids_are_sanitized_paths_and_collisions_carry_a_hash(tmp_path):
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
    found = list_assets(f"folder:{folder}", 0)
    assert [(a.uid, a.license, a.author, a.source) for a in found] == [
        ("second", "CC0-1.0", "Ann", "things"),
        ("first", "CC-BY-4.0", "Bob", "things"),
    ]
    assert (found[0].file, found[0].bytes) == ("b.glb", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid,file\nx,../outside.glb\n", "leads out of the folder"),
        ("uid,file\nx,/etc/outside.glb\n", "absolute path"),
        ("uid,file\nx,a.txt\n", "does not end in one of"),
        ("uid,file\na.b,a.glb\n", "is invalid; use 1 to 128"),
        ("uid,file\n,a.glb\n", "line 2"),
        ("uid,file\nx,a.glb\n\ny\n", "line 4"),
        ('uid,title,file\nx,"two\nlines",a.glb\n\ny,"two\nlines",\n', r"manifest\.csv, line 5: the column uid or file"),
        ("uid,file\rx,a.glb\r\ry\r", r"manifest\.csv, line 4: the column uid or file"),
        ("name,file\nx,a.glb\n", r"manifest\.csv, line 1: lacks the column uid \("),
        ("\nname;file\nx;a.glb\n", r"manifest\.csv, line 2: lacks the columns uid and file \("),
        ("", r"manifest\.csv, line 1: lacks the columns uid and file \("),
        ("uid,file,file\nx,b.glb,a.glb\n", r"manifest\.csv, line 1: names the column file more than once; rename"),
        ("uid,file,file\nx,b.glb,\n", r"manifest\.csv, line 1: names the column file more than once; rename"),
        (f'uid,file\nx,a.glb\ny,"{"b" * 140_000}\n', r"manifest\.csv, line 3: not CSV \(field larger"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, text, message):
    folder = touch(tmp_path / "things", "a.glb", "b.glb")
    (folder / "manifest.csv").write_bytes(text.encode())
    with pytest.raises(UserError, match=message):
        listed(folder)


def test_repeated_columns_of_a_manifest_beside_the_folder_are_refused(tmp_path):
    folder = touch(tmp_path / "things", "a.glb", "b.glb")
    (tmp_path / "manifest.csv").write_text("uid,file,file\nx,things/a.glb,things/b.glb\n")
    with pytest.raises(UserError, match=r"manifest\.csv, line 1: names the column file more than once"):
        listed(folder)


def test_cells_of_a_manifest_may_be_missing_or_surplus(tmp_path, caplog):
    folder = touch(tmp_path / "things", "a.glb", "b.glb", "c.glb")
    (folder / "manifest.csv").write_text('uid,file,license,title\na,a.glb\nb,b.glb,MIT,say "hi",more\nc,c.glb,,"x"y\n')
    found = [(asset.uid, asset.license, asset.author, asset.title) for asset in list_assets(f"folder:{folder}")]
    assert found == [("a", UNKNOWN, UNKNOWN, ""), ("b", "MIT", UNKNOWN, 'say "hi"'), ("c", UNKNOWN, UNKNOWN, "xy")]
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "has more cells than there are columns, which are ignored; put cells with a comma in quotation marks"
    ]
    assert "manifest.csv, line 3: " in caplog.text


@pytest.mark.parametrize(
    "text", ["\ufeffuid,file,license\na,a.glb,CC0-1.0\n", "\ufeffuid,file,license\r\na,a.glb,CC0-1.0\r\n"]
)
def test_a_manifest_saved_by_excel_is_read(tmp_path, text):
    folder = touch(tmp_path / "things", "a.glb", "b.glb")
    (folder / "manifest.csv").write_bytes(text.encode())
    assert [(asset.uid, asset.license) for asset in list_assets(f"folder:{folder}")] == [("a", "CC0-1.0")]


def test_a_manifest_in_latin_1_is_one_clear_error(tmp_path):
    folder = touch(tmp_path / "things", "a.glb")
    latin = "uid,file,author\na,{}a.glb,Ann\nb,{}b.glb,Ren\u00e9\n"
    (tmp_path / "manifest.csv").write_bytes(latin.format("other/", "other/").encode("latin-1"))
    assert list(listed(folder)) == ["a"], "a manifest of other folders does not matter"
    (tmp_path / "manifest.csv").write_bytes("name;price\nCaf\u00e9;3\n".encode("latin-1"))
    assert list(listed(folder)) == ["a"], "nor does a table of something else"
    (tmp_path / "manifest.csv").write_bytes(latin.format("things/", "things/").encode("latin-1"))
    with pytest.raises(UserError, match=r"manifest\.csv, line 3: not UTF-8 \(byte 0xe9\); save the file as UTF-8"):
        listed(folder)
    (folder / "manifest.csv").write_bytes(latin.format("", "").encode("latin-1"))
    with pytest.raises(UserError, match=r"things/manifest\.csv, line 3: not UTF-8"):
        listed(folder)
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + latin.format("", "").encode("latin-1"))
    with pytest.raises(UserError, match=r"line 3: not UTF-8 \(byte 0xe9\)"):
        listed(folder)


def test_a_manifest_with_a_nul_is_one_clear_error(tmp_path):
    folder = touch(tmp_path / "things", "a.glb")
    for manifest, content in ((folder, b"uid,file\na,\0a.glb\n"), (tmp_path, b"uid,file\na,things/\0a.glb\n")):
        (manifest / "manifest.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"manifest\.csv, line 2: the path contains a NUL character"):
            listed(folder)
        (manifest / "manifest.csv").unlink()


def test_names_that_are_not_utf8_are_listed_and_can_be_stored(tmp_path):
    root = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    touch(root, "a.glb", os.fsdecode(b"b\xff.glb"), os.fsdecode(b"c\xff/b.glb"), os.fsdecode(b"b\xfe.glb"))
    found = list_assets(f"folder:{root}")
    assert sorted(asset.file for asset in found) == ["a.glb", "b\\xfe.glb", "b\\xff.glb", "c\\xff/b.glb"]
    assert len({asset.uid for asset in found}) == 4
    with (tmp_path / MANIFEST_FILE).open("wb") as file:
        write_manifest(file, found)
    assert list(Manifest(fsspec.filesystem("file"), str(tmp_path)).assets()) == found
    assert fingerprint(parse_source(f"folder:{root}"), 0, SourceSelection())


def test_links_that_lead_to_themselves_are_listed_as_objects(tmp_path):
    touch(tmp_path, "a.glb", "sub/b.glb")
    (tmp_path / "loop.glb").symlink_to("loop.glb")
    (tmp_path / "sub/up").symlink_to("..")
    (tmp_path / "sub/self").symlink_to("self")
    assert list(listed(tmp_path)) == ["a", "loop", "sub-b"]
    (tmp_path / "manifest.csv").write_text("uid,file\nx,loop.glb\ny,a.glb\n")
    assert listed(tmp_path) == {"x": "loop.glb", "y": "a.glb"}


def test_special_files_and_unreadable_folders_do_not_stop_the_listing(tmp_path, capsys, monkeypatch):
    touch(tmp_path, "a.glb", "closed/b.glb")
    os.mkfifo(tmp_path / "fifo.glb")
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 108 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.glb")
        scandir = os.scandir

        def refuse(path):
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert list(listed(tmp_path)) == ["a", "fifo", "socket"]
    assert "closed cannot be listed (Permission denied); its files are left out" in capsys.readouterr().err


def test_a_foreign_manifest_beside_the_folder_is_not_ours(tmp_path):
    folder = touch(tmp_path / "things", "a.glb")
    for text in (
        "",
        "something,else\n1,2\n",
        "uid,note,note\n1,2\n",
        "file,note\n1,2\n",
        "uid,file,file\nx,other/b.glb,other/a.glb\n",
    ):
        (tmp_path / "manifest.csv").write_text(text)
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


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"limit": 0}, "--limit is 0"),
        ({"max_file_mb": 0.0}, "--max-file-mb is 0"),
        ({"include_licenses": ("mit",)}, "unknown license 'mit'"),
        ({"uids": Path("no/such/file")}, "cannot be read"),
    ],
)
def test_selections_are_checked(tmp_path, selection, message):
    touch(tmp_path, "a.glb")
    with pytest.raises(UserError, match=message):
        list_assets(f"folder:{tmp_path}", **selection)


def test_excluded_objects_stay_in_the_manifest(tmp_path):
    touch(tmp_path, "a.glb", "b.glb", "c.glb")
    (tmp_path / "b.glb").write_bytes(b"x" * 2000)
    (tmp_path / "manifest.csv").write_text(
        "uid,file,license\na,a.glb,CC0-1.0\nb,b.glb,CC-BY-4.0\nc,c.glb,CC-BY-NC-4.0\n"
    )
    source = f"folder:{tmp_path}"
    excluded = [a.excluded for a in list_assets(source, include_licenses=("cc0", "CC-BY-4.0"), max_file_mb=0.001)]
    assert excluded == ["", "too-large", "licence-excluded"]
    assert [a.excluded for a in list_assets(source)] == ["", "", ""]


def test_a_file_of_uids_selects(tmp_path):
    touch(tmp_path, "m/a.glb", "m/b.glb", "m/c.glb")
    chosen = tmp_path / "uids.txt"
    chosen.write_text("c\n\na\n")
    assert [a.uid for a in list_assets(f"folder:{tmp_path}/m", uids=chosen)] == ["a", "c"]
    chosen.write_text("c\nzebra\n")
    with pytest.raises(UserError, match="1 uids are not in the source, for example 'zebra'; remove these uids"):
        list_assets(f"folder:{tmp_path}/m", uids=chosen)


def test_a_fingerprint_changes_with_what_decides_the_manifest(tmp_path):
    touch(tmp_path, "a.glb", "b.glb")
    chosen = tmp_path / "uids.txt"
    chosen.write_text("a\n")

    def mark(source=f"folder:{tmp_path}", seed=0, **selection):
        return fingerprint(parse_source(source), seed, SourceSelection(**selection))

    marks = {mark(), mark(seed=1), mark(limit=1), mark(uids=chosen), mark(include_licenses=("by",))}
    marks |= {mark(max_file_mb=1.0), mark("procedural:3"), mark("procedural:4")}
    assert len(marks) == 8
    assert mark(include_licenses=("by", "cc0")) == mark(include_licenses=("CC0-1.0", "CC-BY-4.0"))
    before = mark()
    assert mark(f"folder:{tmp_path}/../{tmp_path.name}") == before
    (tmp_path / "b.glb").write_bytes(b"longer")
    assert mark() != before


def test_procedural_assets_are_the_catalogues():
    found = list_assets("procedural:30", 5)
    assert [asset.uid for asset in found] == [uid_of(index, 5) for index in range(30)]
    assert [asset.procedural_index for asset in found] == list(range(30))


def test_the_shared_objects_keep_their_licenses():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    found = list_assets(f"folder:{SHARED}/kaykit_furniture", 0)
    assert len(found) == 48
    assert {(asset.license, asset.author) for asset in found} == {("CC0-1.0", "Kay Lousberg")}
