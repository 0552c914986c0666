"""The model before the first step."""

from dataclasses import replace

from dataset.errors import UserError
from dataset.reading.damage import Damage
from train.components.autoencoder import ensure_autoencoder
from train.components.component import is_whole, seeded
from train.components.image_encoder import ensure_image_encoder
from train.data.loader import TrainingSet, require_images
from train.loop.run_config import TrainingRun
from train.model.image_encoder import SmallEncoder, fetch_image_encoder, load_image_encoder
from train.model.multiview import ModelSpec, MultiViewModel, assemble, load_model, load_vae
from train.model.unet import build_unet


def initial_model(run: TrainingRun, shards: TrainingSet, damage: Damage | None = None) -> MultiViewModel:
    """The model before the first step: read from `base`, or with its parts trained and the UNet drawn from the seed."""
    recipe = run.recipe
    if run.base is not None:
        has_image_encoder = any((run.base / name).is_dir() for name in ("image_tower", "image_encoder"))
        bare = not has_image_encoder and not isinstance(recipe.tower, SmallEncoder)
        model = load_model(run.base, run.device, image_encoder=fetch_image_encoder(recipe.tower) if bare else None)  # type: ignore[arg-type]
        _tell_centring(model, run)
        return _with_labels(model, run)
    if recipe.autoencoder is None or recipe.tower_training is None or recipe.unet is None:
        raise UserError(f"preset {recipe.name} cannot train from scratch; give --init-from")
    if not isinstance(recipe.tower, SmallEncoder):
        raise UserError(f"preset {recipe.name} trains no image encoder of its own; give --init-from")
    print(
        f"training from scratch: the autoencoder and the image encoder are trained first, into {run.out}; "
        "finished parts found there are reused"
    )
    vae_folder, image_encoder_folder = run.out / "vae", run.out / "image_tower"
    vae = (
        load_vae(vae_folder)
        if is_whole(vae_folder)
        else ensure_autoencoder(
            vae_folder,
            require_images(shards, "the autoencoder"),
            recipe.autoencoder,
            recipe.image_size,
            seed=run.seed,
            device=run.device,
            damage=damage,
        )
    )
    image_encoder = (
        load_image_encoder(image_encoder_folder)
        if is_whole(image_encoder_folder)
        else ensure_image_encoder(
            image_encoder_folder,
            require_images(shards, "the image encoder"),
            recipe.tower,
            recipe.tower_training,
            seed=run.seed,
            device=run.device,
            cameras=recipe.cameras or "relative",
            damage=damage,
        )
    )
    with seeded(run.seed):
        unet = build_unet(recipe.unet)
    scale = float(vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    spec = ModelSpec(
        recipe.image_size, recipe.unet.latent_size, scale, recipe.cameras or "relative", recipe.guidance_scale
    )
    return assemble(unet, vae, image_encoder, spec, device=run.device)


def _tell_centring(model: MultiViewModel, run: TrainingRun) -> None:
    """What is recorded of a run is its preset's tower, which a base need not have."""
    wanted = run.recipe.tower.object_fill if isinstance(run.recipe.tower, SmallEncoder) else None
    if (found := model.image_encoder.object_fill) != wanted:
        does = "looks at pictures as they are" if found is None else f"centres objects at {found:.0%} of the frame"
        print(f"note: the image encoder of {run.base} {does}, unlike the preset's; training keeps it")


def _with_labels(model: MultiViewModel, run: TrainingRun) -> MultiViewModel:
    """The model with the camera labels that the run asks for; what is unusual is said."""
    before, asked = model.spec.cameras, run.recipe.cameras
    if asked is not None and asked != before:
        print(f"note: {run.base} was trained with {before} camera labels; from here on they are {asked} (--cameras)")
        return replace(model, spec=replace(model.spec, cameras=asked))
    if before != "relative":
        print(f"note: {run.base} was trained with {before} camera labels; training keeps them")
    return model
