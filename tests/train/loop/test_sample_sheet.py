"""Sample sheets of a training run: guidance, size, and the same noise each time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import micro_model, micro_run
from train.loop import loop
from train.loop import sample_sheet as sample_sheets

pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")


def test_images_show_guidance_3_and_the_models_own_always_the_same_way(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = micro_model()
    model = replace(model, spec=replace(model.spec, guidance_scale=10.0))
    run = micro_run(shards, tmp_path, 6)
    loader, plain, drawn = loop._loader(run, ShardSet(shards), model), sample_sheets.sample_views, []

    def noted(*args: Any, guidance_scale: float, generator: torch.Generator, **given: Any) -> Tensor:
        drawn.append((guidance_scale, generator.initial_seed()))
        return plain(*args, guidance_scale=guidance_scale, generator=generator, **given)

    monkeypatch.setattr(sample_sheets, "sample_views", noted)
    first = sample_sheets.write_sample_sheet(run, model, loader, 1)
    assert drawn == [(3.0, 7), (10.0, 7)]
    assert first.read_bytes() == sample_sheets.write_sample_sheet(run, model, loader, 2).read_bytes()
    with Image.open(first) as image:
        assert image.width / image.height == pytest.approx((1 + 4 + 4 + 4) / 4, rel=0.05)
