"""Encoding on several Ray workers: the same bytes as in one process, dead workers, refusals."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.errors import UserError
from dataset.io.actor_pool import PoolActor, PoolResult
from dataset.io.files import TEMPORARY_SUFFIX
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, micro_model
from train.encode import __main__ as encode_module
from train.encode import ray_workers
from train.encode.__main__ import EncodeArgs, run
from train.encode.encode_set import ShardEncoder, encode, plan_format
from train.encode.encoder import load_encoder
from train.model.multiview import save_model

pytestmark = pytest.mark.usefixtures("one_thread")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.integration
def test_two_workers_write_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_shard_set(tmp_path / "images", 5, 32, objects_per_shard=2)
    save_model(micro_model(), tmp_path / "micro", ("vae", "image_tower"))
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        run(EncodeArgs(str(images), str(out), model=tmp_path / "micro", device="cpu", workers=workers))
    assert _bytes(tmp_path / "out1") == _bytes(tmp_path / "out2")
    table = tmp_path / "out2" / "shard-000001.table.npz"
    table.write_bytes(b"damaged")  # as left by a worker that died
    (tmp_path / "out2" / "shard-000001.json").unlink()
    for uid in images.glob("shard-000001.tar"):
        uid.write_bytes(uid.read_bytes()[:4096])
    with pytest.raises(UserError, match="shard-000001"):
        run(EncodeArgs(str(images), str(tmp_path / "out2"), model=tmp_path / "micro", device="cpu", workers=2))


class FakePool:
    """Stands in for the pool of actors: an actor dies when it gets a shard of `deadly`, which it then forgets."""

    def __init__(self, deadly: list[int], on_death: Any) -> None:
        self.actors = [PoolActor[int](self, None)]
        self._deadly, self._on_death, self.encode = deadly, on_death, self

    def remote(self, number: int) -> int:
        return number

    @property
    def busy(self) -> bool:
        return bool(self.actors[0].running)

    def submit(self, actor: PoolActor[int], reference: int, item: int) -> None:
        actor.running[reference] = item

    def wait(self, timeout_s: float) -> list[int]:
        return list(self.actors[0].running)

    def collect(self, reference: int) -> PoolResult | None:
        actor = self.actors[0]
        if reference in self._deadly:
            self._deadly.remove(reference)
            self.actors = [PoolActor[int](self, None)]
            self._on_death(actor, RuntimeError("killed"))
            return None
        return PoolResult(actor, actor.running.pop(reference), None)


def _encoded(deadly: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(ray_workers, "ActorPool", lambda start, on_death, **_: FakePool(deadly, on_death))
    return ray_workers._Pool(None, 1).encode([3, 4, 5])


def test_the_shard_of_a_dead_worker_is_encoded_by_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(_encoded([4], monkeypatch)) == [3, 4, 5]
    assert "shard 4: its worker died (killed); another worker encodes it" in capsys.readouterr().err


def test_a_shard_that_kills_its_workers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"the workers that encoded shard 4 died 2 times \(last error: killed\)"):
        list(_encoded([4, 4], monkeypatch))


def test_the_unfinished_file_of_a_dead_worker_is_removed(tmp_path: Path) -> None:
    shards = ShardSet(make_shard_set(tmp_path / "images", 2, 32))
    save_model(micro_model(), tmp_path / "micro", ("vae", "image_tower"))
    encoder = load_encoder(tmp_path / "micro", CPU)
    out, form = tmp_path / "out", plan_format(encoder, shards, logvar=False, embedded="all")

    def encode_shards(numbers: Sequence[int]) -> Iterator[int]:
        (out / f"shard-000000.tar.0{TEMPORARY_SUFFIX}").touch()
        for number in numbers:
            ShardEncoder(shards, str(out), encoder, form, batch_size=32, num_workers=1).encode([number])
            yield number

    encode(shards, str(out), encoder, form, encode_shards=encode_shards)
    assert not list(out.glob(f"*{TEMPORARY_SUFFIX}"))


def test_numbers_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    workers = encode_module._workers
    assert workers(None, torch.device("cpu")) == workers(None, torch.device("cuda:1")) == 1
    assert workers(None, torch.device("cuda")) == workers(2, torch.device("cpu")) == 2
    with pytest.raises(UserError, match="--workers is 0; it must be at least 1"):
        workers(0, torch.device("cpu"))
    with pytest.raises(UserError, match="--device cuda:1 selects a single GPU, but --workers 2 needs several"):
        workers(2, torch.device("cuda:1"))
