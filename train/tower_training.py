"""Training a small image tower whose embedding knows both what the object is and from where it is seen.

Two views of an object attract each other and repel other objects' (InfoNCE, through a projection of their own), and the
embedding must redraw a thumbnail of the very view it came from. The second part matters: camera labels are relative to
the reference view, so a tower that forgot the viewpoint would leave them without meaning.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from dataset.loader import Damage
from dataset.stream import ShardSet
from train.autoencoder import psnr
from train.feed import read_random_views
from train.image_tower import ImageTower, SmallTower, build_tower, load_tower, resize, save_tower
from train.parts import is_trained, optimise, seeded, write_part
from train.recipe import TowerRecipe


class TowerHeads(nn.Module):
    """Used in training only: a projection for the contrast, and a painter of thumbnails."""

    def __init__(self, embed_dim: int, thumbnail_size: int) -> None:
        super().__init__()
        self.thumbnail_size = thumbnail_size
        self.contrast = nn.Linear(embed_dim, embed_dim // 2)
        self.painter = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim), nn.GELU(), nn.Linear(2 * embed_dim, 3 * thumbnail_size**2)
        )

    def paint(self, embeddings: Tensor) -> Tensor:
        """[n, c] -> thumbnails [n, 3, size, size]."""
        painted: Tensor = self.painter(embeddings)
        return painted.view(-1, 3, self.thumbnail_size, self.thumbnail_size)


def info_nce(first: Tensor, second: Tensor, objects: Tensor, temperature: float) -> Tensor:
    """Contrast of two views [b, c] each of b objects, symmetric. `objects` [b]: rows of one object repel nothing."""
    first, second = functional.normalize(first, dim=-1), functional.normalize(second, dim=-1)
    logits = first @ second.T / temperature
    twins = (objects[:, None] == objects[None]) & ~torch.eye(len(objects), dtype=torch.bool, device=objects.device)
    logits = logits.masked_fill(twins, float("-inf"))
    target = torch.arange(len(objects), device=objects.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def train_tower(
    shards: ShardSet,
    spec: SmallTower,
    recipe: TowerRecipe,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> ImageTower:
    """Train from scratch."""
    with seeded(seed):
        tower = build_tower(spec).to(device)
        heads = TowerHeads(spec.embed_dim, recipe.thumbnail_size).to(device)
    objects = recipe.schedule.objects

    batches = read_random_views(shards, seed, recipe.schedule.steps, objects=objects, views=2, damage=damage)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        views, numbers = next(batches)
        rgb = views.flatten(0, 1).to(device)
        embeddings = tower(rgb)
        projected = heads.contrast(embeddings).unflatten(0, (-1, 2))
        contrast = info_nce(projected[:, 0], projected[:, 1], numbers.to(device), recipe.temperature)
        mse = functional.mse_loss(heads.paint(embeddings), resize(rgb, recipe.thumbnail_size).clamp(0, 1))
        loss = contrast + recipe.reconstruction_weight * mse
        return loss, {"contrast": float(contrast.detach()), "thumbnail PSNR": psnr(float(mse.detach()))}

    optimise("image tower", [*tower.parameters(), *heads.parameters()], recipe.schedule, loss_of_step)
    return tower.eval()


def ensure_tower(
    folder: Path,
    shards: ShardSet,
    spec: SmallTower,
    recipe: TowerRecipe,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> ImageTower:
    """The image tower in `folder`, trained first where it is missing."""
    settings = {"tower": asdict(spec), "recipe": asdict(recipe), "seed": seed}
    if is_trained(folder, settings):
        print(f"image tower: {folder} is trained already")
        return load_tower(folder)
    tower = train_tower(shards, spec, recipe, seed=seed, device=device, damage=damage)
    write_part(folder, settings, lambda target: save_tower(tower, target))
    return load_tower(folder)
