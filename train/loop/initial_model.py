"""Load the model with which a run starts, or create this model when a run trains from scratch."""

import logging
from dataclasses import replace

from dataset.errors import UserError
from dataset.reading.damage import Damage
from train.components.autoencoder import ensure_autoencoder
from train.components.component import is_whole, seeded
from train.components.image_encoder import ensure_image_encoder
from train.data.training_set import TrainingSet, require_images
from train.loop.run_config import TrainingRun
from train.model.image_encoder import OpenClipEncoder, fetch_image_encoder, load_image_encoder
from train.model.multiview import ModelSpec, MultiViewModel, assemble, load_model, load_vae
from train.model.unet import build_unet

logger = logging.getLogger(__name__)


def initial_model(run: TrainingRun, shards: TrainingSet, damage: Damage | None = None) -> MultiViewModel:
    """Return the model with which a run starts.

    If the run has a base model (--init-from), this model is loaded. Otherwise the autoencoder and the image encoder are
    trained, unless they are in the run folder already, and the UNet is initialized at random from the run's seed.

    Args:
        run: Settings of the run.
        shards: Objects on which autoencoder and image encoder are trained.
        damage: Record of corrupt objects, which are replaced by other objects. None: a corrupt object is an error.

    Raises:
        UserError: The base model cannot be loaded. Or there is no base model, and the preset or the training set of
            the run does not allow training from scratch.
    """
    if run.base is None:
        return _model_from_scratch(run, shards, damage)
    has_encoder = any((run.base / name).is_dir() for name in ("image_tower", "image_encoder"))
    spec = run.recipe.tower
    encoder = None if has_encoder or not isinstance(spec, OpenClipEncoder) else fetch_image_encoder(spec)
    model = load_model(run.base, run.device, image_encoder=encoder)
    _log_other_centering(model, run)
    return _with_camera_labels(model, run)


def _model_from_scratch(run: TrainingRun, shards: TrainingSet, damage: Damage | None) -> MultiViewModel:
    recipe = run.recipe
    if recipe.autoencoder is None or recipe.tower_training is None or recipe.unet is None:
        raise UserError(
            f"--preset {recipe.name} cannot train a model from scratch; give a model folder with --init-from, or "
            "--preset tiny"
        )
    if isinstance(recipe.tower, OpenClipEncoder):
        raise UserError(
            f"--preset {recipe.name} cannot train an image encoder; give a model folder with --init-from, or --preset "
            "tiny"
        )
    logger.info(
        "training from scratch: the autoencoder and the image encoder are trained first, into %s; finished components "
        "found there are reused",
        run.out,
    )
    vae_folder, encoder_folder = run.out / "vae", run.out / "image_tower"
    cameras = recipe.cameras or "relative"
    if is_whole(vae_folder):
        vae = load_vae(vae_folder)
    else:
        images = require_images(shards, "the autoencoder")
        vae = ensure_autoencoder(
            vae_folder, images, recipe.autoencoder, recipe.image_size, seed=run.seed, device=run.device, damage=damage
        )
    if is_whole(encoder_folder):
        encoder = load_image_encoder(encoder_folder)
    else:
        images, training = require_images(shards, "the image encoder"), recipe.tower_training
        encoder = ensure_image_encoder(
            encoder_folder,
            images,
            recipe.tower,
            training,
            seed=run.seed,
            device=run.device,
            cameras=cameras,
            damage=damage,
        )
    with seeded(run.seed):
        unet = build_unet(recipe.unet)
    scale = float(vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    spec = ModelSpec(recipe.image_size, recipe.unet.latent_size, scale, cameras, recipe.guidance_scale)
    return assemble(unet, vae, encoder, spec, device=run.device)


def _log_other_centering(model: MultiViewModel, run: TrainingRun) -> None:
    """Log a note if the initial model's image encoder centers objects differently from that of the run's preset."""
    of_preset = None if isinstance(run.recipe.tower, OpenClipEncoder) else run.recipe.tower.object_fill
    if (fill := model.image_encoder.object_fill) != of_preset:
        does = "takes images as they are" if fill is None else f"centers objects at {fill:.0%} of the frame"
        logger.info(
            "note: the image encoder of %s %s, unlike the preset's; training does not change this", run.base, does
        )


def _with_camera_labels(model: MultiViewModel, run: TrainingRun) -> MultiViewModel:
    """Return the model with the camera labels of --cameras. Log a note if they differ from the model's or the usual."""
    before, requested = model.spec.cameras, run.recipe.cameras
    if requested is not None and requested != before:
        logger.info(
            "note: %s was trained with %s camera labels; this run uses %s labels (--cameras)",
            run.base,
            before,
            requested,
        )
        return replace(model, spec=replace(model.spec, cameras=requested))
    if before != "relative":
        logger.info("note: %s was trained with %s camera labels; this run uses them too", run.base, before)
    return model
