"""Train a small image encoder whose embeddings describe both the object and the viewpoint.

The loss is a weighted sum of five terms; the last four are optional:

- Reconstruction: a head predicts a thumbnail of the view from the view's embedding. Without this term the embedding
  could ignore the viewpoint. Camera labels relative to the reference view would then be meaningless.
- Novel view: a head predicts a thumbnail of another view of the object, given the camera of that view. The embedding
  then describes the unseen sides of the object, which the diffusion model needs.
- Contrast: an InfoNCE loss, after a linear projection, makes the embeddings of two views of one object similar and
  those of different objects dissimilar.
- Features: a linear head predicts, from the embedding, the pooled features that the pretrained network computed from
  the view before this training. The embedding then still describes what the network has learned from photographs. The
  mean of the features over the batch is subtracted, and the term is 1 - the cosine similarity.
- Kinds: a linear head predicts the kind of the object, such as "chair". The term is the cross entropy with label
  smoothing, over the objects whose kind is known. Labelled drawings (`train.components.drawings`) can be added, so that
  drawings of a kind get embeddings like those of its renders.

Optionally, the network starts from weights pretrained on photographs (`train.components.backbone`), and the encoder
sees augmented views (`train.components.augment`). Then it also understands photographs and drawings. The pretrained
weights have a lower learning rate or none, and their batch normalization keeps the statistics of photographs;
docs/LOG.md compares this with other settings. Optionally, half of the objects are mirrored. Thumbnails and features are
those of the views as rendered, even if the encoder centers the object in its input images (`object_fill`). Centering
hides the size of an object, so the encoder learns to infer the size from the shape. It must also infer the size from
the shape when a user gives an image.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from dataset.images.psnr import psnr_of_mse_db
from dataset.reading.damage import Damage
from dataset.reading.shard_set import ShardSet
from train.components.augment import augment
from train.components.backbone import load_backbone
from train.components.component import is_trained, optimize, seeded, write_part
from train.components.drawings import Drawings
from train.components.image_encoder_heads import ImageEncoderHeads, feature_loss, info_nce, kind_loss
from train.config.presets import ImageEncoderRecipe
from train.data.images import on_white
from train.data.kinds import kind_of
from train.data.random_views import ComponentViews, read_random_views
from train.model.image_encoder import (
    ImageEncoder,
    TrainedEncoder,
    build_image_encoder,
    load_image_encoder,
    resize,
    save_image_encoder,
)
from train.model.multiview import CameraConvention, camera_labels
from train.model.timm_encoder import TimmEncoder, TimmVisual

logger = logging.getLogger(__name__)

FEATURE_IMAGE_SIZE: Final = 160  # pixels; the pretrained networks saw larger images than the encoder does
_SWITCHES: Final = ("pretrained", "augmented", "feature_weight", "pretrained_lr_factor", "kind_weight", "drawings")


class PretrainedFeatures:
    """Computes the pooled features of images with a frozen copy of an encoder's pretrained network."""

    def __init__(self, image_encoder: ImageEncoder, visual: TimmVisual) -> None:
        """Copy the network.

        Args:
            image_encoder: The encoder, whose preprocessing is used.
            visual: The encoder's network with its pretrained weights.
        """
        self._preprocess = image_encoder.preprocess
        self._trunk = deepcopy(visual.trunk).requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> Tensor:
        """Return the features [n, k] of images [n, 3, h, w] in [0, 1] on white."""
        with torch.autocast(rgb.device.type, torch.bfloat16, enabled=rgb.device.type == "cuda"):
            features: Tensor = self._trunk(self._preprocess(rgb, FEATURE_IMAGE_SIZE))
        return features.float()


def number_kinds(shards: ShardSet, labels: Mapping[str, str]) -> tuple[Tensor, list[str]]:
    """Return the numbers [n] of the kinds of the n objects of a set, -1 if a kind is not known, and the kinds' names.

    Args:
        shards: The set. The order of the objects is that of its shards and samples.
        labels: Kinds by uid, of objects whose uid does not contain the kind.
    """
    uids = [shards.uid(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    kinds = [kind_of(uid, labels) for uid in uids]
    names = sorted({kind for kind in kinds if kind is not None})
    return torch.tensor([-1 if kind is None else names.index(kind) for kind in kinds]), names


def train_image_encoder(
    shards: ShardSet,
    spec: TrainedEncoder,
    recipe: ImageEncoderRecipe,
    *,
    seed: int,
    device: torch.device,
    cameras: CameraConvention = "relative",
    damage: Damage | None = None,
    backbone: Path | None = None,
    labels: Mapping[str, str] | None = None,
    drawings: Drawings | None = None,
) -> ImageEncoder:
    """Train an image encoder, from scratch or from the pretrained weights of `train.components.backbone`.

    Args:
        shards: Images to train on.
        spec: Sizes of the network.
        recipe: Settings of the training.
        seed: Seed of the initial weights, the object order, the choice of views, the mirroring and the augmentation.
        device: Device to train on.
        cameras: Convention of the camera labels, which are inputs of the head for novel views.
        damage: Record of corrupt objects, which are replaced by other objects. None: a corrupt object is an error.
        backbone: File with pretrained weights. None: the installed package is used if the recipe needs such weights.
        labels: Kinds by uid, of objects whose uid does not contain the kind. Used if the recipe predicts kinds.
        drawings: Labelled drawings, whose kinds are predicted too. Kinds without objects are left out.

    Raises:
        UserError: The recipe needs pretrained weights that cannot be loaded, or a gradient is not finite.
        ValueError: The recipe needs pretrained weights, but `spec` is not an architecture of timm.
    """
    novel_views = recipe.novel_view_weight > 0
    with seeded(seed):
        image_encoder = build_image_encoder(spec).to(device)
        pretrained = _load_pretrained(image_encoder, recipe, backbone)
        teacher = PretrainedFeatures(image_encoder, pretrained) if pretrained and recipe.feature_weight > 0 else None
        num_features = pretrained.num_features if pretrained and teacher else 0
        kinds, names = number_kinds(shards, labels or {}) if recipe.kind_weight > 0 else (torch.empty(0), [])
        heads = ImageEncoderHeads(
            spec.embed_dim,
            recipe.thumbnail_size,
            novel_views=novel_views,
            num_features=num_features,
            num_kinds=len(names),
        ).to(device)
    generator, schedule = torch.Generator().manual_seed(seed), recipe.schedule
    known_drawings = _known_drawings(drawings, names, recipe, device)
    batches = read_random_views(
        shards, seed, schedule.steps, objects=schedule.objects, views=2, damage=damage, device=device
    )

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        views = next(batches)
        if recipe.mirror:
            views = mirror_half(views, generator)
        rgba = views.rgba.to(device).flatten(0, 1)
        rgb = on_white(rgba)
        drawn_rgba, drawn_kinds = _sample_drawings(known_drawings, rgba, recipe.drawings, generator)
        seen_rgba = torch.cat([rgba, drawn_rgba])
        seen = augment(seen_rgba, generator) if recipe.augmented else on_white(seen_rgba)
        with torch.autocast(device.type, torch.bfloat16, enabled=pretrained is not None and device.type == "cuda"):
            embeddings, drawn = image_encoder(seen).float().tensor_split([len(rgba)])
        thumbnails = resize(rgb, recipe.thumbnail_size).clamp(0, 1)
        mse = functional.mse_loss(heads.predict_thumbnails(embeddings), thumbnails)
        loss = recipe.reconstruction_weight * mse
        shown = {"thumbnail PSNR": psnr_of_mse_db(float(mse.detach()))}
        if recipe.contrast_weight > 0:
            projected = heads.contrast(embeddings).unflatten(0, (-1, 2))
            contrast = info_nce(projected[:, 0], projected[:, 1], views.objects.to(device), recipe.temperature)
            loss = loss + recipe.contrast_weight * contrast
            shown["contrast"] = float(contrast.detach())
        if novel_views:
            labels = other_view_labels(cameras, views.angles_deg).to(device)
            others = thumbnails.view(-1, 2, *thumbnails.shape[1:]).flip(1).flatten(0, 1)
            novel_mse = functional.mse_loss(heads.predict_novel_views(embeddings, labels), others)
            loss = loss + recipe.novel_view_weight * novel_mse
            shown["novel view PSNR"] = psnr_of_mse_db(float(novel_mse.detach()))
        if teacher:
            of_features = feature_loss(heads.predict_features(embeddings), teacher(rgb))
            loss = loss + recipe.feature_weight * of_features
            shown["features"] = float(of_features.detach())
        if names:
            of_kinds = kind_loss(heads.predict_kinds(embeddings), kinds[views.objects].repeat_interleave(2))
            of_drawings = kind_loss(heads.predict_kinds(drawn), drawn_kinds)
            loss = loss + recipe.kind_weight * (of_kinds + recipe.drawing_weight * of_drawings)
            terms = {"kinds": of_kinds, **({"drawings": of_drawings} if known_drawings else {})}
            shown |= {name: float(term.detach()) for name, term in terms.items()}
        return loss, shown

    fast, slow = _trained_parameters([image_encoder, heads], pretrained, recipe.pretrained_lr_factor)
    optimize(
        "image encoder",
        fast,
        recipe.schedule,
        loss_of_step,
        pretrained=slow,
        pretrained_lr_factor=recipe.pretrained_lr_factor,
    )
    return image_encoder.eval()


def _sample_drawings(
    drawings: tuple[Tensor, Tensor] | None, rgba: Tensor, count: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Choose `count` of the images and kinds of `_known_drawings` at random, at the size of views `rgba` [n, s, s, 4].

    Without drawings, no rows are returned.
    """
    if drawings is None:
        return rgba[:0], torch.empty(0, dtype=torch.long)
    chosen = torch.randint(len(drawings[1]), (count,), generator=generator)
    images = drawings[0][chosen.to(rgba.device)]
    if images.shape[1] != rgba.shape[1]:
        resized = resize(images.permute(0, 3, 1, 2).float() / 255, rgba.shape[1]).clamp(0, 1)
        images = (resized * 255).round().byte().permute(0, 2, 3, 1)
    return images, drawings[1][chosen]


def _known_drawings(
    drawings: Drawings | None, names: Sequence[str], recipe: ImageEncoderRecipe, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Return the images of the drawings of known kinds, on the device, and the numbers of their kinds, on the CPU."""
    if not recipe.drawings:
        return None
    if drawings is None:
        logger.info("note: the image encoder is trained without labelled drawings; give a folder with --drawings")
        return None
    rgba, numbers = drawings.of_kinds(names)
    logger.info("%d of %d drawings show kinds of the training objects", len(numbers), len(drawings.kinds))
    return (rgba.to(device), numbers) if len(numbers) else None


def _trained_parameters(
    networks: Sequence[nn.Module], pretrained: TimmVisual | None, lr_factor: float
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters to train without and with pretrained values; without a learning rate, freeze the latter."""
    slow: list[nn.Parameter] = []
    if pretrained:
        freeze_norms(pretrained.trunk)
        pretrained.trunk.requires_grad_(lr_factor > 0)
        slow = [parameter for parameter in pretrained.trunk.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in slow}
    trained = [each for network in networks for each in network.parameters() if each.requires_grad]
    return [each for each in trained if id(each) not in known], slow


def _load_pretrained(
    image_encoder: ImageEncoder, recipe: ImageEncoderRecipe, backbone: Path | None
) -> TimmVisual | None:
    """Load pretrained weights into an encoder if the recipe says so, and return its network; otherwise return None."""
    if not recipe.pretrained:
        if recipe.feature_weight > 0:
            raise ValueError("feature_weight needs pretrained weights; set `pretrained`")
        return None
    spec, visual = image_encoder.spec, image_encoder.visual
    if not isinstance(spec, TimmEncoder) or not isinstance(visual, TimmVisual):
        raise ValueError(f"{spec} has no pretrained weights; use a TimmEncoder")
    load_backbone(visual, spec.architecture, backbone)
    return visual


def freeze_norms(network: nn.Module) -> None:
    """Make the batch normalization of a network use its stored statistics, and keep them, until `network.train()`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def mirror_half(views: ComponentViews, generator: Generator) -> ComponentViews:
    """Mirror all views of some objects, each object with probability 1/2, and negate the azimuths of these views.

    A mirrored image shows the mirrored object from the negative azimuth. Only the lighting differs from a true
    rendering.

    Args:
        views: Views of several objects.
        generator: Random generator that chooses the objects.
    """
    mirrored = torch.rand(len(views.objects), generator=generator) < 0.5
    on_device = mirrored[:, None, None, None, None].to(views.rgba.device)
    elevation, azimuth = views.angles_deg.unbind(-1)
    return views._replace(
        rgba=torch.where(on_device, views.rgba.flip(-2), views.rgba),
        angles_deg=torch.stack([elevation, torch.where(mirrored[:, None], -azimuth, azimuth)], -1),
    )


def other_view_labels(cameras: CameraConvention, angles_deg: Tensor) -> Tensor:
    """Return camera labels [(b 2), 16] for b pairs of views. Each row is the label of the other view of its pair.

    Args:
        cameras: Convention of the labels. "relative": the camera of the other view relative to the view itself.
        angles_deg: Angles [b, 2, 2] in degrees: b objects, two views per object, elevation and azimuth.
    """
    here, there = angles_deg.flatten(0, 1).numpy(), angles_deg.flip(1).flatten(0, 1).numpy()
    return camera_labels(cameras, there[:, 0], there[:, 1], here[:, 0], here[:, 1])


def ensure_image_encoder(
    folder: Path,
    shards: ShardSet,
    spec: TrainedEncoder,
    recipe: ImageEncoderRecipe,
    *,
    seed: int,
    device: torch.device,
    cameras: CameraConvention = "relative",
    damage: Damage | None = None,
    backbone: Path | None = None,
    labels: Mapping[str, str] | None = None,
    drawings: Drawings | None = None,
) -> ImageEncoder:
    """Load the image encoder in `folder`. If the folder does not exist, train the encoder and write the folder.

    The arguments after `folder` have the same meaning as in `train_image_encoder`.

    Raises:
        UserError: `folder` contains no finished image encoder, or one that was trained with other settings. Or the
            recipe needs pretrained weights that cannot be loaded.
    """
    used = recipe if drawings is not None else replace(recipe, drawings=0)
    settings = {"tower": asdict(spec), "recipe": _stored(used), "seed": seed}
    if recipe.novel_view_weight > 0:
        settings["cameras"] = cameras
    if drawings is not None and recipe.drawings:
        settings["drawings"] = drawings.sha256
    if is_trained(folder, settings):
        logger.info("image encoder: %s is already trained", folder)
        return load_image_encoder(folder)
    image_encoder = train_image_encoder(
        shards,
        spec,
        recipe,
        seed=seed,
        device=device,
        cameras=cameras,
        damage=damage,
        backbone=backbone,
        labels=labels,
        drawings=drawings,
    )
    write_part(folder, settings, lambda target: save_image_encoder(image_encoder, target))
    return load_image_encoder(folder)


def _stored(recipe: ImageEncoderRecipe) -> dict[str, Any]:
    """Return the recipe as a dict, without the switches that are off. Older folders do not store these switches."""
    switched_on = {name: value for name, value in asdict(recipe).items() if value or name not in _SWITCHES}
    if not recipe.pretrained:
        switched_on.pop("pretrained_lr_factor", None)
    if not recipe.drawings:
        switched_on.pop("drawing_weight", None)
    return switched_on
