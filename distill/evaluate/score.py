"""What an asset scores: its field seen by the object's own cameras, its mesh beside the true one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from dataset.format.schema import VIEWS_PER_SET
from dataset.io.files import write_file_atomic
from dataset.report.collect import strip
from distill.evaluate.ground_truth import Alignment, TrueObject
from distill.evaluate.metrics import OPAQUE, Solid, iou, silhouette_ious, solid_of, surface_scores, visual_hull
from distill.nerf.field import Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.nerf.settings import MarchSettings
from train.evaluate.metrics import front_back_confusion, picture_scores, squared_distances
from train.evaluate.results import Record
from train.evaluate.tables import METRICS, Metric

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_SHARED: Final = {metric.name: metric for metric in METRICS}
ASSET_METRICS: Final = (
    *(_SHARED[name] for name in ("psnr", "ssim", "psnr_box", "ssim_box")),
    Metric("silhouette_iou", "silhouette IoU", "intersection over union of the silhouettes", True, 3),
    _SHARED["front_back_pixels"],
    Metric("hull_iou", "visual hull IoU", "of what 32 silhouettes leave of the asset and of the object", True, 3),
    Metric("volume_iou", "volume IoU", "of the mesh and the true mesh, 64^3 voxels", True, 3),
    Metric("chamfer", "Chamfer distance", "between the mesh and the true mesh, in longest sides", False, 4),
    Metric("f_score", "F-score %", "of the mesh's points within 0.02 of the true mesh's, and back", True, 1, True),
)
BESIDE: Final = tuple(
    metric
    for metric in ASSET_METRICS
    if metric.name in ("psnr", "ssim", "silhouette_iou", "hull_iou", "volume_iou", "f_score")
)
_VIEWS_AT_ONCE: Final = 4
_BUDGET_ON_CPU: Final = 2**18  # of samples; larger arrays cost the system more time than they save
_LOOKS: Final = (
    48  # at a random place of each cell, for the occupancy grid: a wall of a sixth of a cell is missed by 1 in 10,000
)
_ONLY_ASSET, _ONLY_TRUTH, _BOTH = (214, 94, 0), (0, 114, 178), (196, 196, 196)  # apart for the colour-blind too


@dataclass(frozen=True)
class Seen:
    """An asset in all views of its object (asset_truth.VIEWS), [f, h, w, ...]."""

    rgb: Float32  # on white, in [0, 1]
    alpha: Float32

    @property
    def silhouettes(self) -> Bool:
        """[f, h, w]."""
        return self.alpha >= OPAQUE


def true_silhouettes(truth: TrueObject) -> Bool:
    """[f, h, w]."""
    return truth.pictures[..., 3] >= OPAQUE * 255


@torch.no_grad()
def see(
    scene: Scene, march: MarchSettings, alignment: Alignment, truth: TrueObject, device: torch.device | str = "cpu"
) -> Seen:
    """The scene, unlit, by the object's cameras in its own pictures' size."""
    occupancy = occupancy_of(scene, march, device)
    if torch.device(device).type == "cpu":
        march = replace(march, sample_budget=min(march.sample_budget, _BUDGET_ON_CPU))
    cameras, parts = alignment.to_field(truth.c2w), []
    for start in range(0, len(cameras), _VIEWS_AT_ONCE):
        part = slice(start, start + _VIEWS_AT_ONCE)
        parts.append(
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
    rgb, alpha = (torch.cat([part[i] for part in parts]).clamp(0, 1).cpu().numpy() for i in range(2))
    return Seen(rgb, alpha)


@torch.no_grad()
def occupancy_of(scene: Scene, march: MarchSettings, device: torch.device | str = "cpu") -> Occupancy:
    """The occupancy grid of a finished scene, which its file does not hold: each cell is looked at several times."""
    looks = replace(march, occupancy_every=1, occupancy_decay=1.0, occupancy_warmup=_LOOKS)
    occupancy = Occupancy(scene.radius, looks).to(device)
    for step in range(_LOOKS):
        occupancy.update(step, scene.density, seed=0)
    return occupancy


def view_scores(seen: Seen, truth: TrueObject, reference: int) -> dict[str, Sequence[float]]:
    """Every metric of pictures: 16 numbers each, one a view of the fixed set, and the hull's one.

    `reference` is the view (of asset_truth.VIEWS) that the asset was made from: NaN where it is of the fixed set, since
    it is not held out.
    """
    ring = slice(0, VIEWS_PER_SET)
    rgb, real = seen.rgb[ring], truth.on_white[ring]
    silhouettes, true = seen.silhouettes, true_silhouettes(truth)
    found = picture_scores(rgb, real, truth.pictures[ring, ..., 3])
    found["silhouette_iou"] = silhouette_ious(silhouettes[ring], true[ring])
    found["front_back_pixels"] = front_back_confusion(squared_distances(rgb, real), real)
    if reference < VIEWS_PER_SET:
        for values in found.values():
            values[reference] = np.nan
    hulls = (visual_hull(each, truth.c2w, truth.K) for each in (silhouettes, true))
    return {**{name: values.tolist() for name, values in found.items()}, "hull_iou": [iou(*hulls)]}


def shape_scores(mesh: trimesh.Trimesh, alignment: Alignment, truth: Solid) -> dict[str, Sequence[float]]:
    """`surface_scores` of an asset's mesh (in its own world) beside the truth; a list of one number each."""
    moved = trimesh.Trimesh(alignment.to_object(np.asarray(mesh.vertices)), mesh.faces, process=False)
    return {name: [value] for name, value in surface_scores(solid_of(moved), truth).items()}


def outlines(seen: Seen, truth: TrueObject) -> list[NDArray[np.uint8]]:
    """Pictures [h, w, 4] of the fixed views' silhouettes: grey where both are, orange the asset's alone, blue the
    truth's alone.
    """
    pictures = []
    for asset, true in zip(seen.silhouettes[:VIEWS_PER_SET], true_silhouettes(truth), strict=False):
        picture = np.full((*asset.shape, 4), 255, np.uint8)
        for where, colour in ((asset & ~true, _ONLY_ASSET), (true & ~asset, _ONLY_TRUTH), (asset & true, _BOTH)):
            picture[where, :3] = colour
        pictures.append(picture)
    return pictures


def keep_ring(record: Record, folder: str, uid: str, ring: Float32) -> None:
    """Write a ring [f, h, w, 3] in [0, 1] where a record has its pictures."""
    rgb = np.rint(ring * 255).astype(np.uint8)
    keep_pictures(record, folder, uid, list(np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1)))


def keep_pictures(record: Record, folder: str, uid: str, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """The same of pictures [h, w, 4]."""
    path = record.picture(folder, uid)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file_atomic(path, strip(list(pictures)))
