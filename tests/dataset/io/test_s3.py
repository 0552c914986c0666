"""Shard sets on S3, on a moto server: writing, verifying, locking, killing and resuming."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid

import fsspec
import pytest

from dataset.check.verify import verify
from dataset.copy.copy_set import copy_sets
from dataset.errors import UserError
from dataset.format.shards import read_index
from dataset.io.files import url_to_fs
from dataset.io.lock import LEASE_NAME, owned
from dataset.reading.shard_set import ShardSet
from tests.support.make_models import bad_models, box_glb
from tests.support.make_shards import make_shard_set
from tests.support.paths import ROOT
from tests.support.render_command import MARK, command, processes_marked, wait_for
from tests.support.render_command import contents as bytes_of_set
from tests.support.staged_output import UIDS, claim, complete, contents, new_output

pytestmark = pytest.mark.integration

pytest.importorskip("moto", reason="moto's server stands in for S3")
pytest.importorskip("s3fs", reason="S3 needs s3fs")


@pytest.fixture(scope="module")
def server():
    """Address of a moto server for the tests of this module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: _answers(port), 60), "moto's server did not start"
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def s3(server, monkeypatch):
    """URL of a new bucket; address and credentials are only in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}"
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_set_on_s3_is_the_set_on_a_disk(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    complete(new_output(f"{s3}/set"), UIDS)
    complete(new_output(tmp_path / "local"), UIDS)
    fs, root = url_to_fs(f"{s3}/set")
    there = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    assert there == contents(tmp_path / "local")


def test_a_copy_from_s3_to_s3_is_the_copy_on_a_disk(s3, tmp_path):
    make_shard_set(f"{s3}/pictures", 3, 16, objects_per_shard=2)
    make_shard_set(tmp_path / "pictures", 3, 16, objects_per_shard=2)
    copy_sets([f"{s3}/pictures"], f"{s3}/copy", resolution=8, objects_per_shard=2, workers=2)
    copy_sets([str(tmp_path / "pictures")], str(tmp_path / "copy"), resolution=8, objects_per_shard=2, workers=1)
    fs, root = url_to_fs(f"{s3}/copy")
    there = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    here = contents(tmp_path / "copy")
    assert there.keys() == here.keys()
    assert [name for name in here if here[name] != there[name]] == ["set.json"]  # where the pictures lie
    assert verify(f"{s3}/copy") == []


def test_one_writer_owns_a_set_on_s3(s3, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.io.lock._SETTLE_S", 0.0)
    fs, root = url_to_fs(f"{s3}/set")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with owned(fs, root, tmp_path / "a", "s3://set"):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), owned(fs, root, tmp_path / "b", "s3://set"):
            pass
        with pytest.raises(UserError, match="another rendering"), owned(fs, root, tmp_path / "a", "s3://set"):
            pass
    assert not fs.exists(f"{root}/{LEASE_NAME}")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for holder, taken in [
        ({"host": socket.gethostname(), "pid": dead.pid, "time": time.time()}, True),
        ({"host": "elsewhere", "pid": 1, "time": time.time() - 1000}, True),
        ({"host": "elsewhere", "pid": 1, "time": time.time()}, False),
    ]:
        fs.pipe_file(f"{root}/{LEASE_NAME}", json.dumps({"id": "x", **holder}).encode())
        if taken:
            with owned(fs, root, tmp_path / "a", "s3://set"):
                pass
        else:
            with pytest.raises(UserError, match="on elsewhere"), owned(fs, root, tmp_path / "a", "s3://set"):
                pass


def test_no_credentials_and_no_bucket_are_one_line(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot"):
        claim(new_output("s3://no-such-bucket-anywhere/set"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"s3://.*credentials"):
        claim(new_output(f"{s3}/set"))


@pytest.mark.slow
def test_killed_and_repeated_on_s3_is_as_if_never_killed(s3, tmp_path):
    pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
    models, mark = tmp_path / "models", uuid.uuid4().hex
    for i in range(4):
        box_glb(models / f"{'abyz'[i]}_good.glb", size=(1, 0.2 + 0.2 * i, 0.5))
    bad_models(models)
    where, environment = tmp_path / "elsewhere", {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT)}
    where.mkdir()
    line = command(f"folder:{models}", f"{s3}/set", "--workers", "2")
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(line, cwd=where, stdout=log, stderr=log, env=environment)
        assert wait_for(lambda: list(where.rglob("*.part")) + fsspec.filesystem("s3").glob(f"{s3}/set/*.tar"), 120)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert wait_for(lambda: not processes_marked(mark), 20)
    for url in (f"{s3}/set", str(tmp_path / "local")):
        line = command(f"folder:{models}", url, "--workers", "2")
        run = subprocess.run(line, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 1, run.stderr
        assert "made-up" not in run.stdout + run.stderr
    fs, root = url_to_fs(f"{s3}/set")
    files = [path for path in fs.find(root) if "/outcomes/" not in path]
    assert {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in files} == bytes_of_set(tmp_path / "local")
    assert verify(f"{s3}/set") == []
    assert read_index(f"{s3}/set").objects == 4
    assert ShardSet(f"{s3}/set").views(0, 0, [("fixed", 0)]).shape == (1, 16, 16, 4)
