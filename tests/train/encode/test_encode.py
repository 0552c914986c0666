"""The encoder: what it writes is the encoding of each image; resuming; refusals."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from torch import Tensor

from dataset.check.verify import verify
from dataset.errors import UserError
from dataset.format.latents import Embedded, LatentFormat, latent_names
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, ViewSet
from dataset.format.shards import read_index, read_stats
from dataset.io.files import url_to_fs
from dataset.io.lock import owned
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.paths import ROOT
from tests.support.train_micro import CPU, micro_model
from train.data.images import to_tensor
from train.encode import __main__ as encode_module
from train.encode import pipeline
from train.encode.__main__ import EncodeArgs, parse, run
from train.encode.encode_set import encode, plan_format, set_bytes
from train.encode.encoder import Encoder, load_encoder
from train.encode.pipeline import encode_objects
from train.model.clip_vision import save_clip_vision
from train.model.fingerprint import weights_sha256
from train.model.multiview import MultiViewModel, posterior, save_model

VIEWS: list[tuple[ViewSet, int]] = [(s, i) for s in VIEW_SETS for i in range(VIEWS_PER_SET)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def latents(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latents") / "set"
    _encode(images, out, model)
    return out


def _encode(images: Path | str, out: Path | str, model: Path, **options: Any) -> None:
    run(EncodeArgs(str(images), str(out), model=model, device="cpu", **options))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _samples(folder: Path) -> dict[str, dict[str, bytes]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False)}


# webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_plain_webdataset_and_numpy_read_what_the_model_says_of_every_image(images: Path, latents: Path) -> None:
    source, encoded, model = _samples(images), _samples(latents), micro_model()
    assert list(encoded) == list(source)
    assert sorted(p.name for p in latents.glob("*.tar")) == sorted(p.name for p in images.glob("*.tar"))
    shards, uids = ShardSet(images), list(source)
    for uid in uids:
        assert encoded[uid]["meta.json"] == source[uid]["meta.json"]
        shard, sample = divmod(uids.index(uid), 2)
        views = to_tensor(shards.views(shard, sample, VIEWS))
        with torch.no_grad():
            mean, logvar = posterior(model.vae, views, 32)
            expected = torch.cat([mean.flatten(1), logvar.flatten(1), model.embed_image(views)[:, 0]], 1).numpy()
        for (view_set, index), row in zip(VIEWS, expected, strict=True):
            numbers = np.load(io.BytesIO(encoded[uid][f"{view_set}_{index:02d}.npy"]), allow_pickle=False)
            assert (numbers.dtype, numbers.shape) == (np.float16, (2 * 4 * 8 * 8 + 32,))
            np.testing.assert_allclose(numbers, row, rtol=2e-3, atol=1e-3)
    assert len({encoded[uids[0]][f"random_{i:02d}.npy"] for i in range(16)}) == 16


def test_the_layout_is_that_of_a_shard_set(images: Path, latents: Path) -> None:
    assert sorted(p.name for p in latents.iterdir()) == sorted(
        ["index.json", "latents.json", "attribution.csv", "manifest.parquet", "outcomes", "set.json"]
        + [f"shard-{i:06d}.{kind}" for i in range(3) for kind in ("tar", "json", "table.npz")]
    )
    before, after = read_index(images), read_index(latents)
    assert [s.samples for s in after.shards] == [s.samples for s in before.shards]
    assert after.objects_per_shard == before.objects_per_shard
    fs, root = url_to_fs(latents)
    entry = read_stats(fs, root, "shard-000001").samples[0]
    in_the_tar = sorted(entry.members, key=lambda suffix: entry.members[suffix].offset)
    assert [f"synthetic-0002.{suffix}" for suffix in in_the_tar] == latent_names("synthetic-0002")
    form = json.loads((latents / "latents.json").read_text())
    assert (form["channels"], form["height"], form["width"], form["embedding"]) == (4, 8, 8, 32)
    assert (form["latent_scale"], form["image_size"], form["precision"]) == (0.5, 32, "float32")
    assert form["pictures"] == [shard.sha256 for shard in before.shards]
    assert form["vae_sha256"] == weights_sha256(micro_model().vae) != form["image_tower_sha256"]


def test_the_same_images_give_the_same_bytes(images: Path, latents: Path, model: Path, tmp_path: Path) -> None:
    _encode(images, tmp_path / "again", model, num_workers=1)
    assert _bytes(tmp_path / "again") == _bytes(latents)


def test_what_the_images_set_says_of_its_objects_is_copied_also_into_a_finished_set(
    images: Path, latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ["set.json", "manifest.parquet", "attribution.csv", "outcomes/shard-000002.parquet"]
    for name in tables:
        assert (latents / name).read_bytes() == (images / name).read_bytes()
    _encode(images, tmp_path / "out", model)
    for name in tables:
        (tmp_path / "out" / name).unlink()
    _encode(images, tmp_path / "out", model)
    assert _bytes(tmp_path / "out") == _bytes(latents)
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in images.glob("*.tar"):
        (bare / path.name).symlink_to(path)
    for path in (*images.glob("shard-*.json"), images / "index.json"):
        (bare / path.name).symlink_to(path)
    capsys.readouterr()
    _encode(bare, tmp_path / "less", model)
    assert "has no manifest.parquet: training on the latents cannot filter" in capsys.readouterr().err
    assert not (tmp_path / "less" / "set.json").exists()


def test_one_encoding_at_a_time_writes_a_folder(images: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with owned(*url_to_fs(out), out, str(out), "encoding"):
        assert (out / "lock").is_file()
        with pytest.raises(UserError, match=f"another encoding is writing {out}"):
            _encode(images, out, model)
        assert sorted(path.name for path in out.iterdir()) == ["lock"]
    _encode(images, out, model)
    assert not (out / "lock").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        _encode(images, file / "out", model)


def test_a_remote_folder_has_a_lease(images: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset.io.lock._SETTLE_S", 0.0)
    fs, root = url_to_fs("memory://encode/latents")
    holder = {"id": "x", "host": "elsewhere", "pid": 1, "time": time.time()}
    fs.pipe_file(f"{root}/lease.json", json.dumps(holder).encode())
    with pytest.raises(UserError, match="another encoding is writing memory://encode/latents: process 1 on elsewhere"):
        _encode(images, "memory://encode/latents", model)
    fs.rm_file(f"{root}/lease.json")
    _encode(images, "memory://encode/latents", model)
    assert not fs.exists(f"{root}/lease.json")
    assert verify("memory://encode/latents") == []


@pytest.mark.integration
def test_killed_between_shards_it_keeps_the_finished_ones(model: Path, tmp_path: Path) -> None:
    images = make_shard_set(tmp_path / "images", 16, 32, objects_per_shard=1)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    _encode(images, whole, model)
    command = [sys.executable, "-m", "train.encode", str(images), str(out), "--model", str(model), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while not (out / "shard-000001.table.npz").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert not (out / "index.json").exists()
    (out / "shard-000009.tar.0a1b2c3d.tmp").write_bytes(b"left by the killed one")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-00000[01].*")}
    assert len(before) == 6
    _encode(images, out, model)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("shard-00000[01].*")} == before
    assert _bytes(out) == _bytes(whole)


def test_interrupted_inside_a_shard_it_does_that_shard_again(
    images: Path, latents: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def interrupted(
        encoder: Encoder, form: LatentFormat, views: Sequence[Tensor], batch_size: int
    ) -> tuple[Tensor, Tensor]:
        if next(calls) == 3:  # the second object of the second shard
            raise KeyboardInterrupt
        return encode_objects(encoder, form, views, batch_size)

    monkeypatch.setattr(pipeline, "encode_objects", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _encode(images, tmp_path, model)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.glob("*.tar*")) == ["shard-000000.tar"]
    _encode(images, tmp_path, model)
    assert _bytes(tmp_path) == _bytes(latents)


def test_a_finished_set_is_left_alone_and_a_damaged_shard_done_again(
    images: Path, latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(images, tmp_path, model)
    capsys.readouterr()
    _encode(images, tmp_path, model)
    assert "finished already" in capsys.readouterr().err
    (tmp_path / "shard-000000.tar").write_bytes(b"short")
    (tmp_path / "shard-000002.json").unlink()
    (tmp_path / "shard-000001.table.npz").unlink()
    _encode(images, tmp_path, model)
    assert _bytes(tmp_path) == _bytes(latents)
    (tmp_path / "shard-000000.json").write_text("{")
    with pytest.raises(
        UserError, match=r"shard-000000\.json is not valid JSON .*; delete .*shard-000000\.json and repeat"
    ):
        _encode(images, tmp_path, model)


def test_another_model_other_settings_and_other_images_are_refused(
    images: Path, latents: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    save_model(micro_model(seed=1), other, ("vae", "image_tower"))
    with pytest.raises(UserError, match=r"(?s)other settings.*image_tower_sha256 was .*vae_sha256 was .*another OUT"):
        _encode(images, latents, other)
    with pytest.raises(UserError, match="logvar was True, is now False"):
        _encode(images, latents, model, logvar=False)
    with pytest.raises(UserError, match="embedded was 'all', is now 'random'"):
        _encode(images, latents, model, embedded="random")
    elsewhere = make_shard_set(tmp_path / "images", 5, 32, objects_per_shard=2, seed=1)
    with pytest.raises(UserError, match="encoded from other images"):
        _encode(elsewhere, latents, model)
    with pytest.raises(UserError, match="already contains an image set"):
        _encode(images, images, model)
    for batch_size in (0, 1025):
        with pytest.raises(UserError, match=f"--batch-size is {batch_size}"):
            _encode(images, tmp_path / "x", model, batch_size=batch_size)
    with pytest.raises(UserError, match=r"model\.json is missing"):
        _encode(images, tmp_path / "x", tmp_path)
    assert not (tmp_path / "x").exists()


def test_a_damaged_image_and_latents_that_are_no_numbers_are_named(model: Path, tmp_path: Path) -> None:
    images = make_shard_set(tmp_path / "images", 2, 16)
    encoder, shards = load_encoder(model, CPU), ShardSet(images)
    form = plan_format(encoder, shards, logvar=True, embedded="all")
    with torch.no_grad():
        next(encoder.vae.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"synthetic-0000\.fixed_00\.npy: encoding gave NaN or infinite"):
        encode(shards, str(tmp_path / "nan"), encoder, form)
    place = read_stats(*url_to_fs(images), "shard-000000").samples[1].members["random_04.webp"]
    data = bytearray((images / "shard-000000.tar").read_bytes())
    data[place.offset + 30] ^= 4
    (images / "shard-000000.tar").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"synthetic-0001\.random_04\.webp is truncated or corrupt"):
        _encode(images, tmp_path / "out", model)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"latents.json", "set.json", "manifest.parquet", "attribution.csv", "outcomes"}


@pytest.mark.parametrize(("logvar", "embedded"), [(False, "all"), (True, "random"), (False, "random")])
def test_less_can_be_kept_and_takes_what_it_says(
    images: Path, model: Path, tmp_path: Path, logvar: bool, embedded: Embedded
) -> None:
    _encode(images, tmp_path / "less", model, logvar=logvar, embedded=embedded)
    form = plan_format(load_encoder(model, CPU), ShardSet(images), logvar=logvar, embedded=embedded)
    latents = 256 * (2 if logvar else 1)
    assert (form.numbers("fixed"), form.numbers("random")) == (latents + 32 * (embedded == "all"), latents + 32)
    entry = read_stats(*url_to_fs(tmp_path / "less"), "shard-000000").samples[0].members
    last, first = entry["random_15.npy"], entry["fixed_00.npy"]
    assert last.offset + -(-last.size // 512) * 512 - (first.offset - 512) == set_bytes(form, 1)
    assert (first.size, last.size) == (form.member_bytes("fixed"), form.member_bytes("random"))


def test_help_states_the_sizes_at_full_scale(images: Path, model: Path) -> None:
    small = plan_format(load_encoder(model, CPU), ShardSet(images), logvar=True, embedded="all")
    paper = replace(small, channels=4, height=32, width=32, embedding=1024)
    metadata = 800_000 * 16_500
    sizes = [
        f"{(set_bytes(replace(paper, logvar=logvar, embedded=embedded), 800_000) + metadata) / 1e12:.2f} TB"
        for logvar, embedded in ((True, "all"), (False, "all"), (True, "random"), (False, "random"))
    ]
    assert EncodeArgs.__doc__ is not None
    places = [EncodeArgs.__doc__.index(size) for size in sizes]
    assert places == sorted(places)


def test_the_old_name_of_num_workers_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["a", "b", "--model", "m", "--readers", "7"]).num_workers == 7
    assert "--readers is now --num-workers" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _encode(images, tmp_path / "out", model, dry_run=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["embedding"], shown["views_bytes"]) == (32, 5 * 32 * (512 + 1536))
    assert not (tmp_path / "out").exists()


def test_the_weights_sum_sees_one_number_and_not_the_folder(model: Path) -> None:
    encoder, whole = load_encoder(model, CPU), micro_model()
    assert weights_sha256(encoder.vae) == weights_sha256(whole.vae)
    with torch.no_grad():
        next(whole.vae.parameters()).view(-1)[3] += 1e-3
    assert weights_sha256(encoder.vae) != weights_sha256(whole.vae)


def test_a_diffusers_folder_is_encoded_by_its_own_image_encoder(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(model, folder)
    shutil.rmtree(folder / "image_tower")
    save_clip_vision(micro_model().image_encoder, folder / "image_encoder")
    rgb = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_encoder(folder, CPU).embeddings(rgb), load_encoder(model, CPU).embeddings(rgb))


def test_the_model_may_be_named_as_training_names_its_base(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "model_folder", {Path("pkunliu/Isotropic3D"): model}.__getitem__)
    _encode(images, tmp_path / "out", Path("pkunliu/Isotropic3D"), dry_run=True)


@pytest.mark.gpu
def test_on_a_gpu_in_bfloat16_the_latents_are_the_cpus_within_its_tolerance(images: Path, model: Path) -> None:
    shards, cuda = ShardSet(images), torch.device("cuda")
    views = torch.from_numpy(shards.views(0, 0, VIEWS))
    results = []
    for device in (CPU, cuda, cuda):
        encoder = load_encoder(model, device)
        form = plan_format(encoder, shards, logvar=True, embedded="all")
        results.append([tensor.float().cpu() for tensor in encode_objects(encoder, form, [views], 32)])
    for exact, rounded, again in zip(*results, strict=True):
        assert float((exact - rounded).norm() / exact.norm()) < 0.02
        assert torch.equal(rounded, again)


def test_the_model_encodes_with_the_posteriors_mean() -> None:
    model: MultiViewModel = micro_model()
    views = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, logvar = posterior(model.vae, views, 32)
    assert mean.shape == logvar.shape == (2, 4, 8, 8)
    assert torch.equal(model.encode(views), mean * 0.5)
