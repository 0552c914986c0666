"""A closed field gives a closed mesh after any simplification; each step of the repair is tested by itself."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor
from torch.nn import functional as F

from distill.mesh import export, manifold
from distill.mesh.export import MeshSettings
from distill.mesh.isosurface import TriangleMesh

Distance = Callable[[Tensor], Tensor]  # points [n, 3] -> signed distance [n], negative inside
SETTINGS = MeshSettings(threshold=10.0, resolution=48, faces=1500)
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def ball(x: Tensor, radius: float = 0.6) -> Tensor:
    return x.norm(dim=-1) - radius


def torus(x: Tensor) -> Tensor:
    return torch.hypot(x[:, :2].norm(dim=-1) - 0.6, x[:, 2]) - 0.2


def box(x: Tensor, center: tuple[float, ...], half: tuple[float, ...]) -> Tensor:
    return ((x - torch.tensor(center)).abs() - torch.tensor(half)).amax(-1)


def boxes_touching_at_a_face(x: Tensor) -> Tensor:
    return torch.minimum(box(x, (-0.3, 0, 0), (0.3, 0.3, 0.3)), box(x, (0.3, 0, 0), (0.3, 0.2, 0.2)))


def boxes_touching_at_an_edge(x: Tensor) -> Tensor:
    return torch.minimum(box(x, (-0.3, -0.3, 0), (0.3, 0.3, 0.3)), box(x, (0.3, 0.3, 0), (0.3, 0.3, 0.3)))


def thin_plate(x: Tensor) -> Tensor:
    return box(x, (0, 0, 0), (0.6, 0.6, 0.03))


def hollow_shell(x: Tensor) -> Tensor:
    return torch.maximum(ball(x, 0.7), -ball(x, 0.5))


def rough(distance: Distance, nodes: int, amount: float) -> Distance:
    """Add noise: random values at `nodes`^3 points, interpolated linearly."""
    noise = amount * torch.randn(1, 1, nodes, nodes, nodes, generator=torch.Generator().manual_seed(0))
    return lambda x: distance(x) + F.grid_sample(noise, x.view(1, 1, 1, -1, 3), align_corners=True).view(-1)


def surface_in_field(distance: Distance, settings: MeshSettings) -> TriangleMesh:
    def density(x: Tensor) -> Tensor:
        return 10.0 * torch.exp((-60 * distance(x)).clamp(max=4.6))

    grid = export.sample_density(density, 1.0, settings.resolution)
    return export.surface_of(grid, export.surface_threshold(grid, 1.0, settings), 1.0, settings)[0]


SHAPES: dict[str, Distance] = {
    "ball": ball,
    "torus": torus,
    "boxes_touching_at_a_face": boxes_touching_at_a_face,
    "boxes_touching_at_an_edge": boxes_touching_at_an_edge,
    "thin_plate": thin_plate,
    "hollow_shell": hollow_shell,
    "rough_ball": rough(ball, 24, 0.04),
    "very_rough_ball": rough(ball, 48, 0.1),
    "very_rough_torus": rough(torus, 48, 0.1),
    "very_rough_shell": rough(hollow_shell, 48, 0.1),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("faces", [300, 1500])
def test_a_closed_field_gives_a_closed_mesh_within_the_budget(name: str, faces: int):
    found = surface_in_field(SHAPES[name], replace(SETTINGS, faces=faces))
    assert 0.2 * faces < len(found.faces) <= faces
    theirs = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert theirs.is_watertight
    assert theirs.is_winding_consistent
    assert theirs.volume > 0
    assert len(np.unique(np.sort(found.faces, 1), axis=0)) == len(found.faces)


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("ball", 4 / 3 * np.pi * 0.6**3),
        ("torus", 2 * np.pi**2 * 0.6 * 0.2**2),
        ("boxes_touching_at_a_face", 0.6**3 + 0.6 * 0.4 * 0.4),
        ("hollow_shell", 4 / 3 * np.pi * 0.7**3),  # nobody sees the cavity
    ],
)
def test_volumes_are_the_shapes(name: str, volume: float):
    found = surface_in_field(SHAPES[name], SETTINGS)
    assert trimesh.Trimesh(found.vertices, found.faces, process=False).volume == pytest.approx(volume, rel=0.03)


def test_parts_that_simplifying_cuts_off_are_removed():
    found = surface_in_field(SHAPES["very_rough_ball"], SETTINGS)
    bodies = trimesh.Trimesh(found.vertices, found.faces, process=False).split(only_watertight=False)
    assert min(body.volume for body in bodies) >= SETTINGS.floater_fraction * max(body.volume for body in bodies)


def test_a_face_and_its_reverse_cancel_and_others_stay():
    faces = np.array([[0, 1, 2], [3, 4, 5], [1, 0, 2], [2, 0, 1], [4, 5, 3], [6, 6, 7]])
    left = manifold.cancel(faces)
    assert sorted(map(tuple, left.tolist())) == [(0, 1, 2), (3, 4, 5), (4, 5, 3)]  # twice the same is no reverse


def test_closed_surfaces_stay_closed_under_any_merging_of_vertices():
    """The worst case of edge collapse: arbitrary vertices are merged."""
    sphere = trimesh.creation.icosphere(subdivisions=2)
    rng = np.random.default_rng(0)
    for _ in range(50):
        merged = np.arange(len(sphere.vertices))
        one, other = rng.integers(0, len(merged), (2, rng.integers(1, 60)))
        merged[one] = other
        vertices, faces = manifold.make_manifold(sphere.vertices, merged[sphere.faces])
        assert manifold.is_closed(faces)
        assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
        corners = vertices[faces]
        volume = np.einsum("mi,mi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        before = sphere.vertices[merged[sphere.faces]]
        assert volume == pytest.approx(np.einsum("mi,mi->", before[:, 0], np.cross(before[:, 1], before[:, 2])) / 6)


def test_faces_around_a_shared_edge_pair_by_the_matter_between_them():
    """Three tetrahedra around the z axis: in any order, each keeps its own two faces at the axis."""
    vertices, faces = [[0.0, 0, 0], [0, 0, 1.0]], []
    for start in (10, 130, 250):
        a, b = (np.deg2rad(angle) for angle in (start, start + 60))
        first = len(vertices)
        vertices += [[np.cos(a), np.sin(a), 0.5], [np.cos(b), np.sin(b), 0.5]]
        corners = np.array([0, 1, first, first + 1])
        wedge = corners[TETRAHEDRON]
        if trimesh.Trimesh(np.array(vertices), wedge, process=False).volume < 0:
            wedge = wedge[:, ::-1]
        faces.append(wedge)
    together = np.random.default_rng(1).permutation(np.concatenate(faces))
    apart, cut = manifold.make_manifold(np.array(vertices), together)
    bodies = trimesh.Trimesh(apart, cut, process=False).split()
    assert [len(body.faces) for body in bodies] == [4, 4, 4]
    assert all(body.volume > 0 for body in bodies)


def test_open_surfaces_are_not_called_closed():
    assert manifold.is_closed(TETRAHEDRON)
    assert not manifold.is_closed(TETRAHEDRON[:3])
    assert not manifold.is_closed(np.concatenate([TETRAHEDRON[:3], TETRAHEDRON[3:, ::-1]]))
    assert not manifold.is_closed(np.empty((0, 3), np.int64))
