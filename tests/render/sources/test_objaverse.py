"""Objaverse's lists as a stream: order, selections, licenses, and what is said of damaged or missing files."""

import gzip
import itertools
import json
import tracemalloc
from pathlib import Path

import pytest

from dataset.errors import UserError
from render.download.http import BASE_URL, DownloadPolicy
from render.download.objaverse_cache import cache_folder
from render.sources.objaverse import fingerprint, objaverse_assets
from render.sources.source import SourceSelection, assets, parse_source
from tests.support.make_objaverse import CODES, make_cache, uid_of

OBJECTS, FOLDERS = 240, 3
NO_NETWORK = DownloadPolicy(base_url="http://127.0.0.1:9", attempts=2, backoff_s=0.0)  # port 9: nobody listens


@pytest.fixture(scope="module")
def whole_cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("home"), OBJECTS, FOLDERS)


@pytest.fixture
def cache(tmp_path):
    """One that a test may damage."""
    return make_cache(tmp_path / "home", OBJECTS, FOLDERS)


def listed(selection, cache):
    return list(objaverse_assets(str(selection), cache, NO_NETWORK))


def uid_file(folder, *lines):
    path = folder / "uids.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_gzip(path, value):
    path.write_bytes(gzip.compress(value if isinstance(value, bytes) else json.dumps(value).encode()))


def test_the_cache_is_the_packages_own():
    objaverse = pytest.importorskip("objaverse")
    assert str(cache_folder()) == objaverse._VERSIONED_PATH
    assert f"{BASE_URL}/{{object_path}}" in Path(objaverse.__file__).read_text()


def test_all_is_every_object_by_folder_then_uid(whole_cache):
    assets = listed("all", whole_cache)
    assert {asset.uid for asset in assets} == {uid_of(n) for n in range(OBJECTS)}
    paths = [asset.objaverse_path for asset in assets]
    assert len(paths) == OBJECTS
    assert paths == sorted(paths)
    assert paths == [
        f"glbs/000-{n % FOLDERS:03d}/{uid_of(n)}.glb" for n in sorted(range(OBJECTS), key=lambda n: (n % 3, uid_of(n)))
    ]


def test_an_asset_carries_its_annotation(whole_cache):
    asset = next(a for a in listed("all", whole_cache) if a.uid == uid_of(99))
    assert (asset.source, asset.license, asset.author, asset.title, asset.url, asset.excluded) == (
        "objaverse",
        "CC0-1.0",
        "User 99",
        "Thing 99",
        f"https://example.org/3d-models/{uid_of(99)}",
        "",
    )


def test_lvis_and_uid_files_choose_in_the_same_order(whole_cache, tmp_path):
    everything = [asset.uid for asset in listed("all", whole_cache)]
    lvis = {uid_of(n) for n in range(0, OBJECTS, 17)}
    assert [a.uid for a in listed("lvis", whole_cache)] == [uid for uid in everything if uid in lvis]
    chosen = [everything[9], everything[200], everything[1]]
    file = uid_file(tmp_path, *chosen, "", f"  {chosen[0]}\r")
    assert [a.uid for a in listed(file, whole_cache)] == [everything[1], everything[9], everything[200]]


def test_other_licenses_stay_and_are_excluded(whole_cache, monkeypatch):
    monkeypatch.setattr("render.sources.objaverse.cache_folder", lambda: whole_cache)
    found = list(assets(parse_source("objaverse:all"), 0, SourceSelection(include_licenses=("cc0", "CC-BY-SA-4.0"))))
    assert len(found) == OBJECTS
    kept = {uid_of(n) for n in range(OBJECTS) if CODES[n % len(CODES)] in ("cc0", "by-sa")}
    assert {a.uid for a in found if not a.excluded} == kept
    assert {a.excluded for a in found if a.uid not in kept} == {"licence-excluded"}


def test_only_the_folders_that_are_asked_for_are_read(cache, tmp_path):
    uid = uid_of(1)
    for other in ("000-000", "000-002"):
        (cache / f"metadata/{other}.json.gz").write_bytes(b"not gzip")
    assert [a.uid for a in listed(uid_file(tmp_path, uid), cache)] == [uid]
    folder = {uid_of(n) for n in range(0, OBJECTS, FOLDERS)}
    (cache / "metadata/000-000.json.gz").write_bytes(gzip.compress(b"{}"))  # the next is damaged, and not reached
    first = itertools.islice(objaverse_assets("all", cache, NO_NETWORK), len(folder))
    assert {a.uid for a in first} == folder


def test_poor_annotations_cost_nothing_but_themselves(cache):
    notes = {
        uid_of(0): {"name": "half \ud83d an\nemoji", "license": "by", "user": {"username": "ann"}},
        uid_of(3): {"name": None, "license": None, "user": None, "viewerUrl": "javascript:alert(1)"},
        uid_of(6): {"name": 7, "license": "own-license"},
    }
    write_gzip(cache / "metadata/000-000.json.gz", notes)
    assets = {a.uid: a for a in listed("all", cache)}
    assert (assets[uid_of(0)].title, assets[uid_of(0)].author) == ("half ? an emoji", "ann")
    poor = assets[uid_of(3)]
    assert (poor.title, poor.license, poor.author, poor.url) == ("", "unknown", "unknown", "")
    assert (assets[uid_of(6)].title, assets[uid_of(6)].license) == ("", "own-license")
    assert assets[uid_of(9)].license == "unknown"  # no annotation at all


def test_white_space_and_chunks_of_the_path_table_do_not_matter(cache, monkeypatch):
    expected = [a.uid for a in listed("all", cache)]
    table = json.loads(gzip.decompress((cache / "object-paths.json.gz").read_bytes()))
    write_gzip(cache / "object-paths.json.gz", json.dumps(table, indent=3, separators=(" ,", "\t:\r\n")).encode())
    monkeypatch.setattr("render.sources.objaverse._CHUNK", 7)
    assert [a.uid for a in listed("all", cache)] == expected


UID, OTHER = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"{}",
        b"[]",
        f'{{"{UID}": "glbs/000-000/{UID}.glb"'.encode(),
        f'{{"{UID}": "glbs/000-000/{OTHER}.glb"}}'.encode(),
        f'{{"{UID}": "glbs/../../{UID}.glb"}}'.encode(),
        f'{{"{UID}": "glbs/000-000/{UID}.glb" "{OTHER}": "glbs/000-000/{OTHER}.glb"}}'.encode(),
        f'{{"{UID}": "glbs/000-000/{UID}.glb"}} and more'.encode(),
    ],
)
def test_a_malformed_path_table_is_named(cache, table):
    write_gzip(cache / "object-paths.json.gz", table)
    with pytest.raises(UserError, match=r"object-paths\.json\.gz is damaged .*delete the file"):
        listed("all", cache)


@pytest.mark.parametrize("name", ["object-paths.json.gz", "metadata/000-001.json.gz", "lvis-annotations.json.gz"])
@pytest.mark.parametrize("damage", ["cut", "not gzip", "not json", "a list"])
def test_a_damaged_cache_file_is_named_with_the_remedy(cache, name, damage):
    path = cache / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "not gzip":
        path.write_bytes(b"<html>")
    else:
        write_gzip(path, b"{nonsense" if damage == "not json" else ["a"])
    with pytest.raises(UserError, match=rf"{name} is damaged .*delete the file"):
        listed("lvis", cache)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((uid_of(1), "f" * 32, "0" * 32), f"2 of the selected uids are not in Objaverse, for example '{'0' * 32}'"),
        ((uid_of(1), "", "../../etc/passwd"), "line 3: '../../etc/passwd' is not an Objaverse uid"),
        (("", ""), "contains no uid"),
    ],
)
def test_bad_uid_files_are_refused(whole_cache, tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        listed(uid_file(tmp_path, *lines), whole_cache)


def test_unknown_selections_are_refused(whole_cache):
    with pytest.raises(UserError, match="is unknown; give objaverse:lvis, objaverse:all or objaverse:FILE"):
        listed("nowhere.txt", whole_cache)


def test_without_cache_and_network_there_is_one_clear_error(tmp_path):
    with pytest.raises(
        UserError, match=r"object-paths\.json\.gz is not in .* cannot be downloaded .*check the network"
    ):
        listed("all", tmp_path / "nothing")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_fingerprint_is_the_selection_and_the_contents_of_a_uid_file(tmp_path):
    one = uid_file(tmp_path, uid_of(1))
    before = fingerprint(str(one))
    moved = one.rename(tmp_path / "moved.txt")
    assert fingerprint(str(moved)) == before
    one = uid_file(tmp_path, uid_of(2))
    assert len({before, fingerprint(str(one)), fingerprint("all"), fingerprint("lvis")}) == 4


def test_a_listing_is_a_stream(tmp_path):
    """Ten times the objects in as many more folders: what the stream holds grows by the uids' bytes alone."""
    peaks = []
    for objects, folders in ((1000, 2), (10_000, 20)):
        cache = make_cache(tmp_path / str(objects), objects, folders)
        tracemalloc.start()
        assert sum(1 for _ in objaverse_assets("all", cache, NO_NETWORK)) == objects
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 9000 * 32 * 6
