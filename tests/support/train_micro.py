"""A recipe small enough to train in seconds, and the golden losses made with it.

python -m tests.support.train_micro golden tests/golden/train_losses.json # regenerate (after a change that is meant)
python -m tests.support.train_micro stage1|averaged|items SHARDS OUT STEPS [BASE]  # a run to be killed
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from dataset.camera import mvdream_camera
from tests.support.make_shards import make_shard_set
from train.components.autoencoder import build_autoencoder
from train.components.component import seeded
from train.config.presets import TINY, AutoencoderRecipe, ImageEncoderRecipe, Recipe
from train.config.schedules import Schedule
from train.loop.loop import train
from train.loop.run_config import TrainingRun
from train.model.image_encoder import SmallEncoder, build_image_encoder
from train.model.multiview import ModelSpec, MultiViewModel, assemble
from train.model.unet import UNetShape, build_unet

CPU = torch.device("cpu")
GOLDEN_STEPS = 20
AVERAGE_DECAY = 0.6
_PART = Schedule(steps=3, objects=4, accumulation=1, peak_lr=1e-3, decay="linear", warmup_steps=1)
_STAGE = Schedule(steps=6, objects=4, accumulation=2, peak_lr=1e-3, decay="constant", warmup_steps=2)

MICRO: Recipe = replace(
    TINY,
    image_size=32,
    tower=SmallEncoder(embed_dim=32, image_size=32, patch_size=16, width=32, layers=1, head_width=16),
    stage1=_STAGE,
    stage2=replace(_STAGE, decay="linear", accumulation=1),
    unet=UNetShape(
        latent_channels=4,
        latent_size=8,
        widths=(32, 32),
        attention=(True, True),
        blocks_per_level=1,
        head_width=16,
        token_width=32,
        norm_groups=8,
    ),
    autoencoder=AutoencoderRecipe(
        latent_channels=4, widths=(16, 16, 16), blocks_per_level=1, kl_weight=1e-4, schedule=_PART
    ),
    tower_training=ImageEncoderRecipe(
        temperature=0.1,
        contrast_weight=1.0,
        thumbnail_size=4,
        reconstruction_weight=10.0,
        novel_view_weight=0.0,
        schedule=_PART,
    ),
    checkpoint_every=2,
    picture_every=1000,
    reference_drop_chance=0.0,
)


def micro_model(seed: int = 0) -> MultiViewModel:
    """Random weights. The UNet's last layer, zero in some initialisations, is whatever diffusers draws."""
    assert MICRO.unet is not None
    assert MICRO.autoencoder is not None
    with seeded(seed):
        unet, vae = build_unet(MICRO.unet).eval(), build_autoencoder(MICRO.autoencoder, MICRO.image_size)
        image_encoder = build_image_encoder(MICRO.tower)
    spec = ModelSpec(MICRO.image_size, MICRO.unet.latent_size, 0.5, "relative", 3.0)
    return assemble(unet, vae, image_encoder, spec, device=CPU)


def micro_run(shards: Path, out: Path, steps: int, stage: int = 1, base: Path | None = None) -> TrainingRun:
    """A run of the micro recipe."""
    recipe = replace(MICRO, stage1=replace(MICRO.stage1, steps=steps), stage2=replace(MICRO.stage2, steps=steps))
    return TrainingRun(1 if stage == 1 else 2, recipe, str(shards), out, base, seed=7, device=CPU)


def with_items(run: TrainingRun) -> TrainingRun:
    """The run with four items per object and four readers."""
    return replace(run, recipe=replace(run.recipe, items_per_object=4, readers=4))


def golden_losses(folder: Path) -> dict[str, list[float]]:
    """Losses of GOLDEN_STEPS steps of both stages on a synthetic set, one CPU thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shards = make_shard_set(folder / "set", 6, 32)
        stage1 = train(micro_run(shards, folder / "stage1", GOLDEN_STEPS))
        stage2 = train(micro_run(shards, folder / "stage2", GOLDEN_STEPS, stage=2, base=folder / "stage1"))
    finally:
        torch.set_num_threads(threads)
    return {"stage1": stage1, "stage2": stage2}


def zero_camera() -> list[float]:
    """MVDream's camera at elevation = azimuth = 0."""
    return [float(number) for number in mvdream_camera(0.0, 0.0)]


def main(arguments: list[str]) -> None:
    """See the top of this file."""
    if arguments[0] == "golden":
        with tempfile.TemporaryDirectory() as folder:
            Path(arguments[1]).write_text(json.dumps(golden_losses(Path(folder)), indent=1) + "\n")
    else:
        torch.set_num_threads(1)
        base = Path(arguments[4]) if len(arguments) > 4 else None
        run = micro_run(Path(arguments[1]), Path(arguments[2]), int(arguments[3]), base=base)
        if arguments[0] == "items":
            run = with_items(run)
        decay = AVERAGE_DECAY if arguments[0] == "averaged" else None
        train(replace(run, recipe=replace(run.recipe, average_decay=decay)))


if __name__ == "__main__":
    main(sys.argv[1:])
