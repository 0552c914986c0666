"""Batches of views in `train.encode`: their size changes nothing, and large ones contain several objects."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dataset.format.latents import LatentFormat
from dataset.format.schema import ALL_VIEWS
from dataset.format.shards import read_index
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import CPU
from train.encode import pipeline
from train.encode.__main__ import EncodeArgs, run
from train.encode.encode_set import default_batch_size, default_num_workers, plan_format
from train.encode.encoder import Encoder, load_encoder
from train.encode.pipeline import encode_objects

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_batch_size_changes_nothing_beyond_rounding(images: Path, model: Path) -> None:
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=True, embedded="random")
    objects = [torch.from_numpy(shards.views(*place, ALL_VIEWS)) for place in ((0, 0), (0, 1), (1, 0))]
    alone = [torch.cat(parts) for parts in zip(*(encode_objects(encoder, form, [o], 32) for o in objects), strict=True)]
    for batch_size in (5, 40, 64, 96):
        together = encode_objects(encoder, form, objects, batch_size)
        for one, other, shape in zip(alone, together, ((3 * 32, 512), (3 * 16, 32)), strict=True):
            assert one.shape == other.shape == shape
            torch.testing.assert_close(one, other, rtol=4e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("batch_size", "together"), [(32, [1, 1, 1, 1, 1]), (63, [1, 1, 1, 1, 1]), (64, [2, 2, 1]), (1024, [2, 2, 1])]
)
def test_a_large_batch_contains_several_objects_of_a_shard(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, batch_size: int, together: list[int]
) -> None:
    """The set has shards of two objects, and one in the last."""
    sizes = []

    def counted(encoder: Encoder, form: LatentFormat, views: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
        sizes.append(len(views))
        return encode_objects(encoder, form, views, size)

    monkeypatch.setattr(pipeline, "encode_objects", counted)
    run(EncodeArgs(str(images), str(tmp_path / "out"), model=model, device="cpu", batch_size=batch_size))
    assert sizes == together
    assert read_index(str(tmp_path / "out")).objects == 5


def test_the_default_batch_fits_the_memory_of_a_gpu_and_the_size_of_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_batch_size(CPU, 256, 64) == 32
    for free, size, objects_per_shard, expected in (
        (140e9, 256, 60, 192),
        (140e9, 256, 64, 128),
        (140e9, 256, 61, 192),
        (140e9, 256, 2, 64),
        (20e9, 256, 64, 32),
        (1e9, 256, 64, 32),
        (140e9, 128, 64, 256),
        (20e9, 128, 64, 64),
        (20e9, 128, 63, 96),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (int(free), 0))
        assert default_batch_size(torch.device("cuda"), size, objects_per_shard) == expected


def test_the_default_number_of_threads_leaves_cores_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, processes, expected in ((128, 8, 8), (32, 8, 4), (16, 1, 8), (4, 1, 4), (1, 1, 2), (None, 1, 2)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert default_num_workers(processes) == expected
