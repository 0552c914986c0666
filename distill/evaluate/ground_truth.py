"""Align an asset with its object, and read the object's true mesh.

The alignment follows from the known camera of the image, without a search (no ICP). The object's world is Blender's: z
is up, and the object's front faces -y. The field's world has the same vertical axis and differs in two ways:

  azimuth   With relative camera labels the reference image is at azimuth 0, so the field is rotated about z: the point
            x of the field corresponds to the point R_z(a) x of the object, where `a` is the azimuth of the reference
            view. With absolute labels, azimuth 0 is always the object's front, and a is 0.
  scale     A model draws an object as large in the frame as in its training renders. At the depth of the
            origin, half a frame of the renders is distance * tan(fov / 2) world units; half a frame of the distillation
            is the middle of the range `CameraSettings.half_frame`, as in `reference_loss`. The scale is the former
            divided by the latter.

Nothing else is adjusted: an asset that is too low, too small or rotated scores worse.

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

_TOLERANCE: Final = 0.03  # allowed error of a true mesh's normalized size and center, in longest sides


@dataclass(frozen=True)
class Alignment:
    """The transform x -> scale * R_z(azimuth) x from the field's world to the object's."""

    azimuth_deg: float
    scale: float

    @property
    def rotation(self) -> NDArray[np.float64]:
        """The rotation matrix R_z(azimuth) [3, 3]."""
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
    """Align a field with its object, given the view of the object that the field was distilled from.

    Args:
        view: The camera of the view.
        resolution: The edge of the view's image in pixels.
        cameras: The camera settings of the distillation.
        absolute: Whether the model's camera labels are absolute.
    """
    rendered = view.distance * np.tan(np.deg2rad(fov_deg(view.K, resolution)) / 2)
    return Alignment(0.0 if absolute else view.azimuth_deg, float(rendered / (sum(cameras.half_frame) / 2)))


def read_mesh(path: Path) -> trimesh.Trimesh:
    """Read the triangles of all parts of a GLB, placed by its nodes, in Blender's axes (z up).

    Raises UserError if the file is missing, cannot be read, or has no triangle of positive area.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; write the GLB to this path")
    try:
        mesh: Any = trimesh.load_scene(path, file_type="glb").to_mesh()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is not a readable GLB ({type(error).__name__}: {error}); export it again") from error
    if not len(mesh.faces):
        raise UserError(f"{path} has no triangles: nothing to measure; give a file with a mesh")
    x, y, z = np.asarray(mesh.vertices, np.float64).T
    vertices = np.stack([x, -z, y], -1)
    if not np.isfinite(vertices).all():
        raise UserError(f"{path} has NaN or infinite vertices; export it again")
    turned = trimesh.Trimesh(vertices, np.asarray(mesh.faces), process=False)
    if not float(turned.area) > 0:
        raise UserError(f"{path} has only triangles of zero area: nothing to measure; give a file with a mesh")
    return turned


def read_true_mesh(path: Path, truth: RenderedObject) -> trimesh.Trimesh:
    """Read an object's true mesh and normalize it as for its renders.

    Raises UserError if the normalized mesh does not fill the box that a rendered object fills: the file is not the one
    that was rendered, or the renders show other geometry than the file stores (because of animation or hidden parts).
    """
    mesh = read_mesh(path)
    normalization = truth.normalization
    mesh.apply_transform(_similarity(normalization.scale, normalization.scale * np.array(normalization.offset)))
    low, high = mesh.bounds
    size, center = float((high - low).max()), float(np.abs(low + high).max() / 2)
    expected = 1.0 if normalization.mode == "longest" else size
    if abs(size - expected) > _TOLERANCE or center > _TOLERANCE:
        raise UserError(
            f"{path} is not the mesh that {truth.uid} was rendered from: normalized as for the renders, its longest "
            f"side is {size:.3g} and its center is off by {center:.3g}; give the file that was rendered, or remove it"
        )
    return mesh


def _similarity(scale: float, offset: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = offset
    return matrix
