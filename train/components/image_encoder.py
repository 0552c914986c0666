"""Training a small image encoder whose embedding knows both what the object is and from where it is seen.

The embedding must repaint a thumbnail of the very view it came from: a tower that forgot the viewpoint would leave
camera labels relative to the reference without meaning. Each of the rest has its weight, and may be off. It must paint
the object's other view, whose camera is an input: so it learns what an object's hidden side looks like, which is
what the diffusion model will ask it for. Two views of an object attract each other and repel other objects' (InfoNCE,
through a projection of their own). Half the objects can be mirror images.

What is painted is the view as rendered, while the tower may centre what it sees (`SmallEncoder.object_fill`): how large
the object is in its view must be guessed from its shape, as for a person's picture.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from dataset.reading.damage import Damage
from dataset.reading.shard_set import ShardSet
from train.components.autoencoder import psnr
from train.components.component import is_trained, optimize, seeded, write_part
from train.config.presets import ImageEncoderRecipe
from train.data.loader import ComponentViews, read_random_views
from train.model.image_encoder import (
    ImageEncoder,
    SmallEncoder,
    build_image_encoder,
    load_image_encoder,
    resize,
    save_image_encoder,
)
from train.model.multiview import CameraConvention, camera_labels
from train.model.unet import CAMERA_NUMBERS


class ImageEncoderHeads(nn.Module):
    """Used in training only: a projection for the contrast, and a painter of thumbnails."""

    def __init__(self, embed_dim: int, thumbnail_size: int, *, novel_views: bool = False) -> None:
        super().__init__()
        self.thumbnail_size = thumbnail_size
        self.contrast = nn.Linear(embed_dim, embed_dim // 2)
        self.painter = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim), nn.GELU(), nn.Linear(2 * embed_dim, 3 * thumbnail_size**2)
        )
        self.novel_painter: nn.Sequential | None = None
        if novel_views:
            self.novel_painter = nn.Sequential(
                nn.Linear(embed_dim + CAMERA_NUMBERS, 2 * embed_dim),
                nn.GELU(),
                nn.Linear(2 * embed_dim, 2 * embed_dim),
                nn.GELU(),
                nn.Linear(2 * embed_dim, 3 * thumbnail_size**2),
            )

    def paint(self, embeddings: Tensor) -> Tensor:
        """[n, c] -> thumbnails [n, 3, size, size]."""
        painted: Tensor = self.painter(embeddings)
        return painted.view(-1, 3, self.thumbnail_size, self.thumbnail_size)

    def paint_novel(self, embeddings: Tensor, cameras: Tensor) -> Tensor:
        """[n, c] and labels [n, 16] of the objects' other views -> thumbnails of those [n, 3, size, size]."""
        if self.novel_painter is None:
            raise ValueError("these heads paint no other views")
        painted: Tensor = self.novel_painter(torch.cat([embeddings, cameras], 1))
        return painted.view(-1, 3, self.thumbnail_size, self.thumbnail_size)


def info_nce(first: Tensor, second: Tensor, objects: Tensor, temperature: float) -> Tensor:
    """Contrast of two views [b, c] each of b objects, symmetric. `objects` [b]: rows of one object repel nothing."""
    first, second = functional.normalize(first, dim=-1), functional.normalize(second, dim=-1)
    logits = first @ second.T / temperature
    twins = (objects[:, None] == objects[None]) & ~torch.eye(len(objects), dtype=torch.bool, device=objects.device)
    logits = logits.masked_fill(twins, float("-inf"))
    target = torch.arange(len(objects), device=objects.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def train_image_encoder(
    shards: ShardSet,
    spec: SmallEncoder,
    recipe: ImageEncoderRecipe,
    *,
    seed: int,
    device: torch.device,
    cameras: CameraConvention = "relative",
    damage: Damage | None = None,
) -> ImageEncoder:
    """Train from scratch. `cameras`: the convention in which other views are named, where they are painted."""
    novel_views = recipe.novel_view_weight > 0
    with seeded(seed):
        image_encoder = build_image_encoder(spec).to(device)
        heads = ImageEncoderHeads(spec.embed_dim, recipe.thumbnail_size, novel_views=novel_views).to(device)
    objects, numbers = recipe.schedule.objects, torch.Generator().manual_seed(seed)

    batches = read_random_views(shards, seed, recipe.schedule.steps, objects=objects, views=2, damage=damage)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        views = next(batches)
        if recipe.mirror:
            views = mirror_half(views, numbers)
        rgb = views.to(device).pictures.flatten(0, 1)
        embeddings = image_encoder(rgb)
        thumbnails = resize(rgb, recipe.thumbnail_size).clamp(0, 1)
        mse = functional.mse_loss(heads.paint(embeddings), thumbnails)
        loss = recipe.reconstruction_weight * mse
        shown = {"thumbnail PSNR": psnr(float(mse.detach()))}
        if recipe.contrast_weight > 0:
            projected = heads.contrast(embeddings).unflatten(0, (-1, 2))
            contrast = info_nce(projected[:, 0], projected[:, 1], views.objects.to(device), recipe.temperature)
            loss = loss + recipe.contrast_weight * contrast
            shown["contrast"] = float(contrast.detach())
        if novel_views:
            labels = other_view_labels(cameras, views.angles_deg).to(device)
            others = thumbnails.view(-1, 2, *thumbnails.shape[1:]).flip(1).flatten(0, 1)
            novel_mse = functional.mse_loss(heads.paint_novel(embeddings, labels), others)
            loss = loss + recipe.novel_view_weight * novel_mse
            shown["novel view PSNR"] = psnr(float(novel_mse.detach()))
        return loss, shown

    optimize("image encoder", [*image_encoder.parameters(), *heads.parameters()], recipe.schedule, loss_of_step)
    return image_encoder.eval()


def mirror_half(views: ComponentViews, numbers: Generator) -> ComponentViews:
    """The views with half the objects, drawn, replaced by their mirror images.

    The mirror image of a view is the view of the mirrored object from the other side of the plane of azimuth 0: exact
    but for the light.
    """
    mirrored = torch.rand(len(views.objects), generator=numbers) < 0.5
    elevation, azimuth = views.angles_deg.unbind(-1)
    return views._replace(
        rgba=torch.where(mirrored[:, None, None, None, None], views.rgba.flip(-2), views.rgba),
        angles_deg=torch.stack([elevation, torch.where(mirrored[:, None], -azimuth, azimuth)], -1),
    )


def other_view_labels(cameras: CameraConvention, angles_deg: Tensor) -> Tensor:
    """Labels [(b 2), 16] of the other view, from each of two views [b, 2, 2] (elevation, azimuth) of b objects."""
    here, there = angles_deg.flatten(0, 1).numpy(), angles_deg.flip(1).flatten(0, 1).numpy()
    return camera_labels(cameras, there[:, 0], there[:, 1], here[:, 0], here[:, 1])


def ensure_image_encoder(
    folder: Path,
    shards: ShardSet,
    spec: SmallEncoder,
    recipe: ImageEncoderRecipe,
    *,
    seed: int,
    device: torch.device,
    cameras: CameraConvention = "relative",
    damage: Damage | None = None,
) -> ImageEncoder:
    """The image encoder in `folder`, trained first where it is missing."""
    settings = {"tower": asdict(spec), "recipe": asdict(recipe), "seed": seed}
    if recipe.novel_view_weight > 0:
        settings["cameras"] = cameras
    if is_trained(folder, settings):
        print(f"image encoder: {folder} is trained already")
        return load_image_encoder(folder)
    image_encoder = train_image_encoder(shards, spec, recipe, seed=seed, device=device, cameras=cameras, damage=damage)
    write_part(folder, settings, lambda target: save_image_encoder(image_encoder, target))
    return load_image_encoder(folder)
