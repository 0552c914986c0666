import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.attribution import write_attribution
from dataset.check.verify import verify
from dataset.errors import UserError
from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import Outcome, dump_outcomes, read_outcomes
from dataset.io.files import url_to_fs
from tests.support.make_shards import make_shard_set, write_set_request


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "attribution.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_line_for_each_object_in_a_shard(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2)
    rows = read(folder)
    assert list(rows[0]) == ["uid", "title", "author", "license", "url", "source"]
    assert [row["uid"] for row in rows] == [f"synthetic-{i:04d}" for i in range(5)]
    assert rows[3] == {
        "uid": "synthetic-0003",
        "title": "Object 3",
        "author": "tests",
        "license": "CC-BY-4.0",
        "url": "",
        "source": "synthetic",
    }


def test_objects_without_a_sample_are_not_credited(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=8)
    fs, root = url_to_fs(folder)
    rows, assets = read_outcomes(fs, root), list(Manifest(fs, root).assets())
    lost = Outcome("lost", 1, "shard-000000", "failed", "import", "E")
    moved = [rows[0], lost, *(replace(row, position=row.position + 1) for row in rows[1:])]
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes(moved))
    write_set_request(fs, root, [assets[0], Asset("lost", "x"), *assets[1:]], objects_per_shard=4)
    assert write_attribution(fs, root) == 3
    assert [row["uid"] for row in read(folder)] == [asset.uid for asset in assets]
    assert verify(folder) == []


def test_no_cell_is_a_formula_and_every_text_survives(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    fs, root = url_to_fs(folder)
    assets = list(Manifest(fs, root).assets())
    odd = replace(assets[0], title='=HYPERLINK("http://x")', author="@SUM(1)", url="-2", license="+3", source="\t=4")
    plain = replace(assets[1], title='A "chair", 1=1\nsecond line', author="Zoë 椅子 <script>")
    write_set_request(fs, root, [odd, plain], objects_per_shard=4)
    write_attribution(fs, root)
    first, second = read(folder)
    assert [first[name] for name in ("title", "author", "url", "license", "source")] == [
        '\'=HYPERLINK("http://x")',
        "'@SUM(1)",
        "'-2",
        "'+3",
        "'\t=4",
    ]
    assert (second["title"], second["author"]) == ('A "chair", 1=1\nsecond line', "Zoë 椅子 <script>")


def test_the_same_bytes_every_time_and_on_any_filesystem(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=8, objects_per_shard=2)
    make_shard_set("memory://attribution/set", 3, resolution=8, objects_per_shard=2)
    first = (folder / "attribution.csv").read_bytes()
    (folder / "attribution.csv").unlink()
    (folder / "index.json").unlink()  # it is written before the index, which says that the set is complete
    write_attribution(*url_to_fs(folder))
    assert (folder / "attribution.csv").read_bytes() == first
    fs, root = url_to_fs("memory://attribution/set")
    assert fs.cat_file(f"{root}/attribution.csv") == first
    assert b"\r" not in first


def test_a_part_that_is_missing_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2)
    before = (folder / "attribution.csv").read_bytes()
    (folder / "shard-000002.json").unlink()
    with pytest.raises(UserError, match=r"shard-000002\.json"):
        write_attribution(*url_to_fs(folder))
    (folder / "manifest.parquet").unlink()
    with pytest.raises(UserError, match=r"manifest\.parquet is missing"):
        write_attribution(*url_to_fs(folder))
    (folder / "set.json").write_text(json.dumps({"uids": ["a"]}))
    with pytest.raises(UserError, match=r"set\.json is damaged"):
        write_attribution(*url_to_fs(folder))
    assert (folder / "attribution.csv").read_bytes() == before
    assert not list(folder.glob("*.tmp"))
