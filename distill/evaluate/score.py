"""Score an asset: compare renders of its field with the true views, and its mesh with the true mesh."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from dataset.format.schema import VIEWS_PER_SET
from dataset.reading.rendered_object import RenderedObject
from distill.evaluate.ground_truth import Alignment
from distill.evaluate.metrics import (
    OPAQUE,
    Solid,
    depth_ratio,
    iou,
    silhouette_ious,
    solid_of,
    surface_scores,
    visual_hull,
)
from distill.nerf.field import Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.nerf.settings import MarchSettings
from train.evaluate.metrics import front_back_confusion, image_scores, squared_distances
from train.evaluate.perceptual.lpips import Perceptual
from train.evaluate.tables import METRICS, Metric

_SHARED: Final = {metric.name: metric for metric in METRICS}
ASSET_METRICS: Final = (
    *(_SHARED[name] for name in ("psnr", "ssim", "psnr_box", "ssim_box", "squeezenet")),
    Metric("silhouette_iou", "silhouette IoU", "intersection over union of the silhouettes", True, 3),
    _SHARED["front_back_pixels"],
    Metric("hull_iou", "visual hull IoU", "of the visual hulls of the asset and of the object, 32 views", True, 3),
    Metric(
        "depth_ratio",
        "depth ratio",
        "extent of the hull along the axis of the view that was distilled, as a fraction of the object's (1 is right, "
        "less is flattened)",
        None,
        2,
    ),
    Metric("volume_iou", "volume IoU", "of the mesh and the true mesh, 64^3 voxels", True, 3),
    Metric("chamfer", "Chamfer distance", "between the mesh and the true mesh, in longest sides", False, 4),
    Metric("f_score", "F-score %", "of the mesh's points within 0.02 of the true mesh's and vice versa", True, 1, True),
)
PAGE_METRICS: Final = tuple(
    metric
    for metric in ASSET_METRICS
    if metric.name in ("psnr", "ssim", "silhouette_iou", "hull_iou", "volume_iou", "f_score")
)
_VIEWS_AT_ONCE: Final = 4
_CPU_SAMPLE_BUDGET: Final = 2**18  # larger arrays take the system more time than they save
_OCCUPANCY_SAMPLES: Final = 48  # random points per cell; in 1 of 10,000 cells they miss a wall of a sixth of a cell
_ONLY_ASSET, _ONLY_TRUTH, _BOTH = (214, 94, 0), (0, 114, 178), (196, 196, 196)  # distinct for color-blind readers


@dataclass(frozen=True)
class RenderedAsset:
    """Renders of an asset from the cameras of all 32 views of its object, in the order of ALL_VIEWS."""

    rgb: NDArray[np.float32]  # [f, h, w, 3] in [0, 1], on white
    alpha: NDArray[np.float32]  # [f, h, w]

    @property
    def silhouettes(self) -> NDArray[np.bool_]:
        """One mask for each of the f = 32 views, [f, h, w]: the pixels that show the asset."""
        return self.alpha >= OPAQUE


def true_silhouettes(truth: RenderedObject) -> NDArray[np.bool_]:
    """Return one mask for each of the object's f = 32 true views, [f, h, w]: the pixels that show the object."""
    return truth.images[..., 3] >= OPAQUE * 255


@torch.no_grad()
def render_asset(
    scene: Scene, march: MarchSettings, alignment: Alignment, truth: RenderedObject, device: torch.device | str = "cpu"
) -> RenderedAsset:
    """Render an asset without lighting, from the cameras and at the resolution of the object's true views.

    Args:
        scene: The field of the asset.
        march: Settings of ray marching.
        alignment: The transform from the world of the field to the world of the object.
        truth: The object.
        device: Device of the field.
    """
    occupancy = occupancy_of(scene, march, device)
    if torch.device(device).type == "cpu":
        march = replace(march, sample_budget=min(march.sample_budget, _CPU_SAMPLE_BUDGET))
    cameras, renders = alignment.to_field(truth.c2w), []
    for start in range(0, len(cameras), _VIEWS_AT_ONCE):
        part = slice(start, start + _VIEWS_AT_ONCE)
        renders.append(
            render_views(
                scene,
                cameras[part],
                truth.fov_deg[part],
                truth.size,
                settings=march,
                occupancy=occupancy,
                device=device,
            )
        )
    rgb, alpha = (torch.cat([render[i] for render in renders]).clamp(0, 1).cpu().numpy() for i in range(2))
    return RenderedAsset(rgb, alpha)


@torch.no_grad()
def occupancy_of(scene: Scene, march: MarchSettings, device: torch.device | str = "cpu") -> Occupancy:
    """Compute the occupancy grid of a finished scene. This is needed because field files do not contain the grid.

    The grid is computed from 48 random points in each cell.

    Args:
        scene: The scene.
        march: Settings of ray marching, which include the resolution of the grid.
        device: Device of the scene.
    """
    settings = replace(march, occupancy_every=1, occupancy_decay=1.0, occupancy_warmup=_OCCUPANCY_SAMPLES)
    occupancy = Occupancy(scene.radius, settings).to(device)
    for step in range(_OCCUPANCY_SAMPLES):
        occupancy.update(step, scene.density, seed=0)
    return occupancy


def view_scores(
    rendered: RenderedAsset, truth: RenderedObject, reference: int, *, perceptual: Perceptual | None = None
) -> dict[str, Sequence[float]]:
    """Return the scores of an asset's renders compared with the true views.

    Args:
        rendered: The renders of the asset.
        truth: The object.
        reference: Index into ALL_VIEWS of the view that was distilled. If it is one of the 16 fixed views, its scores
            are NaN, since this view is not held out.
        perceptual: The SqueezeNet feature distance; None to leave it out.

    Returns:
        Lists of scores by name. Each list has one value for each of the 16 fixed views, except `hull_iou` and
        `depth_ratio`. These lists have a single value: the intersection over union of the visual hulls, and the ratio
        of their extents along the axis of the view that was distilled.
    """
    ring = slice(0, VIEWS_PER_SET)
    rgb, true_rgb = rendered.rgb[ring], truth.on_white[ring]
    silhouettes, true = rendered.silhouettes, true_silhouettes(truth)
    scores = image_scores(rgb, true_rgb, truth.images[ring, ..., 3])
    if perceptual is not None:
        scores["squeezenet"] = perceptual(rgb, true_rgb)
    scores["silhouette_iou"] = silhouette_ious(silhouettes[ring], true[ring])
    scores["front_back_pixels"] = front_back_confusion(squared_distances(rgb, true_rgb), true_rgb)
    if reference < VIEWS_PER_SET:
        for values in scores.values():
            values[reference] = np.nan
    hull, true_hull = (visual_hull(each, truth.c2w, truth.K) for each in (silhouettes, true))
    view_axis = truth.c2w[reference, :3, 2]
    lists: dict[str, Sequence[float]] = {name: values.tolist() for name, values in scores.items()}
    return {**lists, "hull_iou": [iou(hull, true_hull)], "depth_ratio": [depth_ratio(hull, true_hull, view_axis)]}


def shape_scores(mesh: trimesh.Trimesh, alignment: Alignment, truth: Solid) -> dict[str, Sequence[float]]:
    """Return the `surface_scores` of an asset's mesh compared with the true mesh, as lists of one value.

    Args:
        mesh: The mesh of the asset, in the world of the field.
        alignment: The transform from the world of the field to the world of the object.
        truth: The true mesh, in the world of the object.
    """
    moved = trimesh.Trimesh(alignment.to_object(np.asarray(mesh.vertices)), mesh.faces, process=False)
    return {name: [value] for name, value in surface_scores(solid_of(moved), truth).items()}


def outlines(rendered: RenderedAsset, truth: RenderedObject) -> list[NDArray[np.uint8]]:
    """Return one RGBA image [h, w, 4] for each of the 16 fixed views. It shows the silhouettes of asset and object.

    Pixels in both silhouettes are gray, pixels in the asset's silhouette only are orange, and pixels in the object's
    silhouette only are blue.

    Args:
        rendered: The renders of the asset.
        truth: The object.
    """
    images = []
    for asset, true in zip(rendered.silhouettes[:VIEWS_PER_SET], true_silhouettes(truth), strict=False):
        image = np.full((*asset.shape, 4), 255, np.uint8)
        for mask, color in ((asset & ~true, _ONLY_ASSET), (true & ~asset, _ONLY_TRUTH), (asset & true, _BOTH)):
            image[mask, :3] = color
        images.append(image)
    return images
