"""glTF files with unusual nodes, animations, sizes and faces."""

import math
from pathlib import Path

from tests.support.cases.document import BLUE, GREEN, RED, UBYTE, Document, arrow, checker, cube, simple

HALVES = [[1, 0, 0, 1] if p[1] > 0 else [0, 0, 1, 1] for p in cube()[0]]  # red above, blue below


def write_shapes(folder: Path) -> None:
    _nodes(folder)
    _animations(folder)
    _sizes(folder)
    _faces(folder)
    _vertex_colors(folder)
    _deformed(folder)


def _nodes(folder):
    d = Document()
    for i in range(16):
        mesh = d.mesh(cube(0.4), d.plain(i / 15, 0.2, 1 - i / 15))
        angle = i / 16 * math.tau
        d.node(mesh=mesh, translation=[math.cos(angle) * 3 + 20, math.sin(angle) * 3, 5], scale=[1 + i % 2] * 3)
    d.glb(folder / "g01_sixteen_roots.glb")
    d = Document()
    inner = d.node(root=False, mesh=d.mesh(arrow(), d.plain(*RED)), rotation=[0, 0, 0.3826834, 0.9238795])
    middle = d.node(root=False, children=[inner], scale=[1, 1, -1], translation=[0.3, 0, 0])
    d.node(children=[middle], scale=[-1, 1, 1])
    d.node(mesh=d.mesh(cube(0.3, (1, 0, 0)), d.plain(*BLUE)))
    d.glb(folder / "g02_negative_empties.glb")
    d = Document()
    d.add("cameras", {"type": "perspective", "perspective": {"yfov": 0.8, "znear": 0.1}})
    d.node(camera=0)
    d.glb(folder / "g03_only_camera.glb")
    points = cube()[0]
    for name, indices, mode in (("g04_only_lines", list(range(24)), 1), ("g05_only_points", None, 0)):
        d = Document()
        d.node(mesh=d.mesh((points, None, indices), d.plain(*RED), mode=mode))
        d.glb(folder / f"{name}.glb")
    d = simple(cube(), *RED, extensions={"KHR_node_visibility": {"visible": False}})
    d.json["extensionsUsed"] = ["KHR_node_visibility"]
    d.glb(folder / "m08_node_hidden.glb")


def two_parts():
    d = Document()
    d.node(mesh=d.mesh(cube(1), d.plain(*RED)))
    d.node(mesh=d.mesh(cube(1, (0, 1.2, 0)), d.plain(*BLUE)))
    return d


def _animations(folder):
    d = Document()
    d.node(mesh=d.mesh(cube(), d.textured(d.texture(checker()))))
    d.animate(0, "scale", [[1e-6] * 3, [1, 1, 1]])
    d.glb(folder / "g07_scale_from_tiny.glb")
    d = two_parts()
    d.animate(1, "scale", [[0, 0, 0], [1, 1, 1]])
    d.glb(folder / "g08_part_scale_from_zero.glb")
    d = two_parts()
    for far in ([0, 0, 0], [0, 0, 100]):
        d.animate(1, "translation", [far, far], name=f"far {far[2]}")
    d.glb(folder / "g09_second_clip_far.glb")
    d = Document()
    d.node(mesh=d.mesh(cube(1), d.plain(*RED)), translation=[0, 0, 0])
    d.node(mesh=d.mesh(cube(0.5), d.plain(*BLUE)), translation=[2.5, 0, 0])
    d.animate(0, "translation", [[1, 0, 0], [2, 0, 0]], (5.0, 6.0))
    d.glb(folder / "g10_clip_starts_late.glb")


def _sizes(folder):
    simple(arrow((1e6, 1e6, 1e6)), *RED).glb(folder / "g21_far_vertices.glb")
    simple(arrow(), *RED, translation=[1e6, -1e6, 1e6]).glb(folder / "g22_far_node.glb")
    d = Document()
    for i, color in enumerate((RED, GREEN, BLUE)):
        d.node(mesh=d.mesh(arrow(), d.plain(*color)), translation=[1e5 + i, 2e5, -3e5], scale=[10, 10, 10])
    d.glb(folder / "g23_far_nodes_three.glb")
    for e in (-20, -12, -9, -6, 6, 12, 20, 35):
        simple(arrow(scale=10.0**e), *GREEN).glb(folder / f"g24_size_1e{e}.glb")


def _faces(folder):
    simple(cube(flip=True), *RED).glb(folder / "g11_inside_out.glb")
    triangle = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    simple((triangle, None, [0, 1, 2]), *RED).glb(folder / "g25_one_triangle.glb")
    floor = [[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]
    simple((floor, None, [0, 2, 1, 0, 3, 2]), *RED).glb(folder / "g26_floor.glb")
    simple(([[0, 0, 0], [1, 0, 0], [2, 0, 0]], None, [0, 1, 2]), *RED).glb(folder / "g27_zero_area.glb")
    simple(([[1, 1, 1]] * 3, None, [0, 1, 2]), *RED).glb(folder / "g28_one_point.glb")
    simple((triangle, None, [0, 0, 0]), *RED).glb(folder / "g29_degenerate_indices.glb")
    positions, _, indices = cube()
    simple(([*positions, [200, 0, 0]], None, indices), *RED).glb(folder / "g31_stray_vertex.glb")
    d = Document()
    d.node(mesh=d.mesh(cube(), d.plain(0.8, 0.1, 0.1, doubleSided=False)))
    d.node(mesh=d.mesh(cube(3, flip=True), d.plain(0.3, 0.3, 0.3)))
    d.glb(folder / "m09_room_around.glb")
    back = [i for k in range(0, 36, 3) for i in indices[k : k + 3][::-1]]
    out = [[s if a == axis else 0.0 for a in range(3)] for axis in range(3) for s in (1.0, -1.0) for _ in range(4)]
    inward = [[-x for x in normal] for normal in out]
    for name, order, normals in (
        ("n1_cube_no_normals", indices, None),
        ("n2_cube_out_out", indices, out),
        ("n3_cube_winding_out_normals_in", indices, inward),
        ("n4_cube_winding_in_normals_out", back, out),
        ("n5_cube_in_in", back, inward),
        ("n6_cube_winding_in_no_normals", back, None),
    ):
        _with_normals(folder / f"{name}.glb", positions, order, normals)
    positions, indices = ball(16, 10)
    back = [i for k in range(0, len(indices), 3) for i in indices[k : k + 3][::-1]]
    _with_normals(folder / "n1_ball_no_normals.glb", positions, indices, None)
    _with_normals(folder / "n5_ball_in_in.glb", positions, back, [[-x for x in point] for point in positions])
    _with_normals(folder / "n6_ball_winding_in_no_normals.glb", positions, back, None)


def ball(columns, rows):
    """Return the positions and indices of a ball of radius 1 with outward winding."""
    angles = [(math.pi * j / rows, 2 * math.pi * i / columns) for j in range(rows + 1) for i in range(columns + 1)]
    positions = [[math.sin(a) * math.cos(b), math.cos(a), math.sin(a) * math.sin(b)] for a, b in angles]
    indices = []
    for j in range(rows):
        for i in range(columns):
            a, c = j * (columns + 1) + i, (j + 1) * (columns + 1) + i
            indices += [a, a + 1, c + 1, a, c + 1, c]
    return positions, indices


def _with_normals(path, positions, order, normals):
    d = simple((positions, None, order), *BLUE)
    if normals:
        d.json["meshes"][0]["primitives"][0]["attributes"]["NORMAL"] = d.accessor(normals, "VEC3")
    d.glb(path)


def _vertex_colors(folder):
    for name, material, color in (
        ("g17_vertex_color_no_material", lambda d: None, HALVES),
        ("g18_vertex_color_material", lambda d: d.plain(1, 1, 1), HALVES),
        ("g19_vertex_color_texture", lambda d: d.textured(d.texture(checker((255,) * 3, (90,) * 3))), HALVES),
        ("g20_vertex_color_black", lambda d: None, [[0, 0, 0, 1]] * 24),
    ):
        d = Document()
        d.node(mesh=d.mesh(cube(), material(d), color=color))
        d.glb(folder / f"{name}.glb")


def _deformed(folder):
    d = simple(cube(), *GREEN)
    up = [[0, 1.0 if p[1] > 0 else 0, 0] for p in cube()[0]]
    d.json["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": d.accessor(up, "VEC3")}]
    d.json["meshes"][0]["weights"] = [1.0]
    d.glb(folder / "m10_morph_weight.glb")
    d = simple(cube(), *BLUE, skin=0)
    attributes = d.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = d.accessor([[0, 0, 0, 0]] * 24, "VEC4", UBYTE)
    attributes["WEIGHTS_0"] = d.accessor([[1, 0, 0, 0]] * 24, "VEC4")
    d.node(translation=[0, 3, 0], scale=[1, 2, 1])
    d.add("skins", {"joints": [1]})
    d.node(mesh=d.mesh(cube(0.5), d.plain(*RED)))
    d.glb(folder / "m11_skin_moved.glb")
