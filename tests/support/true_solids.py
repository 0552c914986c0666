"""The boxes of `make_shards` as scenes, meshes and finished distillations: perfect assets."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor

from dataset.format.schema import ALL_VIEWS
from dataset.images.prepare import prepare_image
from dataset.reading.rendered_object import view_number
from dataset.reading.shard_set import ShardSet
from distill.mesh.formats import to_y_up
from distill.nerf.field import Field, Samples
from distill.sds.schedule import PRESETS, RandomPurpose, torch_stream
from train.evaluate.selection import spread_evenly

SETTINGS = replace(PRESETS["tiny"], march=replace(PRESETS["tiny"].march, samples_per_ray=400))


@dataclass(frozen=True)
class BoxScene:
    """A `distill.nerf.field.Scene`: a hard box, its six faces colored. `turn` [3, 3] and `scale` lead from its world
    to the object's.
    """

    half_size: Tensor  # [3]
    palette: Tensor  # [6, 3], row 2 * axis + (1 on the positive side)
    turn: Tensor
    scale: float
    radius: float = 0.95

    def _own(self, x: Tensor) -> Tensor:
        return self.scale * (x @ self.turn.T)

    def density(self, x: Tensor) -> Tensor:
        return 500.0 * (self._own(x).abs() < self.half_size).all(-1)

    def query(self, x: Tensor) -> Samples:
        own = self._own(x)
        axis = (self.half_size - own.abs()).argmin(-1)
        positive = own.gather(1, axis[:, None])[:, 0] > 0
        return Samples(self.density(x), self.palette[2 * axis + positive], torch.zeros_like(x))


def box_of(number: int, azimuth_deg: float = 0.0, scale: float = 1.0, seed: int = 0) -> BoxScene:
    """Object `number` (an even one) of a set, as a field would hold it whose alignment is (azimuth_deg, scale)."""
    rng = np.random.default_rng([seed, number])
    half_size, palette = rng.uniform(0.2, 0.5, 3), rng.uniform(0.1, 0.9, (6, 3))
    half_size *= 0.5 / half_size.max()
    angle = np.deg2rad(azimuth_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return BoxScene(*(torch.tensor(array, dtype=torch.float32) for array in (half_size, palette, turn)), scale)


def box_mesh(number: int, azimuth_deg: float = 0.0, scale: float = 1.0) -> trimesh.Trimesh:
    """The same as a mesh, in the field's world (z up)."""
    box = box_of(number, azimuth_deg, scale)
    mesh = trimesh.creation.box(2 * box.half_size.numpy())
    mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.deg2rad(azimuth_deg), (0, 0, 1)))
    mesh.apply_scale(1 / scale)
    return mesh


def write_glb(mesh: trimesh.Trimesh, path: Path) -> Path:
    """A mesh with z up as a GLB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = trimesh.Trimesh(to_y_up(np.asarray(mesh.vertices)), mesh.faces, process=False)
    path.write_bytes(trimesh.Scene(turned).export(file_type="glb"))
    return path


def finished(folder: Path, shards: Path, uid: str, view: str, mesh: trimesh.Trimesh, **config: Any) -> Path:
    """A finished distillation of a view: its field is the blob that every field begins as, its mesh is given."""
    folder.mkdir(parents=True)
    whole = ShardSet(shards)
    place = next(place for place in spread_evenly(whole, len(whole)) if whole.uid(*place) == uid)
    picture = whole.views(*place, [ALL_VIEWS[view_number(view)]])[0]
    Image.fromarray(prepare_image(Image.fromarray(picture), 32).rgba).save(folder / "input.png")
    elevation_deg = float(whole.angles_deg(*place, [ALL_VIEWS[view_number(view)]])[0, 0])
    settings = asdict(replace(SETTINGS, march=PRESETS["tiny"].march))
    found = {"model": "none", "elevation_deg": elevation_deg, "settings": settings, "mesh": {"faces": len(mesh.faces)}}
    (folder / "config.json").write_text(json.dumps({**found, **config}))
    Field(SETTINGS.nerf, torch_stream(0, 0, RandomPurpose.FIELD)).save(folder / "field.safetensors")
    write_glb(mesh, folder / "mesh.glb")
    return folder
