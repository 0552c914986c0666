"""Each exported layout, read back by the rules of the program that it is for."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.camera import project
from dataset.export.export_set import LAYOUTS, export_set
from dataset.format.schema import ALL_VIEWS
from dataset.reading.rendered_object import RenderedObject, read_object, view_name
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set

UID = "synthetic-0001"
POINTS = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("source") / "set", 3, 48)


@pytest.fixture(scope="module")
def truth(source: Path) -> RenderedObject:
    return read_object(ShardSet(source), (0, 1))


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    for name, layout in LAYOUTS.items():
        assert export_set(str(source), root / name, layout) == (3, 3)
    return {name: root / name for name in LAYOUTS}


def expected_pixels(truth: RenderedObject, number: int) -> np.ndarray:
    return project(POINTS, truth.c2w[number], truth.K[number])[0]


def pixels(camera_from_world: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Project POINTS by a matrix [3, 4] with OpenCV's axes: x right, y down, z forwards."""
    local = POINTS @ camera_from_world[:, :3].T + camera_from_world[:, 3]
    assert (local[:, 2] > 0).all()
    homogeneous = local @ K.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def test_nerf_cameras_and_images(exported, truth):
    """The rule of nerfstudio and instant-ngp: camera-to-world matrices with OpenGL's camera axes."""
    folder = exported["nerf"] / UID
    content = json.loads((folder / "transforms.json").read_text())
    assert len(content["frames"]) == 32
    for number, frame in enumerate(content["frames"]):
        K = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]])
        world_from_camera = np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
        found = pixels(np.linalg.inv(world_from_camera)[:3], K)
        np.testing.assert_allclose(found, expected_pixels(truth, number), atol=1e-6)
        image = np.asarray(Image.open(folder / frame["file_path"]))
        np.testing.assert_array_equal(image, truth.images[number])
        assert (frame["w"], frame["h"]) == (48, 48)


def test_nerf_splits_are_disjoint_and_complete(exported):
    content = json.loads((exported["nerf"] / UID / "transforms.json").read_text())
    assert content["val_filenames"] == content["test_filenames"]
    assert content["test_filenames"] == [
        f"images/{name}.png" for name in ("fixed_00", "fixed_08", "random_00", "random_08")
    ]
    listed = content["train_filenames"] + content["test_filenames"]
    assert sorted(listed) == sorted(frame["file_path"] for frame in content["frames"])


def test_nerf_scene_is_inside_the_cube_of_instant_ngp(exported):
    content = json.loads((exported["nerf"] / UID / "transforms.json").read_text())
    corners = np.array([[-0.5] * 3, [0.5] * 3]) * content["scale"] + content["offset"]
    assert corners.min() > 0
    assert corners.max() < 1


def test_zero123_matrices(exported, truth):
    """Zero123's loader computes camera positions as -R^T T from the matrix [R | T]; the axes are OpenGL's."""
    folder = exported["zero123"] / UID
    layout = LAYOUTS["zero123"]
    assert len(list(folder.iterdir())) == 64
    for number, key in enumerate(layout.views):
        position = ALL_VIEWS.index(key)
        matrix = np.load(folder / f"{number:03d}.npy", allow_pickle=False)
        assert matrix.shape == (3, 4)
        np.testing.assert_allclose(-matrix[:, :3].T @ matrix[:, 3], truth.c2w[position][:3, 3], atol=1e-9)
        found = pixels(np.diag([1, -1, -1]) @ matrix, truth.K[position])
        np.testing.assert_allclose(found, expected_pixels(truth, position), atol=1e-6)
        np.testing.assert_array_equal(Image.open(folder / f"{number:03d}.png"), truth.images[position])
    assert json.loads((exported["zero123"] / "valid_paths.json").read_text()) == [
        f"synthetic-{i:04d}" for i in range(3)
    ]


def test_the_first_twelve_views_of_zero123_surround_the_object(exported, truth):
    """The loader uses the first 12 views: no two of them share an azimuth, and no gap is wider than 45 degrees."""
    views = [truth.views[ALL_VIEWS.index(key)] for key in LAYOUTS["zero123"].views[:12]]
    azimuths = sorted(view.azimuth_deg for view in views)
    gaps = np.diff([*azimuths, azimuths[0] + 360])
    assert gaps.min() > 0
    assert gaps.max() <= 45
    assert len({view.elevation_deg for view in views}) == 12


def test_syncdreamer_cameras_and_images(exported, truth):
    """SyncDreamer's camera i is at distance * (cos a cos e, sin a cos e, sin e), with a = 22.5 * i degrees."""
    root = exported["syncdreamer"]
    content = pickle.loads((root / "input" / UID / "meta.pkl").read_bytes())  # noqa: S301  written by this test
    K, azimuths, elevations, distances, poses = content
    assert (K.shape, azimuths.shape, elevations.shape, distances.shape) == ((3, 3), (16,), (16,), (16,))
    assert (K.dtype, azimuths.dtype, poses.shape) == (np.float32, np.float32, (16, 3, 4))
    np.testing.assert_allclose(np.rad2deg(azimuths), 22.5 * np.arange(16), atol=1e-4)
    places = np.stack(
        [np.cos(azimuths) * np.cos(elevations), np.sin(azimuths) * np.cos(elevations), np.sin(elevations)]
    )
    for i in range(16):
        ours = 16 + (i + 4) % 16
        np.testing.assert_allclose(distances[i] * places[:, i], truth.c2w[ours][:3, 3], atol=1e-6)
        np.testing.assert_allclose(pixels(poses[i], K), expected_pixels(truth, ours), atol=1e-4)
        np.testing.assert_array_equal(Image.open(root / "input" / UID / f"{i:03d}.png"), truth.images[ours])
        np.testing.assert_array_equal(Image.open(root / "target" / UID / f"{i:03d}.png"), truth.images[ours - 16])
    assert pickle.loads((root / "uid_set.pkl").read_bytes()) == [f"synthetic-{i:04d}" for i in range(3)]  # noqa: S301


def test_pycolmap_reads_the_cameras(exported, truth):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap has a wheel for Linux on x86-64 only")
    model = pycolmap.Reconstruction(exported["colmap"] / UID / "sparse" / "0")
    assert (model.num_images(), model.num_cameras()) == (32, 32)
    by_name = {image.name: image for image in model.images.values()}
    for number in range(32):
        image = by_name[f"{view_name(number)}.png"]
        found = np.array([image.project_point(point) for point in POINTS])
        np.testing.assert_allclose(found, expected_pixels(truth, number), atol=1e-6)
        camera = model.cameras[image.camera_id]
        assert (camera.width, camera.height) == (48, 48)


def test_colmap_images_are_on_white_and_have_masks(exported, truth):
    folder = exported["colmap"] / UID
    image = np.asarray(Image.open(folder / "images" / "random_03.png"))
    np.testing.assert_allclose(image, truth.on_white[19] * 255, atol=0.51)
    mask = np.asarray(Image.open(folder / "masks" / "random_03.png.png"))
    np.testing.assert_array_equal(mask, truth.images[19][..., 3])


def test_colmap_points_are_on_the_object(exported, truth):
    """The made-up objects are convex, so the points lie near the surface: close to a silhouette in some view."""
    lines = (exported["colmap"] / UID / "sparse" / "0" / "points3D.txt").read_text().splitlines()
    rows = np.array([[float(word) for word in line.split()] for line in lines])
    assert len(rows) > 500
    points, colors = rows[:, 1:4], rows[:, 4:7]
    for number in range(32):
        xy, _ = project(points, truth.c2w[number], truth.K[number])
        columns, rows_ = np.clip(xy.T, 0, 47).astype(int)
        assert (truth.images[number][rows_, columns, 3] >= 128).all()
    extent = points.max(0) - points.min(0)
    assert extent.max() == pytest.approx(1, abs=0.06)  # the longest side of every made-up object is 1
    assert colors.std(0).max() > 10
