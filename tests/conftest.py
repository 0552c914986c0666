"""Fixtures that several test files ask for by name."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataset.log import configure_logging
from dataset.reading.shard_set import ShardSet
from tests.support.loopback import Server
from tests.support.make_shards import make_shard_set
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from train.model.multiview import MultiViewModel


@pytest.fixture(scope="session", autouse=True)
def log_to_stderr() -> None:
    """Messages of the packages reach stderr, as they do in a command line, so that `capsys` sees them."""
    configure_logging()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: small networks gain nothing from more, and other work on the machine would stall them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def quick_samples() -> Iterator[None]:
    """Sample sheets of a training run take two DDIM steps."""
    from train.loop import sample_sheet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_sheet, "SAMPLE_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six made-up objects of 32 pixels. A file may have another set under this name, which `latents` then takes."""
    return make_shard_set(tmp_path_factory.mktemp("data") / "set", 6, 32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro model to start training from, so that no components are trained first."""
    from tests.support.train_micro import micro_model
    from train.model.multiview import save_model

    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(micro_model(), folder)
    return folder


@pytest.fixture(scope="module")
def latents(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shards`, encoded by the model of `base`."""
    from tests.support.make_latents import make_latent_set
    from tests.support.train_micro import micro_model

    return make_latent_set(tmp_path_factory.mktemp("latents") / "set", shards, micro_model())


@pytest.fixture(scope="module")
def model() -> "MultiViewModel":
    """A model of random weights, to encode with."""
    from tests.support.train_micro import micro_model

    return micro_model()


@pytest.fixture(scope="module")
def image_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Five objects in three shards."""
    return ShardSet(make_shard_set(tmp_path_factory.mktemp("pictures") / "set", 5, 32, objects_per_shard=2))


@pytest.fixture(scope="module")
def latent_folder(image_shards: ShardSet, model: "MultiViewModel", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`image_shards`, encoded by `model`."""
    from tests.support.make_latents import make_latent_set

    return make_latent_set(tmp_path_factory.mktemp("latents") / "set", image_shards.url, model)


@pytest.fixture(scope="module")
def lean(image_shards: ShardSet, model: "MultiViewModel", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with means only, and embeddings of the references only."""
    from tests.support.make_latents import make_latent_set

    return make_latent_set(
        tmp_path_factory.mktemp("lean") / "set", image_shards.url, model, logvar=False, embedded="random"
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server on loopback."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Compiler:
    """A compiler that runs a graph as it is, and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    """What `train.layers.compile` compiles with."""
    import torch._dynamo

    from train.layers import compile as compute

    counter = Compiler()
    torch._dynamo.reset()
    monkeypatch.setattr(compute, "BACKEND", counter)
    yield counter
    torch._dynamo.reset()


INTEGRATION_FOLDERS = ("benchmarks", "cluster", "integration")


def pytest_configure() -> None:
    """Give parallel workers one thread each, and restore Ctrl-C, which background jobs of a shell ignore."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole folders as integration tests; allow warnings on GPU machines, which may have another torch."""
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] in INTEGRATION_FOLDERS:
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))
