"""What a run trains on: latents as pictures, items, filters, damage; resumed exactly, also on another number of ranks."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dataset.errors import UserError
from dataset.latents import LatentSet
from dataset.outcome import OUTCOMES_FOLDER
from dataset.selection import Filters
from dataset.shards import open_set, read_stats
from tests.make_latents import make_latent_set
from tests.make_shards import make_shard_set
from tests.test_selection import write_flags
from tests.train_micro import micro_model, micro_run, with_items
from train import loop
from train.__main__ import Stage1, main, resolve
from train.loop import train
from train.model import save_model
from train.run import Run

ROOT = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("one_thread", "quick_pictures")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six objects in shards of four; licences alternate, the second one is clipped."""
    folder = make_shard_set(tmp_path_factory.mktemp("data") / "set", 6, 32)
    write_flags(folder, {1: ("clipped",)})
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to start from, so that no parts are trained first."""
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(micro_model(), folder)
    return folder


@pytest.fixture(scope="module")
def latents(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_latent_set(tmp_path_factory.mktemp("latents") / "set", shards, micro_model())


def _final(run: Path, steps: int = 6) -> dict[str, torch.Tensor]:
    """Weights and the optimiser's moments of the last checkpoint."""
    last = run / "checkpoints" / f"step-{steps:09d}"
    return load_file(last / "unet.safetensors") | load_file(last / "optimiser.safetensors")


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stage", [1, 2])
def test_training_on_latents_is_training_on_pictures(
    shards: Path, latents: Path, base: Path, tmp_path: Path, stage: int, capsys: pytest.CaptureFixture[str]
) -> None:
    losses, pictures = [], []
    for kind, data in (("pictures", shards), ("latents", latents)):
        run = micro_run(data, tmp_path / kind, 4, stage=stage, base=base)
        losses.append(train(run))
        assert capsys.readouterr().out.count("a latent set (it holds latents.json)") == (kind == "latents")
        assert json.loads((run.out / "config.json").read_text())["data"]["kind"] == kind
        with Image.open(run.out / "samples" / "step-000000004.png") as picture:
            pictures.append(np.asarray(picture.convert("RGB"), np.float32))
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[1] != losses[0]  # float16: another source, not the same one
    width = pictures[0].shape[1] * 5 // 9  # reference and truth: an untrained VAE's, so only the shape is alike
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0][:, width:] - pictures[1][:, width:]).mean() < 2  # the samples come from equal weights


def test_latents_need_the_model_that_made_them(latents: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the autoencoder cannot be trained from .*with --base the model that encoded"):
        train(micro_run(latents, tmp_path / "nothing", 2))
    other = tmp_path / "other"
    save_model(micro_model(seed=1), other)
    with pytest.raises(UserError, match="encoded by another model"):
        train(micro_run(latents, tmp_path / "run", 2, base=other))


def test_a_drawn_posterior_is_an_option_that_changes_the_losses(latents: Path, base: Path, tmp_path: Path) -> None:
    run = micro_run(latents, tmp_path / "run", 2, base=base)
    mean = train(run)
    drawn = replace(run, out=tmp_path / "drawn", recipe=replace(run.recipe, sample_posterior=True))
    assert train(drawn) != mean
    assert not run.recipe.sample_posterior
    with pytest.raises(UserError, match=r"recipe\.sample_posterior was True, now False"):
        train(replace(run, out=drawn.out))


@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_killed_and_repeated_with_items_and_readers_ends_in_the_same_weights(
    shards: Path, latents: Path, base: Path, tmp_path: Path, kind: str
) -> None:
    data, delay_s = shards if kind == "pictures" else latents, random.uniform(0, 0.15)
    print(f"killed {delay_s:.3f} s after the first checkpoint")
    whole, killed = (with_items(micro_run(data, tmp_path / name, 6, base=base)) for name in ("whole", "killed"))
    train(replace(whole, recipe=replace(whole.recipe, readers=1)))
    command = [sys.executable, "-m", "tests.train_micro", "items", data, killed.out, "6", base]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while not (killed.out / "checkpoints" / "step-000000002").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
    assert not (killed.out / "model.json").exists()
    assert len(train(killed)) < 6
    assert _same(_final(whole.out), _final(killed.out))
    saved = json.loads((killed.out / "checkpoints" / "step-000000006" / "progress.json").read_text())
    assert saved["stream"] == {"step": 6, "item": 24, "world": 1, "items_per_object": 4}


def _stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask for the end in the middle of a step."""
    plain, done = loop.update, []

    def asks(optimiser: torch.optim.AdamW, loss: torch.Tensor, norm: torch.Tensor) -> None:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(optimiser, loss, norm)

    monkeypatch.setattr(loop, "update", asks)


def test_a_run_of_other_ranks_is_resumed_at_its_place_in_the_epoch_and_says_so(
    latents: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint as two ranks of two objects each would have written it: one rank of four goes on with its items."""
    whole, stopped = (micro_run(latents, tmp_path / name, 6, base=base) for name in ("whole", "stopped"))
    train(whole)
    _stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    monkeypatch.undo()
    progress = stopped.out / "checkpoints" / "step-000000004" / "progress.json"
    saved = json.loads(progress.read_text())
    assert saved["stream"] == {"step": 4, "item": 16, "world": 1, "items_per_object": 1}
    progress.write_text(json.dumps({**saved, "stream": {**saved["stream"], "item": 8, "world": 2}}))
    capsys.readouterr()
    assert len(train(stopped)) == 2
    told = capsys.readouterr().out
    assert "resumed on 1 ranks instead of 2: epoch 2 goes on after 4 of its 6 items" in told
    assert _same(_final(whole.out), _final(stopped.out))


def test_a_checkpoint_from_before_the_stream_was_saved_resumes(
    latents: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (micro_run(latents, tmp_path / name, 4, base=base) for name in ("whole", "stopped"))
    train(whole)
    _stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    monkeypatch.undo()
    progress = stopped.out / "checkpoints" / "step-000000003" / "progress.json"
    saved = json.loads(progress.read_text())
    progress.write_text(json.dumps({key: value for key, value in saved.items() if key != "stream"}))
    assert len(train(stopped)) == 1
    assert _same(_final(whole.out, 4), _final(stopped.out, 4))


@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_filters_are_printed_recorded_and_obeyed(
    shards: Path, latents: Path, base: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = tmp_path / "uids.txt"
    uids.write_text("".join(f"synthetic-{i:04d}\n" for i in range(1, 6)))
    data = shards if kind == "pictures" else latents
    filters = Filters(without_flags=("clipped",), licences=("CC-BY-4.0",), uids=uids)
    run = replace(micro_run(data, tmp_path / "run", 2, base=base), filters=filters)
    parts = loop._parts(run, loop.open_training_set(run.shards, run.filters))
    assert parts.feed.shards.uids() == ["synthetic-0003", "synthetic-0005"]
    capsys.readouterr()
    train(run)
    told = capsys.readouterr().out
    assert "2 of 6 objects kept" in told
    assert "1 left out: not in the list of uids" in told
    assert "2 left out: licence CC0-1.0" in told
    assert "1 left out: flag clipped" in told
    config = json.loads((run.out / "config.json").read_text())["data"]
    assert config["objects"] == 2
    assert config["filters"] == {
        "without_flags": ["clipped"],
        "min_coverage": 0.0,
        "max_coverage": 1.0,
        "licences": ["CC-BY-4.0"],
        "uids": str(uids),
    }
    with pytest.raises(UserError, match=r"data\.filters\.without_flags was \['clipped'\], now \[\]"):
        train(replace(run, filters=replace(filters, without_flags=())))
    moved = uids.rename(tmp_path / "moved.txt")
    assert train(replace(run, filters=replace(filters, uids=moved))) == []  # the same objects: the same run
    moved.write_text("synthetic-0003\n")
    with pytest.raises(UserError, match=r"data\.sha256"):
        train(replace(run, filters=replace(filters, uids=moved)))


def test_coverage_filters_of_latents_are_those_of_pictures(shards: Path, latents: Path) -> None:
    found = loop.open_training_set(str(shards), Filters(min_coverage=0.2)).uids()
    assert 0 < len(found) < 6
    assert loop.open_training_set(str(latents), Filters(min_coverage=0.2)).uids() == found


def test_latents_without_their_tables_cannot_be_filtered(shards: Path, latents: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in latents.iterdir():
        if path.is_file() and path.name not in ("set.json", "manifest.parquet"):
            (bare / path.name).symlink_to(path)
    assert not (bare / OUTCOMES_FOLDER).exists()
    assert isinstance(loop.open_training_set(str(bare), Filters()), LatentSet)
    with pytest.raises(UserError, match=r"no manifest and outcome tables .*train\.encode"):
        loop.open_training_set(str(bare), Filters(without_flags=("clipped",)))


def _damage(folder: Path) -> None:
    """Flip a bit of the second object's metadata."""
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[read_stats(*open_set(folder), "shard-000000").samples[1].members["meta.json"].offset + 30] ^= 4
    tar.write_bytes(bytes(data))


def _with_share(run: Run, share: float) -> Run:
    return replace(run, recipe=replace(run.recipe, max_damaged_share=share))


def test_damage_is_passed_over_up_to_the_share_and_named_at_the_end(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_set(tmp_path / "set", 6, 32)
    _damage(folder)
    run = micro_run(folder, tmp_path / "run", 3, base=base)
    with pytest.raises(UserError, match=r"synthetic-0001.*more than the 0 that a share of 0\.001 allows"):
        train(run)
    assert len(train(_with_share(run, 0.2))) == 3  # the same run: the share changes nothing of its result
    printed = capsys.readouterr()
    assert "1 damaged objects were passed over (at most 1 may be):\n  synthetic-0001: " in printed.out
    assert "passed over (1 of at most 1 damaged objects)" in printed.err


def test_options_of_the_stream_reach_the_run_and_are_off_by_default() -> None:
    plain = resolve(Stage1(out=Path("x")))
    assert (plain.filters, plain.recipe.items_per_object, plain.recipe.sample_posterior) == (Filters(), 1, False)
    assert (plain.recipe.readers, plain.recipe.max_damaged_share) == (2, 0.001)
    run = resolve(
        Stage1(
            out=Path("x"),
            items_per_object=4,
            readers=3,
            max_damaged_share=0.01,
            sample_posterior=True,
            without_flags=("empty", "clipped"),
            min_coverage=0.1,
            max_coverage=0.9,
            licences=("CC0-1.0",),
            uids=Path("list"),
        )
    )
    assert run.filters == Filters(("empty", "clipped"), 0.1, 0.9, ("CC0-1.0",), Path("list"))
    changed = {"items_per_object": 4, "readers": 3, "max_damaged_share": 0.01, "sample_posterior": True}
    assert run.recipe == replace(plain.recipe, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--without-flags", "blurred"], "no flag blurred; there are empty, clipped"),
        (["--licences", "CC-BY"], r"no object has the licence CC-BY; there are CC0-1\.0, CC-BY-4\.0"),
        (["--min-coverage", "0.99"], "nothing is left to train on; loosen the filters"),
        (["--min-coverage", "0.9", "--max-coverage", "0.1"], "give a range within 0 to 1"),
        (["--uids", "nowhere.txt"], "nowhere.txt: no readable list of uids"),
        (["--items-per-object", "65"], "--items-per-object is 65; an object has 1 to 64 pairs"),
        (["--max-damaged-share", "1.5"], "--max-damaged-share is 1.5"),
        (["--readers", "0"], "--readers is 0"),
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
    with pytest.raises(UserError, match="3 objects cannot feed 4 ranks"):
        loop.open_training_set(str(make_shard_set(tmp_path / "few", 3, 8)), Filters(), world=4)


def test_parts_are_not_trained_from_latents(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "tower", "--out", str(tmp_path / "x"), "--shards", str(latents)])
    with pytest.raises(UserError, match="a part of the model cannot be trained from"):
        main()
