"""Align an asset with its object, and read the object's true mesh.

The alignment follows from the known camera of the image that the asset was distilled from, without a search (no ICP).
The object's world is Blender's: z is up, and the object's front faces -y. The field's world has the same vertical axis
and differs in two ways:

  azimuth   With relative camera labels the reference image is at azimuth 0, so the field is rotated about z: the point
            x of the field corresponds to the point R_z(a) x of the object, where `a` is the azimuth of the reference
            view. With absolute labels, azimuth 0 is always the object's front, so `a` is 0.
  scale     A model generates images in which the object fills the same fraction of the image as in the training
            renders. In the plane through the origin, half the image width is distance * tan(fov / 2) world units in the
            training renders. In the distillation, this length is the middle of the range `CameraSettings.half_frame`,
            as in `reference_loss`. The scale is the length in the renders divided by the length in the distillation.

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
    """The transform x -> scale * R_z(azimuth_deg) x from world points of a field to world points of its object."""

    azimuth_deg: float
    scale: float

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Rotation matrix [3, 3] about the vertical axis by `azimuth_deg`."""
        angle = np.deg2rad(self.azimuth_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def to_object(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform points from the world of the field to the world of the object.

        Args:
            points: Points [n, 3] in the world of the field.

        Returns:
            Points [n, 3] in the world of the object.
        """
        moved: NDArray[np.float64] = self.scale * (points @ self.rotation.T)
        return moved

    def to_field(self, c2w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform cameras from the world of the object to the world of the field.

        Args:
            c2w: Camera-to-world matrices [f, 4, 4] of f cameras in the world of the object.

        Returns:
            Camera-to-world matrices [f, 4, 4] in the world of the field. From these cameras, a perfect field gives the
            same images as the object gives from `c2w`.
        """
        moved = np.array(c2w, np.float64)
        moved[:, :3, :] = self.rotation.T @ moved[:, :3, :]
        moved[:, :3, 3] /= self.scale
        return moved


def align(view: View, resolution: int, cameras: CameraSettings, *, absolute: bool) -> Alignment:
    """Return the alignment of a field with its object.

    Args:
        view: Camera of the object's view from which the field was distilled.
        resolution: Edge in pixels of the square image of this view. The intrinsics in `view` are in pixels of this
            image.
        cameras: Camera settings of the distillation.
        absolute: True if the model's camera labels are absolute (azimuth 0 is the object's front), False if they are
            relative to the reference view.
    """
    rendered = view.distance * np.tan(np.deg2rad(fov_deg(view.K, resolution)) / 2)
    return Alignment(0.0 if absolute else view.azimuth_deg, float(rendered / (sum(cameras.half_frame) / 2)))


def read_mesh(path: Path) -> trimesh.Trimesh:
    """Read the triangles of all parts of a GLB file as one mesh, in Blender's axes (z up).

    The transforms of the nodes in the GLB file are applied to the parts.

    Raises:
        UserError: the file is missing, cannot be read, has a vertex that is not finite, or has no triangle of positive
            area.
    """
    if not path.is_file():
        raise UserError(f"the mesh file {path} does not exist; write a GLB file to this path")
    try:
        mesh: Any = trimesh.load_scene(path, file_type="glb").to_mesh()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} is not a readable GLB ({type(error).__name__}: {error}); export the mesh again"
        ) from error
    if not len(mesh.faces):
        raise UserError(f"the mesh in {path} has no triangles, so its shape cannot be measured; export the mesh again")
    x, y, z = np.asarray(mesh.vertices, np.float64).T
    vertices = np.stack([x, -z, y], -1)
    if not np.isfinite(vertices).all():
        raise UserError(f"the mesh in {path} has vertices with NaN or infinite coordinates; export the mesh again")
    turned = trimesh.Trimesh(vertices, np.asarray(mesh.faces), process=False)
    if not float(turned.area) > 0:
        raise UserError(
            f"the mesh in {path} has only triangles of zero area, so its shape cannot be measured; export the mesh "
            "again"
        )
    return turned


def read_true_mesh(path: Path, truth: RenderedObject) -> trimesh.Trimesh:
    """Read the file that an object was rendered from, scaled and centered as it was for the renders.

    Args:
        path: The GLB file of the object.
        truth: The rendered object, with the scale and the offset that were used for the renders.

    Raises:
        UserError: the mesh does not have the size and the center of the rendered object. Either the file is not the one
            that was rendered, or the renders show other geometry than the file stores (because of animation or hidden
            parts).
    """
    mesh = read_mesh(path)
    normalization = truth.normalization
    mesh.apply_transform(_similarity(normalization.scale, normalization.scale * np.array(normalization.offset)))
    low, high = mesh.bounds
    size, center = float((high - low).max()), float(np.abs(low + high).max() / 2)
    expected = 1.0 if normalization.mode == "longest" else size
    if abs(size - expected) > _TOLERANCE or center > _TOLERANCE:
        raise UserError(
            f"{path} is not the mesh that {truth.uid} was rendered from: scaled and centered as for the renders, its "
            f"longest side is {size:.3g} instead of {expected:.3g}, and its center is {center:.3g} away from the "
            f"origin; replace {path.name} with the file that was rendered, or remove {path.name}"
        )
    return mesh


def _similarity(scale: float, offset: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = offset
    return matrix
