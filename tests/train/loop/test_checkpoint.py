"""Checkpoints: atomic, verified, written in a thread; behavior when the disk is full."""

import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.loop import checkpoint
from train.loop.checkpoint import CheckpointWriter, Keep, Progress, restore_checkpoint, take_snapshot, write_checkpoint
from train.model.weight_averaging import start_average

KEEP = Keep(last=2)


def _toy(width: int = 3) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, width)).to(memory_format=torch.channels_last)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)


def _step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.ones(1, 3, 3, 3)).square().sum().backward()
    optimizer.step()


def _save(out: Path, module: nn.Module, optimizer: torch.optim.Optimizer, steps: int, keep: Keep = KEEP) -> Path:
    return write_checkpoint(out, take_snapshot(module, optimizer), Progress(steps, 0), keep)


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    """A real error of the system in the middle of a write (EFBIG), similar to that of a full disk (ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_moments_and_progress_come_back_and_training_goes_on_the_same(tmp_path: Path) -> None:
    module, optimizer = _toy()
    for _ in range(3):
        _step(module, optimizer)
    write_checkpoint(tmp_path, take_snapshot(module, optimizer), Progress(3, 1, 40), KEEP)
    again, its_optimiser = _toy()
    assert restore_checkpoint(tmp_path, again, its_optimiser) == Progress(3, 1, 40)
    for _ in range(2):
        _step(module, optimizer)
        _step(again, its_optimiser)
    assert _same(module.state_dict(), again.state_dict())
    moment = its_optimiser.state[again[0].weight]["exp_avg"]
    assert moment.stride() == again[0].weight.stride()  # channels-last, as the weight


def test_an_unfused_optimiser_takes_the_same_checkpoint(tmp_path: Path) -> None:
    module, optimizer = _toy()
    _step(module, optimizer)
    _save(tmp_path, module, optimizer, 1)
    again, _ = _toy()
    plain = torch.optim.AdamW(again.parameters(), lr=0.1)
    restore_checkpoint(tmp_path, again, plain)
    _step(module, optimizer)
    _step(again, plain)
    for first, second in zip(module.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_the_last_stay_and_every_mth_for_good(tmp_path: Path) -> None:
    module, optimizer = _toy()
    for steps in range(1, 9):
        _save(tmp_path, module, optimizer, steps, Keep(last=2, every=3))
    assert _names(tmp_path) == [f"step-{steps:09d}" for steps in (3, 6, 7, 8)]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [(Keep(last=1), [5]), (Keep(last=2), [4, 5]), (Keep(last=1, every=2), [2, 4, 5]), (Keep(last=2, every=4), [4, 5])],
)
def test_no_more_checkpoints_stay_than_asked_for(tmp_path: Path, keep: Keep, kept: list[int]) -> None:
    module, optimizer = _toy()
    for steps in range(1, 6):
        _save(tmp_path, module, optimizer, steps, keep)
    assert _names(tmp_path) == [f"step-{steps:09d}" for steps in kept]


def test_files_are_on_the_disk_before_their_folder_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = _toy()
    synced: list[int] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    def record_replace(source: Path, target: Path) -> None:
        inodes = {path.stat().st_ino for path in (source, *source.iterdir())}
        assert len(inodes) == 4  # the folder, two files of tensors, progress.json
        assert inodes == set(synced)
        replace(source, target)
        synced.clear()

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    folder = _save(tmp_path, module, optimizer, 1)
    assert synced == [folder.parent.stat().st_ino]


def test_the_average_is_saved_and_restored(tmp_path: Path) -> None:
    module, optimizer = _toy()
    average = start_average(module)
    _step(module, optimizer)
    write_checkpoint(tmp_path, take_snapshot(module, optimizer, average), Progress(1, 0), KEEP)
    again, its_optimiser = _toy()
    its_average = {name: torch.zeros_like(tensor) for name, tensor in average.items()}
    restore_checkpoint(tmp_path, again, its_optimiser, its_average)
    assert _same(dict(average), its_average)
    assert not _same(dict(again.named_parameters()), its_average)


def test_without_a_checkpoint_nothing_is_done(tmp_path: Path) -> None:
    assert restore_checkpoint(tmp_path, *_toy()) == Progress(0, 0)


@pytest.mark.parametrize("name", ["unet.safetensors", "optimiser.safetensors"])
def test_one_changed_byte_is_found_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    module, optimizer = _toy()
    _save(tmp_path, module, optimizer, 1)
    _step(module, optimizer)
    path = _save(tmp_path, module, optimizer, 2) / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    again, its_optimiser = _toy()
    before = {key: tensor.clone() for key, tensor in again.state_dict().items()}
    with pytest.raises(
        UserError, match=rf"step-000000002: damaged \({name}.*remove this folder.*resumes from step-000000001"
    ):
        restore_checkpoint(tmp_path, again, its_optimiser)
    assert _same(before, again.state_dict())
    assert not its_optimiser.state


def test_the_only_checkpoint_damaged_says_that_the_run_starts_again(tmp_path: Path) -> None:
    folder = _save(tmp_path, *_toy(), 1)
    (folder / "unet.safetensors").unlink()
    with pytest.raises(UserError, match=r"unet\.safetensors.*starts again from its first step"):
        restore_checkpoint(tmp_path, *_toy())


@pytest.mark.parametrize("content", ["", "[]", '{"steps": 1}', '{"steps": 2, "skipped_in_a_row": 0, "sha256": {}}'])
def test_damaged_progress_is_an_error(tmp_path: Path, content: str) -> None:
    folder = _save(tmp_path, *_toy(), 1)
    (folder / "progress.json").write_text(content)
    with pytest.raises(UserError, match="step-000000001"):
        restore_checkpoint(tmp_path, *_toy())


def test_what_a_killed_run_left_half_written_is_ignored_and_removed(tmp_path: Path) -> None:
    _save(tmp_path, *_toy(), 1)
    for name in (".step-000000002.tmp", ".step-000000001.old.tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "unet.safetensors").write_bytes(b"xx")
    assert restore_checkpoint(tmp_path, *_toy()).steps == 1
    with CheckpointWriter(tmp_path, KEEP):
        assert _names(tmp_path) == ["step-000000001"]


def test_writing_does_not_hold_training_up_and_saves_what_was_there_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = _toy()
    _step(module, optimizer)
    then = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    may_write, plain, under_way = threading.Event(), write_checkpoint, []

    def slow(out: Path, snapshot: checkpoint.Snapshot, progress: Progress, keep: Keep) -> Path:
        under_way.append(progress.steps)
        assert may_write.wait(30)
        folder = plain(out, snapshot, progress, keep)
        under_way.remove(progress.steps)
        return folder

    monkeypatch.setattr(checkpoint, "write_checkpoint", slow)
    with CheckpointWriter(tmp_path, KEEP) as writer:
        writer.save(module, optimizer, Progress(1, 0))
        _step(module, optimizer)  # while the thread is held
        assert not (tmp_path / "checkpoints").exists()
        writer.poll()
        threading.Timer(0.05, may_write.set).start()
        writer.save(module, optimizer, Progress(2, 0))  # waits for the first
        assert under_way.count(1) == 0
        assert (tmp_path / "checkpoints" / "step-000000001").is_dir()
    assert _names(tmp_path) == ["step-000000001", "step-000000002"]
    (tmp_path / "checkpoints" / "step-000000002").rename(tmp_path / "aside")
    again, its_optimiser = _toy()
    restore_checkpoint(tmp_path, again, its_optimiser)
    assert _same(then, again.state_dict())


def test_a_full_disk_is_said_counted_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, optimizer = _toy(width=4000)
    with CheckpointWriter(tmp_path, KEEP) as writer:
        writer.save(module, optimizer, Progress(1, 0))
        writer.wait()
        with _no_file_larger_than(20_000):
            for steps in (2, 3):
                writer.save(module, optimizer, Progress(steps, 0))
                writer.wait()
        assert _names(tmp_path) == ["step-000000001"]  # and nothing half-written
        assert writer.failures == 2
        printed = capsys.readouterr().err
        assert "NOT WRITTEN, because the disk is full: " in printed
        assert "checkpoint of step 2 (" in printed
        assert "2 failed so far" in printed
        assert restore_checkpoint(tmp_path, *_toy(width=4000)).steps == 1
        writer.save(module, optimizer, Progress(4, 0))
    assert _names(tmp_path) == ["step-000000001", "step-000000004"]


def test_any_other_error_of_the_thread_is_raised(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer = CheckpointWriter(tmp_path, KEEP)
    writer.save(*_toy(), Progress(1, 0))
    with pytest.raises(UserError, match="checkpoint of step 1 could not be written"), writer:
        writer.wait()
    assert writer.failures == 0


def test_progress_json_is_plain(tmp_path: Path) -> None:
    saved = json.loads((_save(tmp_path, *_toy(), 5) / "progress.json").read_text())
    assert (saved["steps"], saved["skipped_in_a_row"], saved["seen_images"]) == (5, 0, 0)
    assert sorted(saved["sha256"]) == ["optimiser.safetensors", "unet.safetensors"]
