"""Settings of a training run: check whether the run can start, and write or compare config.json in the run folder."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch

from dataset.errors import UserError
from dataset.io.resume import differences, settings_differ
from dataset.reading.filters import Filters
from dataset.reading.latent_set import LatentSet
from train.config.presets import Recipe, free_to_change
from train.config.schedules import Schedule, notices, objects_per_micro_batch
from train.data.sampling import draw_reference_drop
from train.data.training_set import TrainingSet
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.logging import import_wandb
from train.model.multiview import SPEC_FILE
from train.model.reference import ReferenceMode

logger = logging.getLogger(__name__)

CONFIG_FILE: Final = "config.json"
_FREE_TO_CHANGE: Final = (
    "data.url",
    "data.filters.uids",  # the file may be moved; data.sha256 covers the objects that it selects
)
# Fields of the recipe that older config.json files lack, with the values that those runs used
_ADDED: Final = {"reference_drop_chance": 0.0, "embedding_noise": 0.0}
_ADDED_TO_IMAGE_ENCODER: Final = {
    "pretrained": False,
    "augmented": False,
    "feature_weight": 0.0,
    "pretrained_lr_factor": 0.05,
    "kind_weight": 0.0,
    "drawings": 0,
    "drawing_weight": 0.0,
}
_ADDED_TO_AUTOENCODER: Final = {"decoder_schedule": None}
_STAGE_2_ONLY: Final = ("recipe.reference_drop_chance",)


@dataclass(frozen=True)
class TrainingRun:
    """Settings of one training run.

    `base` is the model folder from which the run starts (--init-from); None: the model is trained from scratch.
    """

    stage: Literal[1, 2]
    recipe: Recipe
    shards: str
    out: Path
    base: Path | None
    seed: int
    device: torch.device
    wandb: str | None = None  # W&B project to log to
    filters: Filters = field(default_factory=Filters)  # select the objects of the set
    compile: CompileChoice = "auto"  # like `blocks`: does not affect the result and may change on resume
    blocks: BlocksChoice = "auto"

    @property
    def schedule(self) -> Schedule:
        """The schedule of the run's stage."""
        return self.recipe.stage1 if self.stage == 1 else self.recipe.stage2

    @property
    def reference(self) -> ReferenceMode:
        """How the UNet uses the latent of the reference image in the run's stage."""
        return "none" if self.stage == 1 else self.recipe.reference

    @property
    def reference_drop_chance(self) -> float:
        """The fraction of the steps that leave out the latent of the reference image; 0 if no step uses it."""
        return 0.0 if self.reference == "none" else self.recipe.reference_drop_chance

    def drops_reference(self, step: int) -> bool:
        """Return whether step `step` (from 0) leaves out the latent of the reference image."""
        return draw_reference_drop(self.seed, step, self.reference_drop_chance)


def check_run(run: TrainingRun, world: int = 1) -> None:
    """Check the settings of a run before anything is read or written.

    Args:
        run: Settings of the run.
        world: Number of ranks.

    Raises:
        UserError: The settings contradict each other, the run needs a base model that is not given or not finished, or
            --wandb is given and the package wandb is not installed.
    """
    objects_per_micro_batch(run.schedule, world)
    if run.base is None and run.stage == 2:
        raise UserError("stage 2 continues from stage 1; give the run folder of stage 1 with --init-from")
    if run.base is not None and run.stage == 2 and not (run.base / SPEC_FILE).is_file():
        raise UserError(
            f"{run.base}: contains no finished stage 1 ({SPEC_FILE} is missing); run `make train-stage1` first, which "
            "resumes an unfinished run, or give another model with MODEL= or --init-from"
        )
    if run.base is None and run.recipe.unet is None:
        raise UserError(
            f"--preset {run.recipe.name} fine-tunes a pretrained model: convert MVDream's sd-v2.1-base-4view.pt with "
            "`python -m train.convert` and give the converted folder with --init-from"
        )
    if run.compile == "graphs" and run.schedule.accumulation > 1:
        # A CUDA graph overwrites gradients in place, so they cannot be accumulated.
        raise UserError(
            f"--compile graphs needs --grad-accum-steps 1, but it is {run.schedule.accumulation}; use --compile whole"
        )
    if run.wandb is not None:
        import_wandb()


def log_notices(run: TrainingRun) -> None:
    """Log a shortened warm-up of the learning rate, and that steps leave out the reference image."""
    for notice in notices(run.schedule):
        logger.info("note: %s", notice)
    if run.recipe.embedding_noise:
        logger.info(
            "note: noise of up to %g standard deviations is added to the embeddings (embedding_noise of the preset); "
            "the paper does not mention this",
            run.recipe.embedding_noise,
        )
    if run.reference_drop_chance:
        logger.info(
            "note: %g%% of the steps leave out the latent of the reference image (--reference-drop-chance); the paper "
            "does not mention this",
            100 * run.reference_drop_chance,
        )


def describe(run: TrainingRun, shards: TrainingSet) -> dict[str, Any]:
    """Return the settings that determine the result of a run, as stored in config.json.

    Args:
        run: Settings of the run.
        shards: The set on which the run trains, after filtering.
    """
    config = {
        "stage": run.stage,
        "seed": run.seed,
        "base": None if run.base is None else str(run.base.resolve()),
        "data": {
            "url": run.shards,
            "kind": "latents" if isinstance(shards, LatentSet) else "pictures",
            "objects": len(shards),
            "sha256": shards.fingerprint,
            "filters": {
                "without_flags": sorted(run.filters.without_flags),
                "min_coverage": run.filters.min_coverage,
                "max_coverage": run.filters.max_coverage,
                "licences": sorted(run.filters.licences),
                "uids": None if run.filters.uids is None else str(run.filters.uids),
                "where": run.filters.where,
            },
        },
        "recipe": asdict(run.recipe),
    }
    as_json: dict[str, Any] = json.loads(json.dumps(config))
    return as_json


def write_or_check_config(run: TrainingRun, shards: TrainingSet) -> None:
    """Write config.json into the run folder, or check that an existing config.json has the same settings.

    Args:
        run: Settings of the run.
        shards: The set on which the run trains, after filtering.

    Raises:
        UserError: The folder contains a run with other settings, or a model without the settings of a training run.
    """
    path, config = run.out / CONFIG_FILE, describe(run, shards)
    if path.is_file():
        free = {*_FREE_TO_CHANGE, *(f"recipe.{name}" for name in free_to_change(run.recipe))}
        if run.stage == 1:
            free |= {*_STAGE_2_ONLY}
        saved = json.loads(path.read_text())
        saved["recipe"] = {**_ADDED, **saved["recipe"]}
        if encoder := saved["recipe"].get("tower_training"):
            saved["recipe"]["tower_training"] = {**_ADDED_TO_IMAGE_ENCODER, **encoder}
        if autoencoder := saved["recipe"].get("autoencoder"):
            saved["recipe"]["autoencoder"] = {**_ADDED_TO_AUTOENCODER, **autoencoder}
        if changed := differences(saved, config, free):
            raise UserError(
                settings_differ(
                    f"{run.out}: the run",
                    changed.values(),
                    "Repeat the command of that run, or give another --out.",
                )
            )
        return
    if (run.out / SPEC_FILE).exists():
        raise UserError(
            f"{run.out} contains a model ({SPEC_FILE}), but no training run ({CONFIG_FILE} is missing); give another "
            "--out"
        )
    run.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + "\n")
