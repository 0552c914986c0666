"""One training run: what is asked, whether it can start, and its folder's config.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch

from dataset.errors import UserError
from dataset.reading.filters import Filters
from dataset.reading.latent_set import LatentSet
from train.config.presets import Recipe, free_to_change
from train.config.schedules import Schedule, notices, objects_per_micro_batch
from train.data.loader import TrainingSet
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.logging import import_wandb
from train.model.multiview import SPEC_FILE
from train.model.reference import ReferenceMode

CONFIG_FILE: Final = "config.json"
_FREE_TO_CHANGE: Final = (
    "data.url",
    "data.filters.uids",  # the file may move; the objects it selects are in data.sha256
)


@dataclass(frozen=True)
class TrainingRun:
    """One training run. `base` is the model folder it starts from; None: train from scratch."""

    stage: Literal[1, 2]
    recipe: Recipe
    shards: str
    out: Path
    base: Path | None
    seed: int
    device: torch.device
    wandb: str | None = None  # W&B project to log to
    filters: Filters = field(default_factory=Filters)  # which objects of the set are used
    compile: CompileChoice = "auto"  # does not change the result, and may differ on resume; `blocks` likewise
    blocks: BlocksChoice = "auto"

    @property
    def schedule(self) -> Schedule:
        """The stage's schedule."""
        return self.recipe.stage1 if self.stage == 1 else self.recipe.stage2

    @property
    def reference(self) -> ReferenceMode:
        """What a step makes of the reference's latent."""
        return "none" if self.stage == 1 else self.recipe.reference


def check_run(run: TrainingRun, world: int = 1) -> None:
    """Refuse what cannot work before anything is read or written."""
    objects_per_micro_batch(run.schedule, world)
    if run.base is None and run.stage == 2:
        raise UserError("stage 2 continues from stage 1: give its run folder with --init-from")
    if run.base is None and run.recipe.unet is None:
        raise UserError(
            f"preset {run.recipe.name} fine-tunes a pretrained model: convert MVDream's sd-v2.1-base-4view.pt with "
            "`python -m train.convert` and give the folder with --init-from"
        )
    if run.compile == "graphs" and (run.schedule.accumulation > 1 or world > 1):
        # A CUDA graph overwrites gradients in place, so they can neither be accumulated nor all-reduced.
        raise UserError(
            f"--compile graphs needs one GPU and --grad-accum-steps 1, not {world} and {run.schedule.accumulation}; "
            "use --compile whole"
        )
    if run.wandb is not None:
        import_wandb()


def log_notices(run: TrainingRun) -> None:
    """Print what the run does otherwise than its schedule says."""
    for notice in notices(run.schedule):
        print(f"note: {notice}")


def describe(run: TrainingRun, shards: TrainingSet) -> dict[str, Any]:
    """What decides the run's result, as JSON."""
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
            },
        },
        "recipe": asdict(run.recipe),
    }
    normalised: dict[str, Any] = json.loads(json.dumps(config))
    return normalised


def write_or_check_config(run: TrainingRun, shards: TrainingSet) -> None:
    """Write config.json, or check that the folder's run is this one."""
    path, config = run.out / CONFIG_FILE, describe(run, shards)
    if path.is_file():
        found = json.loads(path.read_text())
        before, now = _flatten(found), _flatten(config)
        free = {*_FREE_TO_CHANGE, *(f"recipe.{name}" for name in free_to_change(run.recipe))}
        changed = sorted(
            key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and key not in free
        )
        if changed:
            shown = ", ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in changed[:3])
            raise UserError(f"{run.out}: holds another run ({shown}); repeat its command, or give another --out")
        return
    if (run.out / SPEC_FILE).exists():
        raise UserError(f"{run.out}: a model that is no training run; give another --out")
    run.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + "\n")


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat
