"""A field as a textured mesh: density -> marching cubes -> clean -> simplify -> UV -> baked albedo -> GLB.

The geometry stays in the world's axes (Blender, z up) until the file is written: glTF is y up, so (x, y, z) is stored
as (x, z, -y) and an object's front, which faces -y here, faces +z in a viewer. Albedo is display-referred (sRGB)
colour, as in the pictures that trained it, and glTF's base colour texture is sRGB too: the numbers pass unchanged.

Letters: `v` vertices, `s` vertices split at texture seams, `m` faces, `n` points.
"""

import io
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
import trimesh
import xatlas
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from dataset.errors import UserError
from dataset.shards import write_bytes_atomic
from distill.surface import (
    Float,
    Int,
    Surface,
    clean,
    extract,
    is_watertight,
    keep_components,
    simplify,
    vertex_normals,
)
from distill.texture import bake

PointFunction = Callable[[Tensor], Tensor]  # points [n, 3] -> density [n] or albedo [n, 3]

logger = logging.getLogger(__name__)

ROUGHNESS: Final = 0.9
_POINTS_PER_CALL: Final = 1 << 17
_NO_ATLAS: Final = 2**32 - 1  # xatlas's mark of a vertex without a chart
PADDING_TEXELS: Final = 2  # between charts
FACE_LIMIT: Final = 200_000  # unwrapping takes minutes beyond it
EMPTY_OPACITY: Final = 0.05  # a field that stops less light than this along its densest diameter shows nothing


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"mesh setting {name} is {value}; choose {low} to {high}")


@dataclass(frozen=True)
class MeshSettings:
    """How a field becomes a mesh."""

    resolution: int = 128
    """Density samples along an edge of the cube [-radius, radius]^3."""
    threshold: float = 10.0
    """Density at the surface, per unit of length."""
    threshold_fraction: float = 0.25
    """The surface lies at this fraction of the highest density at most: a thin field lowers it, announced."""
    floater_fraction: float = 0.05
    """Components with less than this fraction of the largest one's volume are removed."""
    faces: int = 20_000
    """Face budget after simplification."""
    texture_size: int = 1024
    """Edge of the square texture in texels."""

    def __post_init__(self) -> None:
        _in_range("resolution", self.resolution, 8, 1024)
        _in_range("threshold", self.threshold, 1e-6, 1e6)
        _in_range("threshold_fraction", self.threshold_fraction, 0.01, 0.99)
        _in_range("floater_fraction", self.floater_fraction, 0.0, 1.0)
        _in_range("faces", self.faces, 100, FACE_LIMIT)
        _in_range("texture_size", self.texture_size, 16, 8192)


PRESETS: Final[Mapping[Literal["paper", "tiny"], MeshSettings]] = {
    "paper": MeshSettings(resolution=256, faces=50_000, texture_size=2048),
    "tiny": MeshSettings(resolution=96, faces=10_000, texture_size=512),
}


@dataclass(frozen=True)
class MeshReport:
    """What was written. `vertices` counts welded vertices; the file splits them at texture seams."""

    faces: int
    vertices: int
    watertight: bool
    components_removed: int
    texture_size: int
    threshold: float
    seconds: float


def export_mesh(
    density: PointFunction,
    albedo: PointFunction,
    radius: float,
    out: Path,
    settings: MeshSettings,
    *,
    device: torch.device | str = "cpu",
) -> MeshReport:
    """Write `out` (GLB) from a field inside [-radius, radius]^3 whose functions take points on `device`.

    An empty or broken field raises UserError; the file appears whole or not at all, the same bytes for the same field.
    """
    started = time.perf_counter()
    grid = sample_density(density, radius, settings.resolution, device)
    threshold = surface_threshold(grid, radius, settings)
    surface, removed = keep_components(extract(grid, threshold, radius), settings.floater_fraction)
    surface = clean(simplify(surface, settings.faces))
    data = glb(surface, albedo, settings.texture_size, device)
    write_bytes_atomic(LocalFileSystem(), str(out.absolute()), data)
    return MeshReport(
        faces=len(surface.faces),
        vertices=len(surface.vertices),
        watertight=is_watertight(surface),
        components_removed=removed,
        texture_size=settings.texture_size,
        threshold=threshold,
        seconds=time.perf_counter() - started,
    )


def sample_density(
    density: PointFunction, radius: float, resolution: int, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Density [resolution]^3, indexed [x, y, z], at the nodes of a grid whose outermost ones lie at +-radius."""
    axis = torch.linspace(-radius, radius, resolution)
    plane = torch.cartesian_prod(axis, axis)  # [(y z), 2]
    slabs = [torch.cat([x.expand(len(plane), 1), plane], -1) for x in axis]
    group = max(1, _POINTS_PER_CALL // len(plane))
    parts = [
        evaluate(density, torch.cat(slabs[first : first + group]), device) for first in range(0, resolution, group)
    ]
    return np.concatenate(parts).reshape(resolution, resolution, resolution)


def evaluate(function: PointFunction, points: Tensor, device: torch.device | str) -> NDArray[np.float32]:
    """`function` at `points` [n, 3], a bounded number at a time; float32 on the host. NaN raises UserError."""
    with torch.no_grad():
        parts = [function(part.to(device)).float().cpu() for part in torch.split(points.float(), _POINTS_PER_CALL)]
    values: NDArray[np.float32] = torch.cat(parts).numpy()
    if not np.isfinite(values).all():
        raise UserError("the field holds NaN or infinity; distill again with a lower learning rate")
    return values


def surface_threshold(grid: NDArray[np.float32], radius: float, settings: MeshSettings) -> float:
    """The density that counts as the surface: the setting, or less where the field is thin (announced)."""
    highest = float(grid.max())
    if 1.0 - np.exp(-highest * 2 * radius) < EMPTY_OPACITY:
        raise UserError(
            f"nothing was generated: the field is empty (its highest density is {highest:.3g}), so there is no mesh; "
            "try another --seed, more --steps, or a picture with one object on a plain or transparent background"
        )
    lowered = settings.threshold_fraction * highest
    if lowered < settings.threshold:
        logger.warning("the field is thin: surface at density %.3g instead of %.3g", lowered, settings.threshold)
    return min(settings.threshold, lowered)


@dataclass(frozen=True)
class Unwrapped:
    """A surface cut into UV charts. Corners of faces without area lie in no chart, and take a neighbour's UV."""

    source: Int  # [s] the surface's vertex that each split vertex copies
    faces: Int  # [m, 3] over split vertices, in the surface's order
    uv: Float  # [s, 2], v up
    charted: NDArray[np.bool_]  # [m] faces that lie in a chart


def unwrap(surface: Surface, texture_size: int) -> Unwrapped:
    """UV charts packed into a square texture."""
    atlas = xatlas.Atlas()
    # Its tolerances are absolute: at a mean face of 100 square units it does not take small faces for empty ones.
    atlas.add_mesh(_with_mean_face(surface, 100.0).astype(np.float32), surface.faces.astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = texture_size, PADDING_TEXELS, True
    atlas.generate(xatlas.ChartOptions(), options)
    source, faces, uv = (np.asarray(part) for part in atlas[0])
    charted = atlas.get_mesh_vertex_assignment(0)[0] != _NO_ATLAS
    best = np.full(len(surface.vertices), -1)
    best[source[charted]] = np.flatnonzero(charted)
    uv = np.where(charted[:, None], uv, uv[best[source]])
    return Unwrapped(source.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64), charted[faces].all(1))


def _with_mean_face(surface: Surface, area: float) -> Float:
    """The vertices [v, 3] scaled so that the mean area of a face is `area`."""
    corners = surface.vertices[surface.faces]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    scaled: Float = surface.vertices * np.sqrt(2 * area / doubled.mean())
    return scaled


def to_gltf_axes(vectors: Float) -> Float:
    """Blender's axes (z up) -> glTF's (y up): (x, y, z) becomes (x, z, -y), a rotation."""
    return np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], -1)


def glb(surface: Surface, albedo: PointFunction, texture_size: int, device: torch.device | str = "cpu") -> bytes:
    """The bytes of a GLB: one mesh, smooth normals, one PBR material with the baked albedo as an embedded PNG."""
    charts = unwrap(surface, texture_size)
    texture = bake(
        surface.vertices[charts.source],
        charts.uv,
        charts.faces[charts.charted],
        texture_size,
        lambda points: evaluate(albedo, torch.from_numpy(points), device),
    )
    material = PBRMaterial(  # type: ignore[no-untyped-call]
        name="baked",
        baseColorTexture=_png(texture),
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        doubleSided=False,
    )
    mesh = trimesh.Trimesh(
        vertices=to_gltf_axes(surface.vertices)[charts.source],
        faces=charts.faces,
        vertex_normals=to_gltf_axes(vertex_normals(surface))[charts.source],
        visual=TextureVisuals(uv=charts.uv, material=material),  # type: ignore[no-untyped-call]
        process=False,
    )
    scene = trimesh.Scene(mesh)
    data: bytes = scene.export(file_type="glb", include_normals=True)  # type: ignore[no-untyped-call]
    return data


def _png(texture: NDArray[np.uint8]) -> Image.Image:
    """The texture as a picture that knows it is a PNG, the format glTF embeds without loss."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, format="PNG")
    return Image.open(buffer)
