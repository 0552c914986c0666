"""The stream benchmark: its set, its pipelines and its last line, at a size that takes seconds."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data.latent_stream import create_latent_set, latent_batches
from benchmarks.data.plain_stream import plain_batches
from benchmarks.data.stream_bench import (
    PipelineRun,
    StreamBenchConfig,
    add_grain,
    create_shard_set,
    measure,
    our_batches,
    plain_pipeline_batches,
    summarize,
)
from dataset.format.schema import validate_sample
from dataset.images.prepare import decode_webp
from dataset.reading.latent_set import LatentSet
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_sample

# webdataset leaves its files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_shard_set(tmp_path_factory.mktemp("bench") / "set", 6, 16)


def test_the_made_set_is_valid_made_once_and_grained(folder: Path) -> None:
    before = (folder / "index.json").stat().st_mtime_ns
    assert create_shard_set(folder, 6, 16) == folder
    assert (folder / "index.json").stat().st_mtime_ns == before
    assert len(ShardSet(folder)) == 6
    plain = make_sample("a", 0, 16)
    made = add_grain(plain, 0)
    validate_sample(made, "a")
    first, second = (decode_webp(members["a.fixed_00.webp"], "a") for members in (plain, made))
    assert (first[..., 3] == second[..., 3]).all()
    shift = np.abs(first[..., :3].astype(int) - second[..., :3].astype(int))
    assert shift.max() == 2
    assert shift[first[..., 3] == 0].max() == 0


def test_both_pipelines_give_the_same_views_of_an_item(folder: Path) -> None:
    """Both pipelines give batches of the same views, shapes and value range."""
    config = StreamBenchConfig(batch=2)
    assert list(islice(our_batches(config, str(folder)), 4)) == [10] * 4
    for decode_all in (False, True):
        assert list(islice(plain_pipeline_batches(config, str(folder), decode_all=decode_all), 4)) == [10] * 4
        urls = [str(path) for path in sorted(folder.glob("*.tar"))]
        pictures, labels = next(plain_batches(urls, 2, 4, decode_all=decode_all))
        assert (pictures.shape, labels.shape) == ((2, 5, 3, 16, 16), (2, 4, 16))
        assert pictures.dtype == torch.float32
        assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
        assert torch.equal(pictures[..., 0, 0], torch.ones(2, 5, 3))  # white where the object is not


def test_measuring_counts_after_the_first_batch() -> None:
    found = measure(iter([1000, 5, 6, 7, 1000]), 3)
    assert found.views == 18
    assert found.rss_last_mb > 1


def test_the_last_line_compares_medians_and_shows_the_worst_growth(folder: Path) -> None:
    def runs(*cpu_s: float) -> list[PipelineRun]:
        return [PipelineRun(100, seconds, 1.0, 50.0, 50.0 + seconds) for seconds in cpu_s]

    result = summarize(
        {
            "ours": runs(1.0, 2.0, 9.0),
            "plain": runs(4.0, 3.0, 5.0),
            "plain_all": runs(8.0, 8.0, 8.0),
            "latents": runs(0.1),
        },
        ShardSet(folder),
    )
    assert result["latent_views_per_s_core"] == 1000.0
    assert (result["images_vs_plain"], result["images_vs_plain_all"]) == (2.0, 4.0)
    assert result["views_per_s_core"] == {"ours": 50.0, "plain": 25.0, "plain_all": 12.5, "latents": 1000.0}
    assert (result["rss_first_mb"], result["rss_last_mb"]) == (50.0, 59.0)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_latent_set(tmp_path_factory.mktemp("latents") / "set", 1)


def test_latents_are_read_in_whole_batches_of_the_papers_shapes(latents: Path) -> None:
    assert create_latent_set(latents, 1) == latents
    assert list(islice(latent_batches(str(latents), 4, 4, 2), 3)) == [20] * 3
    views = LatentSet(latents).views(0, 3, [("random", 1)], embedding=True)
    assert views.embedding is not None
    assert (views.mean.shape, views.embedding.shape) == ((1, 4, 32, 32), (1, 1024))


def test_the_command_ends_in_json(folder: Path, latents: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.data.stream_bench", "--shards", str(folder), "--latents", str(latents)]
    options = ["--rounds", "1", "--items", "4", "--batch", "2", "--repeats-per-object", "2"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert min(result["images_vs_plain"], result["latent_views_per_s_core"]) > 0
    done = subprocess.run([*command, "--batch", "50"], capture_output=True, text=True, check=False)
    assert (done.returncode, "fewer than --batch" in done.stderr) == (2, True)
