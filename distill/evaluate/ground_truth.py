"""Align an asset with its object, and read the object's true mesh.

The alignment is known, not searched for (no ICP). The object's world is Blender's; the object's front faces -y. The
world of a field has the same vertical axis, and differs in two ways:

  azimuth   with relative camera labels the reference image is at azimuth 0, so the field is turned about z: the point x
            of the object is the point R_z(a) x of the field, where `a` is the azimuth of the reference view. With
            absolute labels azimuth 0 is the object's front, whatever the image shows, and a is 0;
  scale     a model draws the object as large in the frame as in its training renders. The frames of distillation reach
            `CameraSettings.half_frame` from center to edge (world units at the origin's depth; the middle of the range
            counts, as in `reference_loss`), those of the renders distance * tan(fov / 2). The scale is their ratio.

Nothing else is adjusted: an object that was built too low, too small or turned is scored as it is.

Axis letters: `f` views, `n` points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import trimesh
from numpy.typing import NDArray

from dataset.camera import fov_deg
from dataset.errors import UserError
from dataset.format.schema import View
from dataset.reading.rendered_object import RenderedObject
from distill.sds.schedule import CameraSettings

_TOLERANCE: Final = 0.03  # of a true mesh's size and center after normalization, in longest sides


@dataclass(frozen=True)
class Alignment:
    """The point x of the field is scale * R_z(azimuth) x of the object."""

    azimuth_deg: float
    scale: float

    @property
    def rotation(self) -> NDArray[np.float64]:
        """R_z [3, 3]."""
        angle = np.deg2rad(self.azimuth_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def to_object(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform points [n, 3] from the field's world to the object's."""
        moved: NDArray[np.float64] = self.scale * (points @ self.rotation.T)
        return moved

    def to_field(self, c2w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform cameras [f, 4, 4] from the object's world to the field's, where they see the same image."""
        moved = np.array(c2w, np.float64)
        moved[:, :3, :] = self.rotation.T @ moved[:, :3, :]
        moved[:, :3, 3] /= self.scale
        return moved


def align(view: View, resolution: int, cameras: CameraSettings, *, absolute: bool) -> Alignment:
    """Return how a field that was distilled from a view lies in the object's world.

    Args:
        view: The camera of the view.
        resolution: The size of its image in pixels.
        cameras: The camera settings of the distillation.
        absolute: Whether the model's camera labels are absolute.
    """
    rendered = view.distance * np.tan(np.deg2rad(fov_deg(view.K, resolution)) / 2)
    return Alignment(0.0 if absolute else view.azimuth_deg, float(rendered / (sum(cameras.half_frame) / 2)))


def read_mesh(path: Path) -> trimesh.Trimesh:
    """Read the triangles of a GLB in Blender's axes (z up): all its parts, placed by its nodes.

    Raises UserError, naming the file, when it is missing, cannot be read, or has no triangle with an area.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; a GLB is expected there")
    try:
        mesh: Any = trimesh.load_scene(path, file_type="glb").to_mesh()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a readable GLB ({type(error).__name__}: {error}); make it again") from error
    if not len(mesh.faces):
        raise UserError(f"{path}: an empty mesh without triangles; there is nothing to measure")
    x, y, z = np.asarray(mesh.vertices, np.float64).T
    vertices = np.stack([x, -z, y], -1)
    if not np.isfinite(vertices).all():
        raise UserError(f"{path}: has vertices that are NaN or infinite; make it again")
    turned = trimesh.Trimesh(vertices, np.asarray(mesh.faces), process=False)
    if not float(turned.area) > 0:
        raise UserError(f"{path}: an empty mesh, whose triangles have no area; there is nothing to measure")
    return turned


def read_true_mesh(path: Path, truth: RenderedObject) -> trimesh.Trimesh:
    """Read an object's own GLB and normalize it as it was for its renders.

    Raises UserError when it does not fill the box that the renders' normalization implies: it is another file, or one
    that is rendered differently from what it stores (animated, or with hidden parts).
    """
    mesh = read_mesh(path)
    normalization = truth.normalization
    mesh.apply_transform(_similarity(normalization.scale, normalization.scale * np.array(normalization.offset)))
    low, high = mesh.bounds
    size, center = float((high - low).max()), float(np.abs(low + high).max() / 2)
    expected = 1.0 if normalization.mode == "longest" else size
    if abs(size - expected) > _TOLERANCE or center > _TOLERANCE:
        raise UserError(
            f"{path}: is not the mesh that {truth.uid} was rendered from: normalized as in its renders, its longest "
            f"side is {size:.3g} and its center is off by {center:.3g}; give the file that was rendered, or remove it"
        )
    return mesh


def _similarity(scale: float, offset: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = offset
    return matrix
