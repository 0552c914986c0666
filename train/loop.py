"""The training loop of both stages, to be read from top to bottom: `train`.

A run folder holds config.json (what was asked; written first), vae/ and image_tower/ where they are trained here,
checkpoints/, samples/, tensorboard/, and when finished unet/ and model.json: then it is a model folder. The same
command again resumes, and ends in the weights of an uninterrupted run.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.errors import UserError
from dataset.stream import ShardSet
from train.autoencoder import ensure_autoencoder
from train.batch import (
    Feed,
    Position,
    Views,
    diffusion_loss,
    draw_noise,
    prepare_inputs,
    split_frames,
)
from train.checkpoint import Progress, restore_checkpoint, save_checkpoint
from train.image_tower import SmallTower, fetch_tower, load_tower
from train.model import SPEC_FILE, ModelSpec, MultiViewModel, assemble, build_unet, load_model, load_vae, save_model
from train.parts import is_whole, seeded
from train.recipe import Recipe, Schedule, learning_rate, notices, objects_per_micro_batch
from train.sample import sample_views, save_sheet
from train.tower_training import ensure_tower

CONFIG_FILE: Final = "config.json"
MAX_SKIPPED: Final = 10  # updates in a row with a non-finite gradient before a run gives up
PICTURE_OBJECTS: Final = 4
PICTURE_STEPS: Final = 25
_FREE_TO_CHANGE: Final = ("recipe.checkpoint_every", "recipe.keep_checkpoints", "recipe.picture_every")


@dataclass(frozen=True)
class Run:
    """One training run. `base` is the model folder it starts from; None: from nothing, where the recipe can."""

    stage: Literal[1, 2]
    recipe: Recipe
    shards: str
    out: Path
    base: Path | None
    seed: int
    device: torch.device

    @property
    def schedule(self) -> Schedule:
        """The stage's schedule."""
        return self.recipe.stage1 if self.stage == 1 else self.recipe.stage2


def train(run: Run) -> list[float]:
    """Train until the schedule's end. Returns the losses of the steps done in this call."""
    check(run)
    shards = ShardSet(run.shards)
    _claim(run, shards)
    if (run.out / SPEC_FILE).is_file():
        print(f"{run.out}: finished already")
        return []
    model = starting_model(run, shards)
    unet, schedule, recipe = model.unet.train(), run.schedule, run.recipe
    optimiser = torch.optim.AdamW(
        unet.parameters(), lr=schedule.peak_lr, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    progress = restore_checkpoint(run.out, unet, optimiser)
    feed = _feed(run, shards, model)
    micro_batches = feed.micro_batches(progress.steps, schedule.steps)
    losses: list[float] = []
    with _scalars(run.out, progress.steps) as writer, _stop_signals() as stop:
        bar = tqdm(
            range(progress.steps, schedule.steps),
            f"stage {run.stage}",
            schedule.steps,
            initial=progress.steps,
            unit="step",
        )
        for step in bar:
            started = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(schedule, step)
            optimiser.zero_grad(set_to_none=True)
            loss, seen_views = 0.0, 0
            for micro in range(schedule.accumulation):
                views = next(micro_batches)
                micro_loss = _loss(run, model, views, Position(run.seed, step, micro)) / schedule.accumulation
                micro_loss.backward()  # type: ignore[no-untyped-call]
                loss += float(micro_loss.detach())
                seen_views += views.targets.shape[0] * views.targets.shape[1]
            norm = float(nn.utils.clip_grad_norm_(unet.parameters(), recipe.clip_norm))
            progress = _update(optimiser, progress, norm)
            losses.append(loss)
            views_per_s = seen_views / (time.perf_counter() - started)
            bar.set_postfix(loss=f"{loss:.4f}", views_per_s=f"{views_per_s:.0f}", refresh=False)
            for name, value in (("loss", loss), ("gradient_norm", norm), ("views_per_s", views_per_s)):
                writer.add_scalar(name, value, step)
            writer.add_scalar("learning_rate", learning_rate(schedule, step), step)
            if stop.is_set() or progress.steps % recipe.checkpoint_every == 0:
                save_checkpoint(run.out, unet, optimiser, progress, keep=recipe.keep_checkpoints)
            if progress.steps % recipe.picture_every == 0 or progress.steps == schedule.steps:
                draw_picture(run, model, feed, progress.steps)
            if stop.is_set() and progress.steps < schedule.steps:
                raise KeyboardInterrupt
    save_model(model, run.out)
    print(f"wrote {run.out}")
    return losses


def check(run: Run) -> None:
    """Refuse what cannot work before anything is read or written."""
    objects_per_micro_batch(run.schedule, world=1)
    if run.base is None and run.stage == 2:
        raise UserError("stage 2 continues from stage 1: give its run folder with --base")
    if run.base is None and run.recipe.unet is None:
        raise UserError(
            f"preset {run.recipe.name} fine-tunes a pretrained model: convert MVDream's sd-v2.1-base-4view.pt with "
            "`python -m train.convert` and give the folder with --base"
        )
    for notice in notices(run.schedule):
        print(f"note: {notice}")


def starting_model(run: Run, shards: ShardSet) -> MultiViewModel:
    """The model before the first step: read from `base`, or with its parts trained and the UNet drawn from the seed."""
    recipe = run.recipe
    if run.base is not None:
        bare = not (run.base / "image_tower").is_dir() and not isinstance(recipe.tower, SmallTower)
        model = load_model(run.base, run.device, image_tower=fetch_tower(recipe.tower) if bare else None)  # type: ignore[arg-type]
        if model.spec.cameras != "relative":
            print(f"note: {run.base} was trained with {model.spec.cameras} camera labels; training goes on with them")
        return model
    if recipe.autoencoder is None or recipe.tower_training is None or recipe.unet is None:
        raise UserError(f"preset {recipe.name} cannot start from nothing; give --base")
    if not isinstance(recipe.tower, SmallTower):
        raise UserError(f"preset {recipe.name} trains no image tower of its own; give --base")
    print(f"from nothing: the autoencoder and the image tower come first, into {run.out}; what is there is taken up")
    vae_folder, tower_folder = run.out / "vae", run.out / "image_tower"
    vae = (
        load_vae(vae_folder)
        if is_whole(vae_folder)
        else ensure_autoencoder(
            vae_folder, shards, recipe.autoencoder, recipe.image_size, seed=run.seed, device=run.device
        )
    )
    tower = (
        load_tower(tower_folder)
        if is_whole(tower_folder)
        else ensure_tower(tower_folder, shards, recipe.tower, recipe.tower_training, seed=run.seed, device=run.device)
    )
    with seeded(run.seed):
        unet = build_unet(recipe.unet)
    scale = float(vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    spec = ModelSpec(recipe.image_size, recipe.unet.latent_size, scale, "relative", recipe.guidance_scale)
    return assemble(unet, vae, tower, spec, device=run.device)


def _feed(run: Run, shards: ShardSet, model: MultiViewModel) -> Feed:
    return Feed(
        shards,
        run.seed,
        objects=objects_per_micro_batch(run.schedule, world=1),
        accumulation=run.schedule.accumulation,
        num_views=run.recipe.num_views,
        single_view_chance=run.recipe.single_view_chance,
        convention=model.spec.cameras,
    )


def _loss(run: Run, model: MultiViewModel, views: Views, position: Position) -> Tensor:
    """Eq. 5 (stage 1) or Eq. 6 (stage 2) of one micro-batch."""
    device = model.device
    with _autocast(device):
        with torch.no_grad():
            reference_rgb = views.reference.to(device)
            tokens = model.embed_image(reference_rgb)
            targets = split_frames(model.encode(views.targets.flatten(0, 1).to(device)), len(tokens))
            reference = model.encode(reference_rgb) if run.stage == 2 else None
        draw = draw_noise(position, targets, run.recipe.drop_chance)
        inputs = prepare_inputs(
            targets, reference, views.cameras.to(device), tokens, draw, alphas_cumprod=model.alphas_cumprod
        )
        predicted = model.predict_noise(
            inputs.latents, inputs.timesteps, inputs.cameras, inputs.tokens, inputs.num_frames
        )
    return diffusion_loss(predicted, draw.noise)


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 on a GPU (weights and optimiser stay float32), float32 on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _update(optimiser: torch.optim.Optimizer, progress: Progress, norm: float) -> Progress:
    """One optimiser step; left out, and said, when the gradient is not finite."""
    if math.isfinite(norm):
        optimiser.step()
        return Progress(progress.steps + 1, 0)
    skipped = progress.skipped_in_a_row + 1
    tqdm.write(f"step {progress.steps}: gradient norm {norm}, update left out ({skipped} in a row)")
    if skipped >= MAX_SKIPPED:
        raise UserError(
            f"{skipped} gradients in a row were not finite; resume from the last checkpoint with a lower rate"
        )
    return Progress(progress.steps + 1, skipped)


def draw_picture(run: Run, model: MultiViewModel, feed: Feed, steps: int) -> None:
    """samples/step-*.png, a row an object: reference | truth | samples from the embedding alone."""
    views = feed.picture(PICTURE_OBJECTS)
    with _autocast(model.device):
        sampled = sample_views(
            model,
            model.embed_image(views.reference.to(model.device)),
            views.cameras.to(model.device),
            steps=PICTURE_STEPS,
            guidance_scale=model.spec.guidance_scale,
            generator=torch.Generator().manual_seed(run.seed),
        )
    size = views.targets.shape[-1]
    resized = nn.functional.interpolate(sampled.flatten(0, 1).float().cpu(), (size, size), mode="area")
    rows = torch.cat([views.reference[:, None], views.targets, resized.view_as(views.targets)], dim=1)
    save_sheet(rows.flatten(0, 1), run.out / "samples" / f"step-{steps:09d}.png")


def describe(run: Run, shards: ShardSet) -> dict[str, Any]:
    """What decides the run's result, as JSON."""
    data = sha256("".join(shard.sha256 for shard in shards.index.shards).encode()).hexdigest()
    config = {
        "stage": run.stage,
        "seed": run.seed,
        "base": None if run.base is None else str(run.base.resolve()),
        "data": {"url": run.shards, "objects": len(shards), "sha256": data},
        "recipe": asdict(run.recipe),
    }
    normalised: dict[str, Any] = json.loads(json.dumps(config))
    return normalised


def _claim(run: Run, shards: ShardSet) -> None:
    """Write config.json, or check that the folder's run is this one."""
    path, config = run.out / CONFIG_FILE, describe(run, shards)
    if path.is_file():
        found = json.loads(path.read_text())
        before, now = _flatten(found), _flatten(config)
        changed = sorted(
            key
            for key in before.keys() | now.keys()
            if before.get(key) != now.get(key) and key not in (*_FREE_TO_CHANGE, "data.url")
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


@contextmanager
def _scalars(out: Path, first_step: int) -> Iterator[Any]:
    """TensorBoard's writer; what an interrupted run wrote beyond its checkpoint is hidden."""
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask for a checkpoint at the end of the step; other threads than the main one cannot listen."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
