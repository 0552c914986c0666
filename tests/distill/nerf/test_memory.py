"""The sample budget bounds the memory of rendering, also with gradients, measured by the live tensors."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dataset.camera import spherical_to_c2w
from distill.nerf.field import Field
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings

SETTINGS = MarchSettings(samples_per_ray=64, min_transmittance=0.0)
CAMERAS = spherical_to_c2w([10.0, -20.0], [0.0, 130.0], [1.5, 1.8])


class Memory(TorchDispatchMode):
    """Count the bytes of the tensors created inside that are alive, now and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def most_bytes(budget: int, resolution: int) -> int:
    grid = HashGridSettings(levels=4, log2_table_size=8, base_resolution=4, growth=1.6)
    field = Field(FieldSettings(grid=grid, radius=0.9, hidden_width=64), torch.Generator().manual_seed(0))
    with Memory() as memory:
        settings = replace(SETTINGS, sample_budget=budget)
        rendered = render_views(field, CAMERAS, 45.0, resolution, settings=settings)
        (rendered.rgb.square().sum() + rendered.away.sum()).backward()
    return memory.most


@pytest.mark.integration
@pytest.mark.usefixtures("one_thread")
def test_memory_depends_on_the_budget_and_not_on_the_images():
    whole = most_bytes(10**9, 32)
    bounded = most_bytes(4_000, 32)
    assert bounded < whole / 4
    assert most_bytes(4_000, 64) < 2 * bounded  # four times the samples
    assert most_bytes(10**9, 64) > 3 * whole
