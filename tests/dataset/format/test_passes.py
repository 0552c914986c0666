from typing import Any

import numpy as np
import pytest

from dataset.camera import intrinsics, project, spherical_to_c2w
from dataset.errors import UserError
from dataset.format.passes import (
    DEPTH_STEP,
    PASSES,
    Surface,
    check_pass,
    decode_pass,
    encode_passes,
    from_srgb,
    to_srgb,
    unproject,
)
from dataset.format.schema import member_names, parse_meta, sample_names, validate_sample
from dataset.images.png import encode_png
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_sample, make_shard_set

SIDE = 12
C2W, K = spherical_to_c2w(20.0, 50.0, 1.5), intrinsics(SIDE)


def random_surface() -> Surface:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(SIDE, SIDE, 3))
    depth = np.where(rng.random((SIDE, SIDE)) < 0.7, rng.uniform(1.2, 1.8, (SIDE, SIDE)), 0.0)
    return Surface(
        depth,
        normal / np.linalg.norm(normal, axis=-1, keepdims=True),
        rng.random((SIDE, SIDE, 3)),
        rng.random((SIDE, SIDE)),
        rng.random((SIDE, SIDE)),
    )


def test_each_pass_is_read_back_within_half_a_step():
    surface = random_surface()
    covered = surface.depth > 0
    files = encode_passes(surface, PASSES, C2W, K)
    assert list(files) == list(PASSES)
    read: dict[str, Any] = {name: decode_pass(name, files[name], name) for name in PASSES}
    np.testing.assert_array_equal(read["mask"], covered)
    np.testing.assert_allclose(read["depth"], surface.depth, atol=DEPTH_STEP / 2 + 1e-6)
    np.testing.assert_allclose(read["normal"][covered], surface.normal[covered], atol=0.5 / 127.5 + 1e-6)
    in_camera = surface.normal @ C2W[:3, :3]
    np.testing.assert_allclose(read["camera-normal"][covered], in_camera[covered], atol=0.5 / 127.5 + 1e-6)
    np.testing.assert_allclose(
        read["position"][covered], unproject(surface.depth, C2W, K)[covered], atol=1.001 / 65535 + 1e-6
    )
    np.testing.assert_allclose(
        to_srgb(read["albedo"])[covered], to_srgb(surface.albedo)[covered], atol=0.5 / 255 + 1e-6
    )
    material = np.stack([0 * surface.depth, surface.roughness, surface.metallic], -1)
    np.testing.assert_allclose(read["material"][covered], material[covered], atol=0.5 / 255 + 1e-6)
    for name in ("normal", "camera-normal", "position"):
        assert np.isnan(read[name][~covered]).all()
    for name in ("depth", "albedo", "material"):
        assert (read[name][~covered] == 0).all()


def test_points_are_projected_back_to_the_centers_of_their_pixels():
    points = unproject(np.full((SIDE, SIDE), 1.25), C2W, K)
    pixels, depth = project(points.reshape(-1, 3), C2W, K)
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    np.testing.assert_allclose(pixels, np.stack([x.ravel(), y.ravel()], -1), atol=1e-9)
    np.testing.assert_allclose(depth, 1.25, atol=1e-12)


def test_srgb_has_the_values_of_its_standard():
    np.testing.assert_allclose(
        to_srgb(np.array([0.0, 0.002, 0.2158605, 1.0, 2.0])), [0, 0.02584, 0.50196, 1, 1], atol=1e-5
    )
    values = np.linspace(0, 1, 256)
    np.testing.assert_allclose(to_srgb(from_srgb(values)), values, atol=1e-9)


def test_values_out_of_range_are_refused():
    surface = random_surface()
    far = Surface(surface.depth * 10, surface.normal, surface.albedo, surface.roughness, surface.metallic)
    with pytest.raises(ValueError, match="at most 4 can be stored"):
        encode_passes(far, ["depth"], C2W, K)
    with pytest.raises(ValueError, match="in normalized space; at most 1"):
        encode_passes(far, ["position"], C2W, K)


def test_a_file_of_another_pass_is_refused():
    files = encode_passes(random_surface(), PASSES, C2W, K)
    with pytest.raises(UserError, match=r"^x: the pass depth has uint8 pixels"):
        decode_pass("depth", files["mask"], "x")
    with pytest.raises(UserError, match="there is no pass 'glow'"):
        check_pass("u.fixed_00.glow.png", files["mask"], "x")
    with pytest.raises(UserError, match=r"expected uint8 of the shape \(13, 13\)"):
        check_pass("u.fixed_00.mask.png", files["mask"], "x", SIDE + 1)


def test_a_sample_with_passes_has_version_2_and_its_members_in_order():
    members = make_sample("u", 0, 16, passes=("depth", "mask"))
    meta = validate_sample(members, "s")
    assert (meta.schema_version, meta.passes) == (2, ("depth", "mask"))
    names = member_names("u", passes=meta.passes)
    assert len(names) == 33 + 64
    assert names[33:36] == ["u.fixed_00.depth.png", "u.fixed_00.mask.png", "u.fixed_01.depth.png"]
    assert sample_names("u", dict(reversed(members.items()))) == names
    assert b"passes" not in make_sample("u", 0, 16)["u.meta.json"]


@pytest.mark.parametrize("passes", [b'["mask","depth"]', b'["glow"]', b"null"])
def test_unknown_or_unordered_passes_are_refused(passes):
    data = make_sample("u", 0, 16, passes=("depth", "mask"))["u.meta.json"]
    with pytest.raises(UserError, match=r"m: passes is .*, expected some of"):
        parse_meta(data.replace(b'["depth","mask"]', passes), "m")


def test_a_sample_lacking_a_pass_is_refused():
    members = make_sample("u", 0, 16, passes=("depth",))
    del members["u.random_07.depth.png"]
    with pytest.raises(UserError, match=r"lacks the members u\.random_07\.depth\.png"):
        validate_sample(members, "s")
    members["u.random_07.depth.png"] = encode_png(np.zeros((16, 16), np.uint8))
    with pytest.raises(UserError, match=r"s/u\.random_07\.depth\.png: the pass depth has uint8"):
        validate_sample(members, "s")


def test_passes_are_read_from_a_set_by_view(tmp_path):
    shards = ShardSet(make_shard_set(tmp_path / "set", 2, 16, passes=("depth", "normal")))
    depth = shards.passes(0, 1, "depth", [("fixed", 0), ("random", 15)])
    assert depth.shape == (2, 16, 16)
    np.testing.assert_allclose(depth[:, 1:-1, 1:-1], 1.5, atol=DEPTH_STEP)
    assert (depth[:, 0] == 0).all()
    with pytest.raises(UserError, match=r"has no pass mask .*render the set again with --passes mask"):
        shards.passes(0, 0, "mask", [("fixed", 0)])
