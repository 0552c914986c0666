"""What a run trains on: filters, damage, the options for them, and refusals before anything is written."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.check.verify import verify
from dataset.curate.curate_set import curate_set
from dataset.errors import UserError
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.shards import read_stats
from dataset.io.files import url_to_fs
from dataset.reading.filters import Filters
from dataset.reading.latent_set import LatentSet
from dataset.reading.scores import SetScores
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.outcome_flags import write_flags
from tests.support.train_cli import resolved
from tests.support.train_micro import micro_run
from train.__main__ import main
from train.encode.output import copy_tables
from train.loop import loop
from train.loop.checkpoint import Progress
from train.loop.loop import train
from train.loop.run_config import TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six objects in shards of four; licences alternate, the second one is clipped."""
    folder = make_shard_set(tmp_path_factory.mktemp("data") / "set", 6, 32)
    write_flags(folder, {1: ("clipped",)})
    return folder


@pytest.mark.parametrize("kind", ["shards", "latents"])
def test_filters_are_printed_recorded_and_obeyed(
    kind: str, base: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = tmp_path / "uids.txt"
    uids.write_text("".join(f"synthetic-{i:04d}\n" for i in range(1, 6)))
    data = request.getfixturevalue(kind)
    filters = Filters(without_flags=("clipped",), licences=("CC-BY-4.0",), uids=uids)
    run = replace(micro_run(data, tmp_path / "run", 2, base=base), filters=filters)
    setup = loop._set_up(run, loop.open_training_set(run.shards, run.filters))
    assert setup.loader.shards.uids() == ["synthetic-0003", "synthetic-0005"]
    capsys.readouterr()
    train(run)
    told = capsys.readouterr().err
    assert "2 of 6 objects kept" in told
    assert "1 left out: not in the list of uids" in told
    assert "2 left out: license CC0-1.0" in told
    assert "1 left out: flag clipped" in told
    config = json.loads((run.out / "config.json").read_text())["data"]
    assert config["objects"] == 2
    assert config["filters"] == {
        "without_flags": ["clipped"],
        "min_coverage": 0.0,
        "max_coverage": 1.0,
        "licences": ["CC-BY-4.0"],
        "uids": str(uids),
        "where": None,
    }
    with pytest.raises(UserError, match=r"data\.filters\.without_flags was \['clipped'\], is now \[\]"):
        train(replace(run, filters=replace(filters, without_flags=())))
    moved = uids.rename(tmp_path / "moved.txt")
    assert train(replace(run, filters=replace(filters, uids=moved))) == []  # the same objects: the same run
    moved.write_text("synthetic-0003\n")
    with pytest.raises(UserError, match=r"data\.sha256"):
        train(replace(run, filters=replace(filters, uids=moved)))


def test_coverage_filters_of_latents_are_those_of_images(shards: Path, latents: Path) -> None:
    views = [meta.views for meta in (ShardSet(shards).meta(*place) for place in ShardSet(shards).objects(0))]
    middle = float(np.mean([view.alpha_coverage for sets in views for some in sets.values() for view in some]))
    found = loop.open_training_set(str(shards), Filters(min_coverage=middle)).uids()
    assert 0 < len(found) < 6
    assert loop.open_training_set(str(latents), Filters(min_coverage=middle)).uids() == found


def test_scores_select_images_and_the_latents_that_were_encoded_from_them(
    shards: Path, latents: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(shards, tmp_path / "images"))
    encoded = Path(shutil.copytree(latents, tmp_path / "latents"))
    with pytest.raises(UserError, match="for the shard set from which it was encoded, then repeat the command"):
        loop.open_training_set(str(encoded), Filters(where="texture > 0"))
    curate_set(str(images), workers=1)
    copy_tables(ShardSet(images), *url_to_fs(encoded))
    scores = [row for shard in range(2) for row in SetScores(images).shard(shard).values()]
    middle = float(np.median([row.texture for row in scores]))
    found = loop.open_training_set(str(images), Filters(where=f"texture > {middle}")).uids()
    assert found == [row.uid for row in scores if row.texture > middle]
    assert loop.open_training_set(str(encoded), Filters(where=f"texture > {middle}")).uids() == found
    assert verify(encoded) == []


def test_latents_without_their_tables_cannot_be_filtered(shards: Path, latents: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in latents.iterdir():
        if path.is_file() and path.name not in ("set.json", "manifest.parquet"):
            (bare / path.name).symlink_to(path)
    assert not (bare / OUTCOMES_FOLDER).exists()
    assert isinstance(loop.open_training_set(str(bare), Filters()), LatentSet)
    with pytest.raises(UserError, match=r"has no manifest and outcome tables, which filters need.*train\.encode"):
        loop.open_training_set(str(bare), Filters(without_flags=("clipped",)))


def _damage(folder: Path) -> None:
    """Flip a bit of the second object's metadata."""
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[read_stats(*url_to_fs(folder), "shard-000000").samples[1].members["meta.json"].offset + 30] ^= 4
    tar.write_bytes(bytes(data))


def _with_share(run: TrainingRun, share: float) -> TrainingRun:
    return replace(run, recipe=replace(run.recipe, max_damaged_share=share))


def test_damage_is_passed_over_up_to_the_share_and_named_at_the_end(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_set(tmp_path / "set", 6, 32)
    _damage(folder)
    run = micro_run(folder, tmp_path / "run", 4, base=base)
    with pytest.raises(UserError, match=r"synthetic-0001.*--max-corrupt-fraction 0\.001 allows at most 0"):
        train(run)
    assert len(train(_with_share(run, 0.2))) == 4  # the same run: the share changes nothing of its result
    printed = capsys.readouterr()
    assert "1 damaged objects were replaced (1 allowed):\n  synthetic-0001: " in printed.err
    assert "replaced a damaged object (1 so far, 1 allowed)" in printed.err
    saved = json.loads((run.out / "checkpoints" / "step-000000004" / "progress.json").read_text())
    assert list(saved["damaged"]) == ["synthetic-0001"]


def test_what_was_damaged_before_a_stop_is_named_at_the_end(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = micro_run(make_shard_set(tmp_path / "set", 6, 32), tmp_path / "run", 2, base=base)
    plain = loop.restore_checkpoint

    def with_damage(*given: Any) -> Progress:
        return replace(plain(*given), damaged={"synthetic-0004": "was torn"})

    monkeypatch.setattr(loop, "restore_checkpoint", with_damage)
    train(_with_share(run, 0.2))
    assert "replaced (1 allowed):\n  synthetic-0004: was torn" in capsys.readouterr().err


def test_options_of_the_stream_reach_the_run_and_are_off_by_default() -> None:
    plain = resolved("stage1")
    assert (plain.filters, plain.recipe.items_per_object, plain.recipe.sample_posterior) == (Filters(), 1, False)
    assert (plain.recipe.readers, plain.recipe.max_damaged_share) == (2, 0.001)
    run = resolved(
        "stage1",
        *("--repeats-per-object", "4", "--num-workers", "3", "--max-corrupt-fraction", "0.01", "--sample-posterior"),
        *("--without-flags", "empty", "clipped", "--min-coverage", "0.1", "--max-coverage", "0.9"),
        *("--licenses", "CC0-1.0", "--uids", "list", "--where", "texture > 0.1 and not flat"),
    )
    expected = Filters(("empty", "clipped"), 0.1, 0.9, ("CC0-1.0",), Path("list"), "texture > 0.1 and not flat")
    assert run.filters == expected
    changed = {"items_per_object": 4, "readers": 3, "max_damaged_share": 0.01, "sample_posterior": True}
    assert run.recipe == replace(plain.recipe, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--without-flags", "blurred"], "unknown quality flag blurred; choose from empty, empty-views, clipped"),
        (["--licenses", "CC-BY"], r"no object has the license CC-BY; choose from CC0-1\.0, CC-BY-4\.0"),
        (["--min-coverage", "0.99"], "no objects pass the filters; give filters that keep more"),
        (
            ["--min-coverage", "0.9", "--max-coverage", "0.1"],
            "both numbers must be from 0 to 1",
        ),
        (["--uids", "nowhere.txt"], "cannot read the uids in the file nowhere.txt"),
        (["--repeats-per-object", "0"], "--repeats-per-object is 0; it must be between 1 and 64, the number of ways"),
        (["--repeats-per-object", "65"], "--repeats-per-object is 65; it must be between 1 and 64, the number of ways"),
        (["--max-corrupt-fraction", "1.5"], "--max-corrupt-fraction is 1.5"),
        (["--num-workers", "0"], "--num-workers is 0"),
        (["--shards", "nowhere"], "no shard set at nowhere"),
    ],
)
def test_what_cannot_be_trained_on_is_said_by_the_command_before_anything_is_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    shown = ["--shards", str(shards)] if "--shards" not in options else []
    monkeypatch.setattr(sys, "argv", ["train", "stage1", "--out", str(tmp_path / "run"), *shown, *options])
    with pytest.raises(UserError, match=told):
        main()
    assert not (tmp_path / "run").exists()


def test_an_empty_epoch_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = make_shard_set(tmp_path / "empty", 0)
    monkeypatch.setattr(sys, "argv", ["train", "stage1", "--out", str(tmp_path / "run"), "--shards", str(empty)])
    with pytest.raises(UserError, match="no objects to train on: an epoch would be empty"):
        main()
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="3 objects are too few for 4 ranks"):
        loop.open_training_set(str(make_shard_set(tmp_path / "few", 3, 8)), Filters(), world=4)
