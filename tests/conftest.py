"""Fixtures that several test files ask for by name."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: small networks gain nothing from more, and other work on the machine would stall them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def quick_pictures() -> Iterator[None]:
    """The pictures of a training run take two steps."""
    from train import picture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "PICTURE_STEPS", 2)
        yield
