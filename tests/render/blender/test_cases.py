"""Status, flags and look of small files in the spirit of public bug reports (tests/support/cases).

The files of tests/golden, from the same collection, are in test_model_files.py and geometry/test_repair.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dataset.format.outcomes import Failure
from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.cases.gltf_looks import write_looks
from tests.support.cases.gltf_shapes import write_shapes
from tests.support.cases.other_formats import write_other_formats

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from dataset.quality_flags import image_flags, in_order
from render.blender import cycles, lights, scene
from render.blender.__main__ import bundled_maps
from render.blender.geometry.repair import pieces
from render.blender.geometry.sides import hide_back_faces
from render.blender.textures import sanitize_textures

pytestmark = pytest.mark.integration
SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".stl")
VIEWS = (Pose(30.0, 30.0), Pose(10.0, 210.0))
VISIBLE = 20  # alpha of a visible pixel, of 255
SHARE = 0.08  # of the visible pixels that have a color


@dataclass(frozen=True)
class Result:
    """`look` are the colors of the two views, `cover` is the share of their pixels that the object covers."""

    flags: tuple[str, ...] = ()
    error: str = ""
    look: str = ""
    cover: float = 0.0


def colors(images: list[np.ndarray]) -> str:
    """Name the colors of at least SHARE of the visible pixels of images [h, w, 4]."""
    pixels = np.concatenate([image[image[..., 3] > VISIBLE] for image in images])[:, :3].astype(float)
    if not len(pixels):
        return ""
    red, green, blue = pixels.T
    low, high = pixels.min(1), pixels.max(1)
    gray = high < 1.25 * low + 8
    shares = {
        "red": ~gray & (red > 1.2 * np.maximum(green, blue)),
        "green": ~gray & (green > 1.2 * np.maximum(red, blue)),
        "blue": ~gray & (blue > 1.2 * np.maximum(red, green)),
        "white": gray & (low > 252),
        "gray": gray & (low <= 252) & (high > 40),
        "black": gray & (high <= 40),
    }
    return " ".join(color for color, chosen in shares.items() if chosen.mean() >= SHARE)


def outcome(path: Path, root: Path, scratch: Path) -> Result:
    try:
        flags = list(scene.prepare(path, root, scratch))
        scene.normalize("longest")
        flags += ["missing-texture"] if sanitize_textures(path.parent, root, path.suffix == ".obj") else []
    except scene.ObjectError as error:
        failure: Failure = error.failure
        return Result(error=f"{failure.error_class}: {failure.message}")
    hide_back_faces(pieces(), np.array([pose.c2w()[:3, 3] for pose in VIEWS]))
    name, environment = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), environment)
    cycles.configure(Settings(resolution=24, samples=4, noise_threshold=0.0), threads=1)
    images = [cycles.render_view(pose, 1, scratch) for pose in VIEWS]
    flags += [flag for flag in image_flags(images) if flag != "clipped"]
    return Result(in_order(flags), "", colors(images), float(np.mean([image[..., 3] > VISIBLE for image in images])))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The result of every file, by the name of its folder or, without one, by its own name."""
    folder, scratch = tmp_path_factory.mktemp("cases"), tmp_path_factory.mktemp("scratch")
    for write in (write_shapes, write_looks, write_other_formats):
        write(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return {path.relative_to(folder).parts[0]: outcome(path, folder, scratch) for path in paths}


BALL = 0.45  # share of the two views that a ball of 160 faces covers (a perfect one: 0.47)
CUBE = 0.86  # share of the two views that a cube covers
ROWS = [  # (look, cover, flags, files)
    (
        "red blue",
        CUBE,
        (),
        "f01_absolute_beside f03_relative_backslash f04_fbm f06_relative_up_but_beside f07_case f08_only_in_textures "
        "f09_unix_beside g07_scale_from_tiny.glb g16_texture_alpha_but_opaque.glb g17_vertex_color_no_material.glb "
        "g18_vertex_color_material.glb g19_vertex_color_texture.glb g32_encoded g33_spaces g34_backslash g41_unicode "
        "g42_case g43_percent g44_dot o02_windows_path_beside o05_backslash o06_case_differs o07_spaces o08_options "
        "o09_vertex_colors o19_kd_black_texture o21_crlf o28_dds o29_tga o41_scanned p01_jpeg.glb "
        "p02_jpeg_progressive.glb p03_jpeg_cmyk.glb p05_png_palette.glb p09_webp.glb p10_png_called_jpeg.glb "
        "p11_webp_called_png.glb p12_bmp.glb p14_tiff.glb p17_7x3.glb y01_ascii_rgb.ply y02_le_rgb.ply y03_be_rgb.ply "
        "y04_rgba.ply y05_alpha_zero.ply y06_float_rgb.ply y07_double_xyz.ply y08_vertex_index.ply y12_wedges "
        "y14_camera_element.ply y15_crlf.ply y16_quads.ply y20_ushort_rgb.ply y22_extra_face_property.ply",
    ),
    (
        "red",
        CUBE,
        (),
        "g11_inside_out.glb g13_alpha_zero_opaque.glb g31_stray_vertex.glb g45_bom.gltf m01_transmission.glb "
        "m01_transmission_required.glb m02_unlit.glb m04_unknown.glb m06_emissive_on_black.glb "
        "o15_far o17_tr_one o18_d_one_tr_one o31_tabs o32_usemtl_before_mtllib "
        "w05_gltf_inside.gltf w06_json_inside.glb",
    ),
    ("green", CUBE, (), "m03_specgloss.glb m03_specgloss_required.glb p16_1x1.glb"),
    (
        "blue",
        CUBE,
        (),
        "n1_cube_no_normals.glb n2_cube_out_out.glb n5_cube_in_in.glb n6_cube_winding_in_no_normals.glb",
    ),
    ("blue", BALL, (), "n1_ball_no_normals.glb n5_ball_in_in.glb n6_ball_winding_in_no_normals.glb"),
    (
        "white gray",
        CUBE,
        (),
        "f11_plain.fbx f13_z_up.fbx m05_default_metal.glb o24_comma_numbers o25_utf16 s01_ascii_inch.stl "
        "s02_binary.stl s03_binary_solid.stl s04_binary_count_zero.stl s06_ascii_no_end.stl s07_ascii_two_solids.stl",
    ),
    ("gray", CUBE, (), "p04_jpeg_gray.glb p06_png_gray_alpha.glb"),
    ("gray black", CUBE, (), "g20_vertex_color_black.glb p07_png_16bit.glb p08_png_1bit.glb"),
    ("red gray", CUBE, (), "m09_room_around.glb"),
    ("red", 0.66, (), "g14_mask.glb"),
    ("red", 0.72, (), "g15_blend.glb o27_map_d"),
    ("red blue", 0.14, (), "g01_sixteen_roots.glb"),
    ("red blue", 0.08, (), "g02_negative_empties.glb"),
    ("red blue", 0.35, (), "g09_second_clip_far.glb"),
    ("red blue", 0.27, (), "y17_tristrips.ply"),
    ("red", CUBE, (), "o26_illum_glass"),
    ("red blue", 0.21, (), "g10_clip_starts_late.glb"),
    ("red", 0.15, (), "g21_far_vertices.glb g22_far_node.glb"),
    ("green", 0.17, (), "g24_size_1e-9.glb g24_size_1e-6.glb g24_size_1e6.glb g24_size_1e12.glb g24_size_1e20.glb"),
    ("green", 0.17, (), "g24_size_1e35.glb"),
    ("red", 0.22, (), "g26_floor.glb"),
    ("green", 0.40, (), "m10_morph_weight.glb"),
    ("red blue", 0.11, (), "m11_skin_moved.glb"),
    ("red", 0.21, (), "g25_one_triangle.glb"),  # both sides are drawn: one view would be empty
    ("", 0.0, ("empty", "low-coverage"), "g12_alpha_zero_blend.glb g27_zero_area.glb o16_d_zero"),
    ("red blue", 0.35, ("rest-pose",), "g08_part_scale_from_zero.glb"),
    ("red green blue", 0.27, ("doubled-faces",), "g23_far_nodes_three.glb"),
    ("white gray", CUBE, ("doubled-faces",), "d7_reversed.obj"),
    (
        "blue",
        CUBE,
        ("contradicting-normals",),
        "n3_cube_winding_out_normals_in.glb n4_cube_winding_in_normals_out.glb",
    ),
    ("white", CUBE, ("near-white", "white-parts"), "m07_emissive_strong.glb"),
    (
        "white gray",
        CUBE,
        ("missing-texture",),
        "f05_gone g37_missing g39_file_url o03_windows_path_gone o04_unix_path_gone p13_gif.glb p15_unreadable.glb "
        "p18_png_truncated.glb p19_png_empty.glb p20_png_cut_end.glb",
    ),
    ("red blue", CUBE, ("missing-material",), "o11_vertex_colors_missing_mtl"),
    ("white gray", CUBE, ("missing-material",), "o23_mtl_by_name s09_color.stl"),
]
FAILURES = [  # (error class, words of its message, files)
    ("NoMesh", "no visible faces", "g03_only_camera.glb m08_node_hidden.glb w04_random.obj w08_stl_called_obj.obj"),
    ("NoMesh", "only lines", "g04_only_lines.glb o12_lines"),
    ("NoMesh", "only points", "g05_only_points.glb g29_degenerate_indices.glb o13_points o14_vertices_only"),
    ("NoMesh", "only points", "y10_points.ply y21_splats.ply"),
    ("ZeroSize", "1e-12", "g24_size_1e-12.glb g24_size_1e-20.glb"),
    ("ZeroSize", "one point", "g28_one_point.glb"),
    ("NonFinitePositions", "NaN", "s10_nan.stl"),
    ("ModelError", "glTF 1.0", "g47_version_1.gltf"),
    ("ModelError", "4,000,000,000 triangles", "s05_binary_count_large.stl"),
    ("ModelError", "not STL", "w04_random.stl w07_obj_called_stl.stl"),
    ("ModelError", "not a PLY file", "w04_random.ply"),
    ("ModelError", "not glTF", "w04_random.glb w04_random.gltf w09_zip.glb"),
    ("ImportFailed", "FBX", "w04_random.fbx"),
    *(
        ("ModelError", text, f"{name}.{suffix}")
        for name, text in (("w01_lfs_pointer", "Git LFS"), ("w02_html", "HTML"), ("w03_empty", "is empty"))
        for suffix in ("glb", "gltf", "obj", "fbx", "ply", "stl")
    ),
]
EXPECTED = [(file, look, cover, flags) for look, cover, flags, files in ROWS for file in files.split()]
EXPECTED_ERRORS = [(file, kind, words) for kind, words, files in FAILURES for file in files.split()]


@pytest.mark.parametrize(("file", "look", "cover", "flags"), EXPECTED)
def test_a_file_that_can_be_read_has_its_look_and_flags(
    file: str, look: str, cover: float, flags: tuple[str, ...], results: dict[str, Result]
) -> None:
    result = results[file]
    assert (result.error, result.flags, result.look) == ("", flags, look)
    assert result.cover == pytest.approx(cover, abs=0.03)


@pytest.mark.parametrize(("file", "kind", "words"), EXPECTED_ERRORS)
def test_a_file_that_cannot_be_read_has_its_error(file: str, kind: str, words: str, results: dict[str, Result]) -> None:
    error = results[file].error
    assert error.startswith(f"{kind}: ")
    assert words in error


def test_the_tables_list_every_file_once(results: dict[str, Result]) -> None:
    assert sorted(results) == sorted(row[0] for row in (*EXPECTED, *EXPECTED_ERRORS))
