"""Shards -> the small model that comes with the project: `python -m train.tiny_model`, or `make tiny-model`.

It is `python -m train` and `python -m train.encode` one after the other, with the sizes of
`train.config.presets.EMBEDDED`. WORK gets `stage1/vae` and `stage1/image_tower`, `latents`, then `stage1` and `stage2`
themselves. Finished parts are reused and unfinished ones resume from their last checkpoint, so the command may be
stopped and repeated. The end is OUT: stage 2's model in float16, and a README.md that says what it was made from.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
import tyro
from torch import nn

from dataset.errors import UserError, run_cli
from dataset.reading.damage import Damage
from dataset.reading.latent_set import open_views
from dataset.reading.shard_set import ShardSet
from train.components.autoencoder import ensure_autoencoder
from train.components.image_encoder import ensure_image_encoder
from train.config.presets import EMBEDDED, Recipe
from train.config.schedules import Schedule
from train.data.loader import require_images
from train.data.splits import split_set
from train.device import pick_device
from train.encode.encode_set import encode, plan_format
from train.encode.encoder import Encoder
from train.launch import Launch, start
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.run_config import CONFIG_FILE, TrainingRun
from train.model.image_encoder import ImageEncoder, SmallEncoder
from train.model.multiview import ModelSpec, load_model, save_model

MOST_MB: Final = 40  # what a checkout should carry, together


@dataclass(frozen=True)
class TinyModel:
    """Train the small bundled model from scratch: autoencoder, image encoder, stage 1, stage 2. Resumes."""

    shards: str = "data/tiny"
    """Rendered shard set at 64 pixels or more; its objects should face the same way."""
    work: Path = Path("data/tiny-model")
    """Folder of the parts, latents, checkpoints and samples."""
    out: Path = Path("weights/tiny")
    """Model folder to write."""
    seed: int = 0
    """Seed of weights, views, noise and order."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    compile: CompileChoice = "auto"
    """As of `python -m train stage1`; auto: graphs on a GPU, which a network of this size leaves idle otherwise."""
    blocks: BlocksChoice = "auto"
    """As of `python -m train stage1`."""
    effort: float = 1.0
    """Multiplies the steps of both stages: 0.001 is a rehearsal."""
    parts_effort: float | None = None
    """The same for the autoencoder and the image encoder, where it is another."""
    part: Literal["all", "autoencoder", "tower"] = "all"
    """all; or the autoencoder or the image encoder alone: on two GPUs they may be trained beside each other first."""
    cameras: Literal["absolute", "relative"] = "absolute"
    """Camera labels: absolute for objects that all face the same way, relative to the reference for any."""


def embedded(effort: float, cameras: Literal["absolute", "relative"], parts_effort: float | None = None) -> Recipe:
    """`EMBEDDED` with other numbers of steps."""
    parts_effort = effort if parts_effort is None else parts_effort
    for option, given in (("--effort", effort), ("--parts-effort", parts_effort)):
        if not 0 < given <= 100:
            raise UserError(f"{option} is {given}; it must be above 0 and at most 100")

    def scaled(schedule: Schedule, by: float = effort) -> Schedule:
        return replace(schedule, steps=max(1, round(schedule.steps * by)))

    recipe = replace(EMBEDDED, cameras=cameras, stage1=scaled(EMBEDDED.stage1), stage2=scaled(EMBEDDED.stage2))
    if recipe.autoencoder is None or recipe.tower_training is None:
        raise ValueError("the embedded model trains its own parts")
    return replace(
        recipe,
        autoencoder=replace(recipe.autoencoder, schedule=scaled(recipe.autoencoder.schedule, parts_effort)),
        tower_training=replace(recipe.tower_training, schedule=scaled(recipe.tower_training.schedule, parts_effort)),
    )


def build(args: TinyModel, recipe: Recipe, device: torch.device) -> None:
    """All parts, then OUT; or the one part asked for."""
    first, second, latents = args.work / "stage1", args.work / "stage2", args.work / "latents"
    whole = require_images(open_views(args.shards), "the autoencoder")
    training, _ = split_set(whole, recipe.validation, recipe.test_share)
    seen = require_images(training, "the autoencoder")
    if args.part != "all":
        make: Callable[..., nn.Module] = make_autoencoder if args.part == "autoencoder" else make_image_encoder
        make(seen, first, recipe, args.seed, device)
        return
    encode_all(whole, latents, make_parts(seen, first, recipe, args.seed, device))
    for stage, folder, base in ((1, first, None), (2, second, first)):
        number: Literal[1, 2] = 1 if stage == 1 else 2
        run = TrainingRun(
            number,
            recipe,
            str(latents),
            folder,
            base,
            seed=args.seed,
            device=device,
            compile="graphs" if args.compile == "auto" and device.type == "cuda" else args.compile,
            blocks=args.blocks,
        )
        start(run, Launch())
    write_half(second, args.out, options(args))


def make_autoencoder(seen: ShardSet, folder: Path, recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The autoencoder in `folder`, trained on `seen` where it is missing."""
    if recipe.autoencoder is None:
        raise UserError(f"preset {recipe.name} trains no autoencoder")
    damage, size = Damage(len(seen), recipe.max_damaged_share), recipe.image_size
    return ensure_autoencoder(folder / "vae", seen, recipe.autoencoder, size, seed=seed, device=device, damage=damage)


def make_image_encoder(seen: ShardSet, folder: Path, recipe: Recipe, seed: int, device: torch.device) -> ImageEncoder:
    """The image encoder in `folder`, trained on `seen` where it is missing."""
    if recipe.tower_training is None or not isinstance(recipe.tower, SmallEncoder):
        raise UserError(f"preset {recipe.name} trains no image encoder")
    damage, target = Damage(len(seen), recipe.max_damaged_share), folder / "image_tower"
    return ensure_image_encoder(
        target,
        seen,
        recipe.tower,
        recipe.tower_training,
        seed=seed,
        device=device,
        cameras=recipe.cameras or "relative",
        damage=damage,
    )


def make_parts(seen: ShardSet, folder: Path, recipe: Recipe, seed: int, device: torch.device) -> Encoder:
    """Both, to encode with on the device."""
    if recipe.unet is None:
        raise UserError(f"preset {recipe.name} trains no UNet of its own")
    vae = make_autoencoder(seen, folder, recipe, seed, device)
    image_encoder = make_image_encoder(seen, folder, recipe, seed, device)
    scale = float(vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    spec = ModelSpec(
        recipe.image_size, recipe.unet.latent_size, scale, recipe.cameras or "relative", recipe.guidance_scale
    )
    for part in (vae, image_encoder):
        nn.Module.to(part.requires_grad_(False).eval(), device)
    return Encoder(vae, image_encoder, spec, device)


def encode_all(shards: ShardSet, out: Path, encoder: Encoder) -> None:
    """All views of the set, of its test objects too, as latents."""
    encode(shards, str(out), encoder, plan_format(encoder, shards, logvar=False, embedded="all"), readers=8)


def options(args: TinyModel) -> str:
    """What was asked beside the defaults and decides the result, as it is typed."""
    asked = {"effort": args.effort, "parts-effort": args.parts_effort, "cameras": args.cameras, "seed": args.seed}
    plain = {"effort": 1.0, "parts-effort": None, "cameras": "absolute", "seed": 0}
    typed = " ".join(f"--{name} {value}" for name, value in asked.items() if value != plain[name])
    return f' ARGS="{typed}"' if typed else ""


def write_half(folder: Path, out: Path, asked: str) -> None:
    """The model of a run as a model folder in float16, with README.md and the config.json that says what trained it."""
    model = load_model(folder, torch.device("cpu"))
    for part in (model.unet, model.vae, model.image_encoder):
        nn.Module.to(part, torch.float16)
    save_model(model, out)
    config = {**json.loads((folder / CONFIG_FILE).read_text()), "base": None}  # stage 1 is of the same data and command
    (out / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    (out / "README.md").write_text(card(config["data"]["objects"], asked))
    megabytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"wrote {out}: {megabytes:.1f} MB" + ("" if megabytes <= MOST_MB else f"; more than {MOST_MB}"))


def card(objects: int, asked: str) -> str:
    """What the folder's README.md says, from the size of the set and the options of the command."""
    return f"""# The embedded model

A small multi-view diffusion model after Isotropic3D: 64-pixel views of an object from the embedding of one picture.
Trained from scratch, in both stages, by

    make tiny-model{asked}

on rendered shards of {objects:,} objects, of which 5 % were kept for testing and 5 % for validation. Float16.
`{CONFIG_FILE}` is the recipe of both stages.
"""


def main() -> None:
    """Command line."""
    args = tyro.cli(TinyModel, prog="python -m train.tiny_model")
    device = pick_device(args.device)
    if device.type == "cpu":
        print("note: this is meant for a GPU; on a CPU it takes days (--effort 0.001 rehearses it)")
    build(args, embedded(args.effort, args.cameras, args.parts_effort), device)


if __name__ == "__main__":
    run_cli(main)
