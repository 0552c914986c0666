"""Export a field as a textured mesh: marching cubes, cleaning, simplification, UV unwrapping, albedo baking, files.

The geometry stays in world axes (Blender, z up) until a file is written (`distill.mesh.formats`). Albedo is
display-referred sRGB, as in the training images, and is written to textures without conversion.

Axis letters: `v` vertices, `m` faces, `n` points.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from dataset.io.files import write_file_atomic
from distill.mesh import formats
from distill.mesh.bake import ColorFunction, as_bytes, bake
from distill.mesh.formats import TexturedMesh
from distill.mesh.isosurface import (
    TriangleMesh,
    clean,
    extract,
    is_watertight,
    keep_components,
    random_points,
    simplify,
    vertex_normals,
)
from distill.mesh.surface_color import PointFunction, SurfaceColor, color_along_normals
from distill.mesh.usdz import usdz
from distill.mesh.uv_unwrap import UnwrapMethod, unwrap

Format = Literal["glb", "obj", "ply", "points", "usdz"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MAIN_FILES: Final[Mapping[Format, str]] = {
    **{"glb": "mesh.glb", "obj": "mesh.obj", "ply": "mesh.ply", "points": "mesh-points.ply", "usdz": "mesh.usdz"}
}
"""The file of each format in a run folder; an OBJ file has its material and texture beside it."""

logger = logging.getLogger(__name__)

_POINTS_PER_CALL: Final = 1 << 17
_ROWS_PER_CALL: Final = 1 << 13  # surface points per call; each needs the albedo of a dozen points
_REACH_CELLS: Final = 2.0  # largest distance between mesh and surface of the field, in cells of the density grid
_SIMPLIFICATIONS: Final = 4  # maximum number of rounds; cleaning makes more edges collapsible
FACE_LIMIT: Final = 200_000  # with more faces, unwrapping takes minutes
FEWEST_FACES: Final = 100
TEXTURE_SIZES: Final = (16, 8192)  # smallest and largest edge in texels
EMPTY_OPACITY: Final = 0.05  # of a diameter at the highest density; a field with less is empty


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"the mesh setting {name} is {value}; choose a value from {low} to {high}")


@dataclass(frozen=True)
class MeshSettings:
    """Settings with which a field is converted to a mesh."""

    resolution: int = 128
    """Density samples per edge of the cube [-radius, radius]^3."""
    threshold: float = 25.0
    """Density at the surface, per world unit. The default is that of the released configuration."""
    threshold_fraction: float = 0.25
    """Upper limit of the surface density, as a fraction of the highest density. Lowers `threshold` for thin fields."""
    floater_fraction: float = 0.05
    """Components with a smaller volume than this fraction of the largest component's are removed."""
    faces: int = 20_000
    """Face budget after simplification."""
    texture_size: int = 1024
    """Edge of the square texture in texels."""
    unwrap_seconds: float = 300.0
    """Time limit of xatlas. If it is exceeded, each face gets its own triangle of the texture, with a warning."""
    points: int = 100_000
    """Number of points of the format `points`."""

    def __post_init__(self) -> None:
        _in_range("resolution", self.resolution, 8, 1024)
        _in_range("threshold", self.threshold, 1e-6, 1e6)
        _in_range("threshold_fraction", self.threshold_fraction, 0.01, 0.99)
        _in_range("floater_fraction", self.floater_fraction, 0.0, 1.0)
        _in_range("faces", self.faces, FEWEST_FACES, FACE_LIMIT)
        _in_range("texture_size", self.texture_size, *TEXTURE_SIZES)
        _in_range("unwrap_seconds", self.unwrap_seconds, 0.0, 86_400.0)
        _in_range("points", self.points, 1, 10_000_000)


PRESETS: Final[Mapping[Literal["paper", "tiny"], MeshSettings]] = {
    "paper": MeshSettings(resolution=256, faces=50_000, texture_size=2048),
    # The fields of `tiny` are thinner; it keeps the threshold that its results were measured with.
    "tiny": MeshSettings(resolution=96, threshold=10.0, faces=10_000, texture_size=512),
}


@dataclass(frozen=True)
class MeshReport:
    """Statistics of an exported mesh.

    `vertices` counts a vertex at a texture seam once, although the GLB file stores it once per UV chart.
    """

    faces: int
    vertices: int
    watertight: bool
    components_removed: int
    texture_size: int  # 0 without a texture
    charts: UnwrapMethod | None
    threshold: float
    files: tuple[str, ...]
    seconds: float


def export_mesh(
    density: PointFunction,
    albedo: PointFunction,
    radius: float,
    out: Path,
    settings: MeshSettings,
    *,
    kinds: Sequence[Format] = ("glb",),
    device: torch.device | str = "cpu",
) -> MeshReport:
    """Export the field inside the cube [-radius, radius]^3 as a mesh.

    Files are written atomically. Repeated exports of a field on a CPU give the same files, unless the UV unwrapping
    times out.

    Args:
        density: Function that returns the density [n] at points [n, 3] on `device`.
        albedo: Function that returns the albedo [n, 3] at points [n, 3] on `device`.
        radius: Half the edge of the cube in world units.
        out: Path NAME.glb of the GLB file. Files of other formats are written beside it.
        settings: Settings of the mesh.
        kinds: Formats of the files to write. glb: NAME.glb. obj: NAME.obj, NAME.mtl and NAME.png. ply: NAME.ply, with a
            color per vertex. points: NAME-points.ply, a point cloud. usdz: NAME.usdz, textured.
        device: Device of the field.

    Raises:
        UserError: a format is unknown, or the field is empty or contains NaN or infinite values.
    """
    if unknown := sorted(set(kinds) - set(FORMATS)):
        raise UserError(f"the mesh format {', '.join(unknown)} is unknown; choose from {', '.join(FORMATS)}")
    started = time.perf_counter()
    grid = sample_density(density, radius, settings.resolution, device)
    threshold = surface_threshold(grid, radius, settings)
    surface, removed = surface_of(grid, threshold, radius, settings)
    reach = _REACH_CELLS * 2 * radius / (settings.resolution - 1)
    color = _color_of_rows(color_along_normals(density, albedo, reach), device)
    files: dict[str, bytes] = {}
    textured = None
    if {"glb", "obj", "usdz"} & set(kinds):
        textured = texture_of(surface, color, settings)
        files |= _textured_files(textured, out.stem, kinds)
    files |= _plain_files(surface, color, out.stem, kinds, settings.points)
    for name, data in files.items():
        write_file_atomic(out.with_name(name), data)
    return MeshReport(
        faces=len(surface.faces),
        vertices=len(surface.vertices),
        watertight=is_watertight(surface),
        components_removed=removed,
        texture_size=0 if textured is None else len(textured.texture),
        charts=None if textured is None else textured.charts.method,
        threshold=threshold,
        files=tuple(files),
        seconds=time.perf_counter() - started,
    )


def surface_of(
    grid: NDArray[np.float32], threshold: float, radius: float, settings: MeshSettings
) -> tuple[TriangleMesh, int]:
    """Extract the surface from a density grid as a closed manifold, without floaters, and simplify it.

    A warning is logged if the surface cannot be simplified to the face budget.

    Args:
        grid: Density at the r^3 nodes of the grid, [r, r, r].
        threshold: Density at the surface.
        radius: Half the edge of the grid in world units.
        settings: Settings of the mesh.

    Returns:
        The surface and the number of removed components.
    """
    surface, removed = keep_components(extract(grid, threshold, radius), settings.floater_fraction)
    for _ in range(_SIMPLIFICATIONS):
        surface = clean(simplify(surface, settings.faces))
        if len(surface.faces) <= settings.faces:
            break
    else:
        logger.warning(
            "the mesh has %d faces, more than the budget of %d: it cannot be simplified further and stay manifold",
            len(surface.faces),
            settings.faces,
        )
    surface, more_removed = keep_components(surface, settings.floater_fraction)  # parts cut off by simplification
    return surface, removed + more_removed


def texture_of(surface: TriangleMesh, color: ColorFunction, settings: MeshSettings) -> TexturedMesh:
    """Unwrap a mesh and bake its texture.

    Args:
        surface: The mesh.
        color: Function from positions and normals [n, 6] on the surface to colors [n, 3] in [0, 1].
        settings: Settings of the mesh.
    """
    charts = unwrap(surface, settings.texture_size, settings.unwrap_seconds)
    normals = vertex_normals(surface)
    rows = np.concatenate([surface.vertices, normals], 1)[charts.source]
    texture = bake(rows, charts.uv, charts.faces[charts.charted], charts.texture_size, color)
    return TexturedMesh(surface, normals, charts, texture)


def _textured_files(textured: TexturedMesh, stem: str, kinds: Sequence[Format]) -> dict[str, bytes]:
    files = {}
    if "glb" in kinds:
        files[f"{stem}.glb"] = formats.glb(textured)
    if "obj" in kinds:
        files[f"{stem}.png"] = formats.png(textured.texture)
        files[f"{stem}.mtl"] = formats.mtl(f"{stem}.png")
        files[f"{stem}.obj"] = formats.obj(textured, f"{stem}.mtl")
    if "usdz" in kinds:
        files[f"{stem}.usdz"] = usdz(textured)
    return files


def _plain_files(
    surface: TriangleMesh, color: ColorFunction, stem: str, kinds: Sequence[Format], points: int
) -> dict[str, bytes]:
    files = {}
    if "ply" in kinds:
        normals = vertex_normals(surface)
        colors = as_bytes(color(np.concatenate([surface.vertices, normals], 1)))
        files[f"{stem}.ply"] = formats.ply(surface, normals, colors)
    if "points" in kinds:
        positions, normals = random_points(surface, points, seed=0)
        colors = as_bytes(color(np.concatenate([positions, normals], 1)))
        files[f"{stem}-points.ply"] = formats.points_ply(positions, normals, colors)
    return files


def _color_of_rows(color: SurfaceColor, device: torch.device | str) -> ColorFunction:
    """Convert `color` to a function of rows [n, 6] in host memory, each a position and a normal."""
    return lambda rows: evaluate(
        lambda part: color(part[:, :3], part[:, 3:]), torch.from_numpy(rows), device, points_per_call=_ROWS_PER_CALL
    )


def sample_density(
    density: PointFunction, radius: float, resolution: int, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Evaluate a density function at the nodes of a grid.

    Args:
        density: Function that returns the density [n] at points [n, 3].
        radius: Half the edge of the grid in world units. The outermost nodes are at -radius and radius.
        resolution: Number r of nodes along each axis.
        device: Device of the field.

    Returns:
        Density [r, r, r], indexed by x, y and z.
    """
    axis = torch.linspace(-radius, radius, resolution)
    plane = torch.cartesian_prod(axis, axis)  # [(y z), 2]
    slabs = [torch.cat([x.expand(len(plane), 1), plane], -1) for x in axis]
    group = max(1, _POINTS_PER_CALL // len(plane))
    parts = [
        evaluate(density, torch.cat(slabs[first : first + group]), device) for first in range(0, resolution, group)
    ]
    return np.concatenate(parts).reshape(resolution, resolution, resolution)


def evaluate(
    function: PointFunction, points: Tensor, device: torch.device | str, points_per_call: int | None = None
) -> NDArray[np.float32]:
    """Evaluate a function at many points, in chunks of bounded size, without gradients.

    Args:
        function: Function that is called with each chunk of points, on `device`.
        points: All n points, each with c coordinates or other inputs of the function, [n, c]. They may be on any
            device.
        device: Device on which the function is evaluated.
        points_per_call: Maximum number of points in a chunk. None: 131,072.

    Returns:
        The values of the function at the n points, as float32 in host memory.

    Raises:
        UserError: a value is NaN or infinite.
    """
    with torch.no_grad():
        parts = [
            function(part.to(device)).float().cpu()
            for part in torch.split(points.float(), points_per_call or _POINTS_PER_CALL)
        ]
    values: NDArray[np.float32] = torch.cat(parts).numpy()
    if not np.isfinite(values).all():
        raise UserError(
            "the distilled field contains NaN or infinite values, so it has no surface; distill again with another "
            "--seed or a smaller --guidance-scale, and with another --out"
        )
    return values


def surface_threshold(grid: NDArray[np.float32], radius: float, settings: MeshSettings) -> float:
    """Return the density at which the surface of a field is extracted.

    This density is `settings.threshold`. For a thin field, which has low densities everywhere, it is lower, and a
    warning is logged.

    Args:
        grid: Density of the field at the r^3 nodes of a grid, [r, r, r].
        radius: Half the edge of the grid in world units.
        settings: Settings of the mesh.

    Raises:
        UserError: the field is empty.
    """
    highest = float(grid.max())
    if 1.0 - np.exp(-highest * 2 * radius) < EMPTY_OPACITY:
        raise UserError(
            f"nothing was generated: the field is empty (its highest density is {highest:.3g}), so it has no surface. "
            "Check in the previews whether an object was there in earlier steps; try another --seed, more --steps, "
            "no --guidance-scale (to use the model's own scale), or an image of one whole object without background"
        )
    lowered = settings.threshold_fraction * highest
    if lowered < settings.threshold:
        logger.warning("the field is thin: the surface is at density %.3g instead of %.3g", lowered, settings.threshold)
    return min(settings.threshold, lowered)
