"""What an asset is measured against: an object of a shard set, its true mesh where there is one, and how they align.

Alignment is known, not searched for (no ICP). The object's world is Blender's, its front faces -y. A field's world has
the same vertical, and two things differ:

  azimuth   a model with relative camera labels is told that the reference picture was taken from azimuth 0, so the
            field is turned about z: a point x of it is R_z(a) x of the object, `a` the azimuth of the reference view.
            With absolute labels azimuth 0 is the object's front, whatever the picture shows, and a is 0;
  scale     a model draws the object as large a part of each frame as in its training renders, and distillation's
            frames are `CameraSettings.half_frame` from middle to edge (world units at the origin's depth; the middle
            of the range counts, as in `reference`), the renders' are distance * tan(fov / 2): their ratio.

Nothing else is adjusted: an object that was built too low, too small or turned scores as it is.

Letters: `f` views, `n` points, `h w` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import trimesh
from numpy.typing import NDArray

from dataset.camera import fov_deg
from dataset.errors import UserError
from dataset.format.schema import Normalization, View
from dataset.images.prepare import composite_white
from dataset.reading.shard_set import ShardSet
from distill.sds.schedule import CameraSettings
from train.data.sampling import ViewKey
from train.evaluate.novel_views import REFERENCES, RING

Float = NDArray[np.float64]
Place = tuple[int, int]  # shard, sample
VIEWS: Final[list[ViewKey]] = [*RING, *REFERENCES]  # of an object, in the order of all arrays here
_OUTSIDE: Final = 0.03  # how far from its normalised size a true mesh may be, in its longest sides


@dataclass(frozen=True)
class Alignment:
    """A point x of the field is scale * R_z(azimuth) x of the object."""

    azimuth_deg: float
    scale: float

    @property
    def rotation(self) -> Float:
        """R_z [3, 3]."""
        angle = np.deg2rad(self.azimuth_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def to_object(self, points: Float) -> Float:
        """Points [n, 3] of the field's world in the object's."""
        moved: Float = self.scale * (points @ self.rotation.T)
        return moved

    def to_field(self, c2w: Float) -> Float:
        """Cameras [f, 4, 4] of the object's world in the field's: they see the same picture there."""
        moved = np.array(c2w, np.float64)
        moved[:, :3, :] = self.rotation.T @ moved[:, :3, :]
        moved[:, :3, 3] /= self.scale
        return moved


def align(view: View, resolution: int, cameras: CameraSettings, *, absolute: bool) -> Alignment:
    """How a field that was distilled from this view lies in the object's world."""
    rendered = view.distance * np.tan(np.deg2rad(fov_deg(view.K, resolution)) / 2)
    return Alignment(0.0 if absolute else view.azimuth_deg, float(rendered / (sum(cameras.half_frame) / 2)))


@dataclass(frozen=True)
class TrueObject:
    """An object as it was rendered, in all VIEWS."""

    uid: str
    pictures: NDArray[np.uint8]  # [f, h, w, 4]
    views: tuple[View, ...]
    normalization: Normalization

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.pictures.shape[1]

    @cached_property
    def on_white(self) -> NDArray[np.float32]:
        """[f, h, w, 3] in [0, 1]."""
        return composite_white(self.pictures)

    @property
    def c2w(self) -> Float:
        """[f, 4, 4]."""
        return np.array([view.c2w for view in self.views])

    @property
    def K(self) -> Float:
        """[f, 3, 3]."""
        return np.array([view.K for view in self.views])

    @property
    def fov_deg(self) -> Float:
        """[f]."""
        return np.array([fov_deg(view.K, self.size) for view in self.views])


def read_object(shards: ShardSet, place: Place) -> TrueObject:
    """An object of the set."""
    meta = shards.meta(*place)
    views = tuple(meta.views[view_set][index] for view_set, index in VIEWS)
    return TrueObject(meta.uid, shards.views(*place, VIEWS), views, meta.normalization)


def view_number(name: str) -> int:
    """`fixed_03` or `random_12`, as a shard's members are named, as an index into VIEWS. Raises UserError."""
    names = [view_name(number) for number in range(len(VIEWS))]
    if name not in names:
        raise UserError(f"there is no view {name!r}; views are fixed_00 to fixed_15 and random_00 to random_15")
    return names.index(name)


def view_name(number: int) -> str:
    """The inverse of `view_number`."""
    view_set, index = VIEWS[number]
    return f"{view_set}_{index:02d}"


def read_mesh(path: Path) -> trimesh.Trimesh:
    """The triangles of a GLB in Blender's axes (z up): all its parts, where its nodes put them.

    Raises UserError, which names the file, where there is none, it cannot be read, or it holds no triangle.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; a GLB is expected there")
    try:
        mesh: Any = trimesh.load_scene(path, file_type="glb").to_mesh()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a readable GLB ({type(error).__name__}: {error}); make it again") from error
    if not len(mesh.faces):
        raise UserError(f"{path}: an empty mesh, without a single triangle; there is nothing to measure")
    x, y, z = np.asarray(mesh.vertices, np.float64).T
    vertices = np.stack([x, -z, y], -1)
    if not np.isfinite(vertices).all():
        raise UserError(f"{path}: has vertices that are NaN or infinite; make it again")
    turned = trimesh.Trimesh(vertices, np.asarray(mesh.faces), process=False)
    if not float(turned.area) > 0:
        raise UserError(f"{path}: an empty mesh, whose triangles have no area; there is nothing to measure")
    return turned


def read_true_mesh(path: Path, truth: TrueObject) -> trimesh.Trimesh:
    """The object's own GLB, normalised as it was for its renders.

    Raises UserError where it does not fill the box that the renders' normalisation says: another file, or one that is
    shown otherwise than it is stored (animated, or with hidden parts).
    """
    mesh = read_mesh(path)
    how = truth.normalization
    mesh.apply_transform(_similarity(how.scale, how.scale * np.array(how.offset)))
    low, high = mesh.bounds
    size, middle = float((high - low).max()), float(np.abs(low + high).max() / 2)
    expected = 1.0 if how.mode == "longest" else size
    if abs(size - expected) > _OUTSIDE or middle > _OUTSIDE:
        raise UserError(
            f"{path}: is not the mesh that {truth.uid} was rendered from: normalised as its renders were, its longest "
            f"side is {size:.3g} and its middle {middle:.3g} off; give the file that was rendered, or remove this one"
        )
    return mesh


def _similarity(scale: float, offset: Sequence[float] | Float) -> Float:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = offset
    return matrix
