import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from dataset.image import composite_white
from dataset.outcome import Outcome, dump_outcomes, read_outcomes
from dataset.report import _spread, format_info, info, preview
from dataset.shards import open_set
from dataset.stream import ShardSet
from tests.make_shards import make_shard_set

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("report"), 5, resolution=32, objects_per_shard=2)


def test_info_counts_what_is_there(folder: Path, tmp_path: Path) -> None:
    about = info(folder)
    shards = ShardSet(folder)
    assert (about.shards, about.objects, about.views) == (3, 5, 160)
    assert about.bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert about.licenses == {"CC0-1.0": 3, "CC-BY-4.0": 2}
    assert about.resolutions == {"32x32": 5}
    assert about.failures == {}
    touching = 0
    for place in shards.objects(0):
        for view_set in ("fixed", "random"):
            alpha = shards.views(*place, [(view_set, i) for i in range(16)])[..., 3]
            border = [alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]]
            touching += int(np.any([edge.any(1) for edge in border], 0).sum())
    assert about.clipped_views == touching


def test_info_groups_failures_by_reason(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    rows = read_outcomes(*open_set(folder))
    lost = Outcome("a", 2, "shard-000000", "failed", "import", "ValueError", "bad")
    more = [lost, replace(lost, uid="b", position=3), replace(lost, uid="c", position=4, stage="worker")]
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([*rows, *more]))
    about = info(folder)
    assert about.failures == {"import: ValueError": 2, "worker: ValueError": 1}
    text = format_info(about)
    assert "failed: 3 objects" in text
    assert "2  import: ValueError" in text


def test_long_tables_say_that_they_are_cut(folder: Path) -> None:
    about = replace(info(folder), sources={f"object-{i}": 1 for i in range(25)})
    assert "... and 15 more" in format_info(about)


def test_the_preview_shows_the_right_pictures_on_white(folder: Path, tmp_path: Path) -> None:
    assert preview(folder, tmp_path / "sheet.png", objects=2, views_per_set=4) == 2
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (32 + 14 + 2) + 2, 8 * (32 + 2) + 2, 3)
    shards = ShardSet(folder)
    for row, place in enumerate([(0, 0), (1, 0)]):  # objects 0 and 2 of 5
        views = shards.views(*place, [("fixed", 4), ("random", 12)])
        for column, view in zip((1, 7), views, strict=True):
            top, left = 2 + row * 48 + 14, 2 + column * 34
            expected = np.rint(composite_white(view) * 255)
            assert (sheet[top : top + 32, left : left + 32] == expected).all()


def test_the_preview_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        preview(folder, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 5, 6, 99])
def test_chosen_objects_are_distinct_even_and_skip_empty_shards(count: int) -> None:
    sizes = (2, 0, 3, 1)
    everything = [(shard, i) for shard, size in enumerate(sizes) for i in range(size)]
    chosen = _spread(sizes, count)
    places = [everything.index(place) for place in chosen]
    assert places[0] == 0
    assert len(set(places)) == min(count, 6)
    gaps = np.diff([*places, 6])
    assert gaps.max() - gaps.min() <= 1


def test_an_empty_set_and_an_unwritable_output_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no objects"):
        preview(make_shard_set(tmp_path, 0), tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        preview(folder, tmp_path / "file" / "x.png")
    with pytest.raises(UserError, match="1 to 16"):
        preview(folder, tmp_path / "x.png", views_per_set=17)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dataset", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_three_commands(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path / "set", 2, resolution=8)
    sound = run("verify", str(folder))
    assert (sound.returncode, sound.stdout) == (0, f"{folder} is sound: 2 objects, 64 views in 1 shards\n")
    assert "CC-BY-4.0" in run("info", str(folder)).stdout
    assert run("preview", str(folder)).returncode == 0
    assert (folder / "preview.png").exists()
    (folder / "shard-000000.tar").unlink()
    damaged = run("verify", str(folder))
    assert damaged.returncode == 1
    assert "shard-000000.tar: missing" in damaged.stdout


def test_command_lines_explain_themselves_and_bad_input(tmp_path: Path) -> None:
    assert "{verify,info,preview}" in run("--help").stdout
    absent = run("info", str(tmp_path / "absent"))
    assert absent.returncode == 2
    assert absent.stderr.startswith("error: no shard set at")
    assert absent.stderr.count("\n") == 1
