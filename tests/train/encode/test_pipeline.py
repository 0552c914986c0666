"""The pipeline of `train.encode`: it goes on between shards, in bounded memory, and leaves no thread behind."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dataset.errors import UserError
from dataset.format.latents import LatentFormat
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import CPU
from train.encode import encode_set, pipeline
from train.encode.encode_set import ShardEncoder, plan_format
from train.encode.encoder import CompileEncoder, Encoder, load_encoder, speed_up
from train.encode.pipeline import EncodeTimes, _load, encode_objects, encoded_objects

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shard_encoder(images: Path, model: Path, tmp_path: Path) -> ShardEncoder:
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=False, embedded="all")
    return ShardEncoder(shards, str(tmp_path), encoder, form, batch_size=64, num_workers=2)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in left if not name.startswith(("Inductor", "subproc_worker_timer", "tqdm_monitor"))] == []


def _batches(monkeypatch: pytest.MonkeyPatch, after: Any) -> None:
    """Call `after(number of the batch)` after a batch is encoded."""
    count = iter(range(100))

    def encode_and_tell(
        encoder: Encoder, form: LatentFormat, views: Sequence[Tensor], size: int
    ) -> tuple[Tensor, Tensor]:
        result = encode_objects(encoder, form, views, size)
        after(next(count))
        return result

    monkeypatch.setattr(pipeline, "encode_objects", encode_and_tell)


def test_the_next_shards_are_encoded_while_one_is_closed(
    shard_encoder: ShardEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_is_encoded = threading.Event()
    _batches(monkeypatch, lambda number: number == 2 and last_is_encoded.set())
    write, waited = encode_set.write_bytes_atomic, []

    def write_later(*arguments: Any) -> None:
        waited.append(last_is_encoded.wait(20))
        write(*arguments)

    monkeypatch.setattr(encode_set, "write_bytes_atomic", write_later)
    shard_encoder.encode([0, 1, 2])
    assert waited == [True, True, True]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is full")])
def test_an_error_in_the_writer_ends_the_threads(
    shard_encoder: ShardEncoder, tmp_path: Path, error: BaseException
) -> None:
    def report(views: int) -> None:
        raise error

    with pytest.raises(type(error) if isinstance(error, UserError) else KeyboardInterrupt):
        shard_encoder.encode([0, 1, 2], report)
    assert list(tmp_path.iterdir()) == []


def test_the_shards_before_a_damaged_one_are_finished(
    shard_encoder: ShardEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = ShardSet.views

    def damaged(self: ShardSet, shard: int, *arguments: Any) -> Any:
        if shard == 1:
            raise UserError("damaged")
        return views(self, shard, *arguments)

    monkeypatch.setattr(ShardSet, "views", damaged)
    with pytest.raises(UserError, match="damaged"):
        shard_encoder.encode([0, 1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"shard-000000.{kind}" for kind in ("json", "table.npz", "tar")
    ]


def test_a_slow_device_bounds_the_images_in_memory(images: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread and one object per batch, four objects are read while the device is at the first one."""
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=False, embedded="random")
    loaded: list[int] = []
    seen: list[int] = []
    load = pipeline._load

    def counted(*arguments: Any, **options: Any) -> Any:
        loaded.append(1)
        return load(*arguments, **options)

    def look(number: int) -> None:
        time.sleep(0.2)
        seen.append(len(loaded) - number)

    monkeypatch.setattr(pipeline, "_load", counted)
    _batches(monkeypatch, look)
    times = EncodeTimes()
    objects = encoded_objects(shards, [0, 1, 2], encoder, form, batch_size=32, num_workers=1, times=times)
    assert [encoded.latents.shape for encoded in objects] == [(32, 256)] * 5
    assert max(seen) <= 1 + 1 + pipeline._AHEAD
    assert times.views == 5 * 32
    assert times.images_s > 0


def test_at_most_two_batches_are_given_to_a_gpu(images: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is given to the GPU when the one before the last is finished."""
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=False, embedded="random")
    events: list[str] = []
    _batches(monkeypatch, lambda number: events.append(f"batch {number}"))
    monkeypatch.setattr(pipeline._Batch, "wait", lambda batch: events.append("wait"))
    monkeypatch.setattr(pipeline._Batch, "objects", lambda batch: iter(batch.metas))
    objects = encoded_objects(shards, [0, 1, 2], encoder, form, batch_size=32, num_workers=1, times=EncodeTimes())
    assert len(list(objects)) == 5
    assert events == ["batch 0", "batch 1", "wait", "batch 2", "wait", "batch 3", "wait", "batch 4"]


def test_the_embeddings_of_the_stored_views_are_those_of_all_views(images: Path, model: Path) -> None:
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=False, embedded="all")
    views = [torch.from_numpy(shards.views(0, sample, pipeline.ALL_VIEWS)) for sample in (0, 1)]
    _, every = encode_objects(encoder, form, views, 64)
    _, random = encode_objects(encoder, replace(form, embedded="random"), views, 64)
    expected = torch.cat([every[16:32], every[48:64]])
    torch.testing.assert_close(random, expected, rtol=4e-3, atol=2e-3)


@pytest.mark.gpu
def test_on_a_gpu_the_results_of_each_object_are_copied(images: Path, model: Path) -> None:
    encoder, shards = load_encoder(model, torch.device("cuda")), ShardSet(images)
    form = plan_format(encoder, shards, logvar=True, embedded="random")
    places = [(shard, sample) for shard in range(3) for sample in range(shards.samples_per_shard[shard])]
    expected = [
        [part.cpu() for part in encode_objects(encoder, form, [_load(shards, place, pinned=True).views], 32)]
        for place in places
    ]
    objects = encoded_objects(shards, [0, 1, 2], encoder, form, batch_size=32, num_workers=3, times=EncodeTimes())
    for encoded, (latents, embeddings) in zip(objects, expected, strict=True):
        assert torch.equal(torch.from_numpy(encoded.latents), latents)
        assert torch.equal(torch.from_numpy(encoded.embeddings), embeddings)


@pytest.mark.gpu
def test_on_a_gpu_compiled_networks_give_nearly_the_same(images: Path, model: Path) -> None:
    shards, results = ShardSet(images), []
    choices: list[CompileEncoder] = ["off", "on"]
    for choice in choices:
        encoder = load_encoder(model, torch.device("cuda"))
        form = plan_format(encoder, shards, logvar=True, embedded="random")
        encoder = speed_up(encoder, 64, 160, choice, "random")
        objects = encoded_objects(shards, [0, 1, 2], encoder, form, batch_size=64, num_workers=3, times=EncodeTimes())
        results.append([torch.from_numpy(part).float() for o in objects for part in (o.latents, o.embeddings)])
    for eager, compiled in zip(*results, strict=True):
        assert float((eager - compiled).norm() / eager.norm()) < 0.02
