"""`python -m examples.furniture`: what is written, what is skipped and why, and what is refused."""

import csv
import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dataset.errors import UserError
from examples.furniture import catalog, convert
from examples.furniture.__main__ import Furniture, run
from examples.furniture.catalog import LABELS, spdx_license
from examples.furniture.convert import rotate_obj
from render.sources.model_file import referenced_files
from render.sources.source import SourceSelection, assets, parse_source
from tests.support.debian import make_deb

OBJ = "mtllib {0}.mtl\nv 1 2 3\nv 2 2 3\nv 1 3 3\nvn 0 0 1\nusemtl m\nf 1//1 2//1 3//1\n"
BY = "Creative Commons Attribution 3.0 Unported license  \N{COPYRIGHT SIGN} 2008-2020 Some One & Co"


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def entry(name: str, title: str, **more: str) -> tuple[str, dict[str, str]]:
    values = {"category": "Kitchen", "width": "10", "height": "20", "depth": "30", "doorOrWindow": "false"}
    return name, {"name": title, "creator": "Ann", "model": f"/set/{name}/{name}.obj", **values, **more}


def library(*entries: tuple[str, dict[str, str]], license_text: str = BY, padding: int = 0, **members: bytes) -> bytes:
    """A `.sh3f` file with a tiny model per entry; `members` are further files, with / written as __."""
    lines = [f"license={license_text}"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, (name, values) in enumerate(entries, start=1):
            lines += [f"{key}#{number}={value}" for key, value in values.items()]
            archive.writestr(f"set/{name}/{name}.obj", OBJ.format(name) + "#" * padding)
            archive.writestr(f"set/{name}/{name}.mtl", "newmtl m\nKd 1 0 0\nmap_Kd wood.png\n")
            archive.writestr(f"set/{name}/wood.png", png(8, 4))
            archive.writestr(f"set/{name}/icon.svg", b"not needed")
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
        archive.writestr(catalog.CATALOG_FILE, "\n".join(lines).encode("latin-1"))
    return file.getvalue()


def make_folder(tmp_path: Path, data: bytes, name: str = "Lib.sh3f") -> Path:
    folder = tmp_path / "package"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


def convert_to(tmp_path: Path, data: bytes, **options) -> Path:
    run(Furniture(make_folder(tmp_path, data), tmp_path / "out", **options))
    return tmp_path / "out"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_renderer_lists_the_objects_with_license_creator_and_title(tmp_path):
    out = convert_to(tmp_path, library(entry("sofa", "Corner sofa"), entry("pot", "Pot 10\\u20ac")))
    listed = list(assets(parse_source(f"folder:{out}"), 0, SourceSelection()))
    assert [(a.uid, a.file) for a in listed] == [
        ("furniture-set-pot", "set/pot/pot.obj"),
        ("furniture-set-sofa", "set/sofa/sofa.obj"),
    ]
    first = listed[0]
    assert (first.license, first.author, first.title) == ("CC-BY-3.0", "Some One & Co", "Pot 10€")
    assert (first.source, first.url) == ("sweethome3d-furniture", convert.PACKAGE_URL)
    names = [path.name for path in referenced_files(out / "set/pot/pot.obj", out)]
    assert names == ["pot.mtl", "wood.png"]
    assert not list(out.rglob("*.svg"))


def test_a_deb_gives_the_same_files_as_a_folder_and_a_second_run_changes_nothing(tmp_path):
    data = library(entry("sofa", "Sofa"))
    before = contents(convert_to(tmp_path, data))
    deb = make_deb(tmp_path / "p.deb", {"usr/share/sweethome3d/furniture/Lib.sh3f": data})
    run(Furniture(deb, tmp_path / "out"))
    assert contents(tmp_path / "out") == before
    run(Furniture(tmp_path / "package" / "Lib.sh3f", tmp_path / "out"))
    assert contents(tmp_path / "out") == before
    assert not list(tmp_path.glob("*.partial"))


def test_labels_merge_names_of_one_kind(tmp_path):
    models = [entry("a", "Winchester  sofa"), entry("b", "Anvil")]
    out = convert_to(tmp_path, library(*models))
    assert [row["label"] for row in rows(out / "labels.csv")] == ["sofa", "anvil"]
    assert [row["uid"] for row in rows(out / "labels.csv")] == [row["uid"] for row in rows(out / "manifest.csv")]


def test_each_name_has_one_label():
    names = [row["name"] for row in rows(LABELS)]
    assert len(set(names)) == len(names)


def test_people_doors_stairs_fittings_and_flat_objects_are_skipped_and_announced(tmp_path, capsys):
    skipped = [
        entry("p", "Sitting female", category="Characters"),
        entry("d", "Porch", category="Doors and windows"),
        entry("w", "Opening", doorOrWindow="true"),
        entry("s", "Escalator", category="Staircases"),
        entry("u", "Wall switch"),
        entry("f", "Rug", height="1.19"),
    ]
    kept = [
        entry("c", "Cat", category="Characters"),
        entry("g", "Glass door cabinet"),
        entry("t", "Tray", height="1.2"),
    ]
    out = convert_to(tmp_path, library(*skipped, *kept))
    assert {row["title"] for row in rows(out / "manifest.csv")} == {"Cat", "Glass door cabinet", "Tray"}
    assert {path.parent.name for path in out.rglob("*.obj")} == {"c", "g", "t"}
    text = capsys.readouterr().out
    assert "skipped 1 (flat: the smallest extent is less than 4% of the largest): Rug" in text
    assert "skipped 2 (doors and windows): Opening, Porch" in text
    assert "3 objects" in text


def test_large_images_are_scaled_down_in_their_own_format(tmp_path, capsys):
    data = library(entry("a", "Sofa"), **{"set__a__big.PNG": png(1030, 515)})
    out = convert_to(tmp_path, data)
    with Image.open(out / "set/a/big.PNG") as image:
        assert (image.size, image.format) == ((512, 256), "PNG")
    assert (out / "set/a/wood.png").read_bytes() == png(8, 4)
    assert "scaled down 1 images to at most 512 px" in capsys.readouterr().out


def test_objects_with_a_large_mesh_can_be_skipped(tmp_path, capsys):
    make_folder(tmp_path, library(entry("a", "Tree"), padding=2000), "Large.sh3f")
    out = convert_to(tmp_path, library(entry("b", "Sofa")), max_model_mb=0.001)
    assert [row["title"] for row in rows(out / "manifest.csv")] == ["Sofa"]
    assert "skipped 1 (OBJ file larger than 0.001 MB): Tree" in capsys.readouterr().out


def test_the_catalog_rotation_is_applied(tmp_path):
    out = convert_to(tmp_path, library(entry("a", "Pencil", modelRotation="1 0 0 0 0 1 0 -1 0")))
    text = (out / "set/a/a.obj").read_text()
    assert "v 1 3 -2\n" in text
    assert "vn 0 1 0\n" in text
    assert "f 1//1 2//1 3//1\n" in text
    assert rotate_obj(b"vt 1 2\r\nv 1 2 3\r\n", (1, 0, 0, 0, 1, 0, 0, 0, 1)) == b"vt 1 2\r\nv 1 2 3\r\n"


def test_the_page_of_a_blend_swap_model_is_its_url(tmp_path):
    page = b"Downloaded from http://www.blendswap.com/blends/view/70974\n"
    out = convert_to(tmp_path, library(entry("a", "Sofa"), license_text="Public domain", **{"set__a__L.txt": page}))
    row = rows(out / "manifest.csv")[0]
    assert (row["url"], row["license"], row["author"]) == (
        "http://www.blendswap.com/blends/view/70974",
        "CC0-1.0",
        "Ann",
    )


@pytest.mark.parametrize("name", ["../evil.obj", "/evil.obj", "set/../../evil.obj", "C:evil.obj", "set\\..\\evil.obj"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"leads out of the folder"):
        convert_to(tmp_path, library(entry("a", "Sofa"), **{name.replace("/", "__"): b"v 0 0 0"}))
    assert not list(tmp_path.rglob("evil.obj"))
    assert not (tmp_path / "out").exists()


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(UserError, match=r"more than the limit of 10;"):
        convert_to(tmp_path, library(entry("a", "Sofa")))
    monkeypatch.undo()
    monkeypatch.setattr(convert, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(UserError, match=r"more than 100 bytes"):
        convert_to(tmp_path, library(entry("a", "Sofa")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zip", "not a usable zip"),
        (library(), "lists no model"),
        (library(entry("a", "Sofa", width="wide")), "the property width#1 is 'wide'; expected 1 number"),
        (library(entry("a", "Sofa", model="/set/b/b.obj")), "has no file set/b/b.obj"),
        (library(entry("a", "Sofa"), license_text="Proprietary"), "unknown license 'Proprietary'"),
        (library(entry("a", "Sofa"), **{"set__a__x.png": b"no image"}), "x.png cannot be read"),
    ],
)
def test_wrong_input_is_one_clear_error(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        convert_to(tmp_path, data)


def test_a_wrong_source_or_output_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"contains no \.sh3f file"):
        run(Furniture(tmp_path, tmp_path / "out"))
    with pytest.raises(UserError, match="cannot be read"):
        run(Furniture(tmp_path / "missing.deb", tmp_path / "out"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="not a result of this command"):
        run(Furniture(make_folder(tmp_path, library(entry("a", "Sofa"))), tmp_path / "other"))
    make_folder(tmp_path, library(entry("a", "Sofa")), "Copy.sh3f")
    with pytest.raises(UserError, match=r"is in more than one \.sh3f file"):
        run(Furniture(tmp_path / "package", tmp_path / "out"))


def test_the_renderer_selects_by_the_licenses_of_the_package(tmp_path):
    out = convert_to(tmp_path, library(entry("sofa", "Sofa")))
    for names, excluded in ((("cc-by-3.0", "CC-BY-3.0-US"), ""), (("cc0", "by"), "licence-excluded")):
        listed = list(assets(parse_source(f"folder:{out}"), 0, SourceSelection(include_licenses=names)))
        assert [asset.excluded for asset in listed] == [excluded]


def test_license_texts_of_the_package():
    assert spdx_license("Public domain", "x") == "CC0-1.0"
    assert spdx_license("Creative Commons Attribution 3.0 license", "x") == "CC-BY-3.0"
    assert spdx_license("Creative Commons Attribution 3.0 United States license", "x") == "CC-BY-3.0-US"
