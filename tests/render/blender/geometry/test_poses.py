"""Choose between the first frame of an animation and the rest pose."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.make_models import Gltf

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import scene
from render.blender.geometry.poses import is_scattered, may_have_vanished, vanished_share


def skinned(path: Path, move: tuple[str, list[float]], size: float = 1.0) -> Path:
    """One mesh of two boxes, one above the other. In its animation the bone of the second has the transform `move`."""
    gltf = Gltf()
    lower, upper = gltf.box((1, 1, 1)), gltf.box((size, size, size), (0, 1.2, 0))
    for joint, mesh in enumerate((lower, upper)):
        for primitive in gltf.document["meshes"][mesh]["primitives"]:
            joints, weights = np.zeros((4, 4), np.uint16), np.tile(np.float32([1, 0, 0, 0]), (4, 1))
            joints[:, 0] = joint
            primitive["attributes"]["JOINTS_0"] = gltf.accessor(joints, "VEC4")
            primitive["attributes"]["WEIGHTS_0"] = gltf.accessor(weights, "VEC4")
    gltf.document["meshes"][lower]["primitives"] += gltf.document["meshes"].pop()["primitives"]
    bones = [gltf.node(name=name) for name in ("lower", "upper")]
    gltf.node(mesh=lower, skin=gltf.add("skins", {"joints": bones}))
    seconds = gltf.accessor(np.array([0.0, 1.0], np.float32), "SCALAR")
    values = gltf.accessor(np.array([move[1]] * 2, np.float32), "VEC3")
    channel = {"sampler": 0, "target": {"node": bones[1], "path": move[0]}}
    gltf.add("animations", {"channels": [channel], "samplers": [{"input": seconds, "output": values}]})
    return gltf.write(path)


@pytest.mark.parametrize(
    ("move", "size", "flags"),
    [
        (("translation", [0.0, 0.0, 100.0]), 1.0, ("rest-pose",)),
        (("scale", [0.0, 0.0, 0.0]), 1.0, ("rest-pose",)),
        (("scale", [0.0, 0.0, 0.0]), 0.2, ()),  # it has less than a twentieth of the area
        (("translation", [0.0, 0.0, 3.0]), 1.0, ()),
        (("scale", [0.5, 0.5, 0.5]), 1.0, ()),
    ],
)
def test_a_skinned_part_that_the_first_frame_does_not_show_is_shown_in_the_rest_pose(
    move: tuple[str, list[float]], size: float, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert scene.prepare(skinned(tmp_path / "a.glb", move, size)) == flags


def boxes(*spans: tuple[float, float]) -> list[np.ndarray]:
    """Bounds of one instance with a face per span along x; all spans are 0 to 1 along y and z."""
    return [np.array([[[low, 0, 0], [high, 1, 1]] for low, high in spans])]


def test_an_object_is_scattered_if_faces_cover_less_than_a_twentieth_of_its_longest_side() -> None:
    assert not is_scattered(boxes((0, 1), (19, 20)))
    assert is_scattered(boxes((0, 1), (40.5, 41.5)))
    assert not is_scattered(boxes((0, 1), (38, 39)))
    assert not is_scattered(boxes((40.5, 41.5), (0, 30), (1, 2)))  # a long face covers the short ones
    assert is_scattered([*boxes((0, 1)), *boxes((40.5, 41.5))])
    assert is_scattered([])
    assert is_scattered([np.zeros((3, 2, 3))])


def test_the_share_that_vanished_is_measured_at_rest() -> None:
    rest = np.array([1.0, 1.0, 2.0, 0.0])
    assert vanished_share(np.array([1.0, 1.0, 0.0, 0.0]), rest) == 0.5
    assert vanished_share(np.array([1.0, 1.0, 1e-9, 0.0]), rest) == 0.0
    assert vanished_share(np.array([0.0]), rest) == 0.0  # not the same faces
    assert may_have_vanished(np.array([1.0] * 999 + [0.0]))
    assert not may_have_vanished(np.array([1.0] * 1001 + [0.0]))
    assert not may_have_vanished(np.empty(0))
