import json
from dataclasses import asdict

import numpy as np
import pytest

from dataset.errors import UserError
from render.rigs.lamps import place_lamps
from render.rigs.rig import default_rig, parse_rig, read_rig, shipped_rigs, stored_rig
from render.settings import Settings, read_settings

VIEW = {"set": "random", "count": 2, "elevation_deg": 10, "azimuth_deg": {"spaced": 360}, "distance": 1.5}


def rig_of(*views, **values):
    return parse_rig({"name": "r", "version": 1, "views": list(views), **values}, "r.toml")


def test_numbers_lists_and_rules():
    rig = rig_of(
        {**VIEW, "elevation_deg": [5, 6], "fov_deg": 40},
        {**VIEW, "set": "fixed", "count": 3, "azimuth_deg": {"relative": [10, 20, 30]}, "elevation_deg": -4},
    )
    poses = rig.poses(0, "a")
    assert [(p.elevation_deg, p.azimuth_deg, p.distance, p.fov_deg) for p in poses["random"]] == [
        (5, 0, 1.5, 40),
        (6, 180, 1.5, 40),
    ]
    assert [(p.elevation_deg, p.azimuth_deg, p.fov_deg) for p in poses["fixed"]] == [
        (-4, 10, None),
        (-4, 20, None),
        (-4, 30, None),
    ]


def test_relative_values_start_at_the_input_view():
    rig = rig_of(
        {**VIEW, "set": "fixed", "azimuth_deg": {"relative": [30, 90]}},
        {**VIEW, "count": 1, "azimuth_deg": {"uniform": [0, 360]}},
    )
    for uid in "abc":
        poses = rig.poses(0, uid)
        start = poses["random"][0].azimuth_deg
        assert [pose.azimuth_deg for pose in poses["fixed"]] == [start + 30, start + 90]


def test_random_rules_have_their_distributions():
    def drawn(rule):
        rig = rig_of({**VIEW, "count": 50, "elevation_deg": rule})
        return np.array([[pose.elevation_deg for pose in rig.poses(0, f"o{i}")["random"]] for i in range(40)])

    uniform = drawn({"uniform": [-10, 30]})
    assert -10 <= uniform.min() < -9.5
    assert 29.5 < uniform.max() <= 30
    assert uniform.mean() == pytest.approx(10, abs=1)
    once = drawn({"uniform_once": [-10, 30]})
    assert (np.ptp(once, axis=1) == 0).all()
    assert len(np.unique(once[:, 0])) == 40
    sphere = drawn({"sphere": [-90, 90]})
    height = np.sin(np.deg2rad(sphere))
    assert np.histogram(height, 4, (-1, 1))[0].min() > 400  # of 2000, 500 expected: heights are uniform


def test_rigs_are_functions_of_seed_and_uid_and_survive_json():
    rig = rig_of({**VIEW, "elevation_deg": {"uniform": [0, 30]}})
    assert rig.poses(0, "a") == rig.poses(0, "a")
    assert rig.poses(0, "a") != rig.poses(0, "b") != rig.poses(1, "b")
    assert stored_rig(json.loads(json.dumps(asdict(rig)))) == rig
    settings = Settings(rig=rig, passes=("depth",))
    assert read_settings(json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize("name", shipped_rigs())
def test_shipped_rigs_are_valid_and_named_after_their_files(name):
    rig = read_rig(name)
    assert rig.name == name
    assert any(rig.poses(0, "a").values())


def test_the_default_is_the_papers():
    assert read_rig("isotropic3d") == default_rig()
    assert default_rig().label == "isotropic3d v1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": []}, "views is missing"),
        ({"name": ""}, "name is ''"),
        ({"version": 0}, "version is 0, expected a number from 1 to 1000"),
        ({"color": 1}, "'color' is unknown; the keys are"),
        ({"projection": "fisheye"}, "projection is 'fisheye'; choose one of perspective, orthographic"),
        ({"projection": "orthographic"}, r"views\[0\]\.width is missing"),
        ({"light": {"kind": "disco"}}, r"light\.kind is 'disco'"),
        ({"views": [{**VIEW, "width": 1}]}, r"views\[0\]\.width does not belong to a perspective rig"),
        ({"views": [{**VIEW, "count": 101}]}, "expected a number from 1 to 100"),
        ({"views": [{**VIEW, "count": 60}, {**VIEW, "count": 60}]}, "random has 120 views; at most 100"),
        ({"views": [{**VIEW, "elevation_deg": [1, 2, 3]}]}, "has 3 numbers, expected 1 or 2"),
        ({"views": [{**VIEW, "elevation_deg": 91}]}, "is 91, expected a number from -90 to 90"),
        ({"views": [{**VIEW, "azimuth_deg": {"turn": 3}}]}, "give a number, a list, or one of uniform"),
        ({"views": [{**VIEW, "azimuth_deg": {"relative": [1, 2]}}]}, "random views cannot be relative"),
        ({"views": [{**VIEW, "set": "fixed", "azimuth_deg": {"relative": [1, 2]}}]}, "there is no random view"),
        ({"views": [{**VIEW, "distance": {"sphere": [1, 2]}}]}, "only elevations"),
    ],
)
def test_mistakes_are_named_with_their_place(change, message):
    with pytest.raises(UserError, match=f"^r\\.toml.*{message}"):
        rig_of(*[VIEW], **change) if "views" not in change else parse_rig(
            {"name": "r", "version": 1, **change}, "r.toml"
        )


def test_missing_files_and_names_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"--rig sphere: there is no such rig; choose .*isotropic3d"):
        read_rig("sphere")
    with pytest.raises(UserError, match="there is no file"):
        read_rig(str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_text("name = ")
    with pytest.raises(UserError, match="not readable TOML"):
        read_rig(str(tmp_path / "b.toml"))


def views_of(name, uid="a"):
    return read_rig(name).poses(0, uid)


def test_zero123plus_has_the_angles_of_its_readme_and_the_distance_of_issue_73():
    poses = views_of("zero123plus")
    (reference,) = poses["random"]
    assert [pose.azimuth_deg - reference.azimuth_deg for pose in poses["fixed"]] == pytest.approx(
        [30, 90, 150, 210, 270, 330]
    )
    assert [pose.elevation_deg for pose in poses["fixed"]] == [20, -10, 20, -10, 20, -10]
    assert {pose.fov_deg for pose in poses["fixed"]} == {30}
    # 0.5 / tan(15 degrees) = 1.8660 for a sphere of radius 0.5; ours has 0.62
    assert [pose.distance / 0.62 * 0.5 for pose in poses["fixed"]] == pytest.approx([1.8660] * 6, abs=1e-4)


def test_wonder3d_and_era3d_are_orthographic_around_the_horizon():
    poses = views_of("wonder3d")["fixed"]
    assert [pose.azimuth_deg for pose in poses] == [0, 45, 90, 180, 270, 315]
    assert {(pose.elevation_deg, round(pose.width / 1.24, 6), pose.distance / 1.24) for pose in poses} == {(0, 1.35, 2)}
    poses = views_of("era3d")["fixed"]
    assert [pose.azimuth_deg for pose in poses] == [22.5 * i for i in range(16)]
    assert {(pose.elevation_deg, pose.width / 1.24, pose.distance / 1.24) for pose in poses} == {(0, 1, 3)}


def test_zero123_has_twelve_views_on_the_whole_sphere():
    poses = [pose for i in range(100) for pose in views_of("zero123", f"o{i}")["random"]]
    assert len(poses) == 1200
    assert {pose.fov_deg for pose in poses} == {None}  # 35 mm on 32 mm
    assert all(1.5 <= pose.distance <= 2.2 for pose in poses)
    below = np.mean([pose.elevation_deg < 0 for pose in poses])
    assert below == pytest.approx(0.5, abs=0.06)


def test_mvdream_draws_lens_elevation_and_distance_per_object():
    for uid in "abc":
        poses = views_of("mvdream", uid)["random"]
        assert [pose.azimuth_deg for pose in poses] == [11.25 * i for i in range(32)]
        ((elevation, fov, distance),) = {(pose.elevation_deg, pose.fov_deg, pose.distance) for pose in poses}
        assert 0 <= elevation <= 30
        assert 15 <= fov <= 60
        assert 0.9 <= distance * np.tan(np.deg2rad(fov / 2)) / 0.5 <= 1.1
    assert len({views_of("mvdream", uid)["random"][0].fov_deg for uid in "abc"}) == 3


def test_syncdreamer_has_the_papers_cameras_under_a_gray_world():
    rig = read_rig("syncdreamer")
    assert (rig.light, rig.light_strength) == ("white", 0.5)
    assert rig.poses(3, "x") == default_rig().poses(3, "x")


def test_the_turntable_shows_whole_objects_from_all_sides():
    poses = views_of("turntable")["fixed"]
    assert [pose.azimuth_deg for pose in poses] == [10 * i for i in range(36)]
    half = np.arctan(16 / 35)  # of the paper's lens
    assert poses[0].distance * np.sin(half) > 0.62  # the radius of normalize = "sphere"


def test_a_choice_is_one_of_its_numbers_and_fit_is_relative_to_the_lens():
    rig = rig_of(
        {**VIEW, "count": 60, "fov_deg": {"choice": [20, 40]}, "distance": {"fit": 1}},
        {**VIEW, "count": 2, "elevation_deg": {"uniform": [0, 30]}},
    )
    poses = rig.poses(0, "a")["random"][:60]
    assert {pose.fov_deg for pose in poses} == {20, 40}
    for pose in poses:
        assert pose.distance == pytest.approx(0.5 / np.tan(np.deg2rad(pose.fov_deg / 2)))
    assert len({pose.elevation_deg for pose in rig.poses(0, "a")["random"][60:]}) == 2


LAMP = {"type": "area", "energy": [300, 600], "x": [-1, 1], "y": 0.5, "z": 2}


def test_lamps_are_drawn_per_object_and_survive_json():
    rig = rig_of(VIEW, light={"kind": "lamps", "strength": 0, "lamps": [LAMP, {**LAMP, "type": "sun"}]})
    assert stored_rig(json.loads(json.dumps(asdict(rig)))) == rig
    placed = [place_lamps(rig.lamps, 0, f"o{i}") for i in range(50)]
    assert placed[0] == place_lamps(rig.lamps, 0, "o0")
    assert all(300 <= lamp.energy <= 600 and -1 <= lamp.place[0] <= 1 for lamps in placed for lamp in lamps)
    assert {lamp.place[1:] for lamps in placed for lamp in lamps} == {(0.5, 2.0)}
    assert len({lamp.energy for lamps in placed for lamp in lamps}) == 100


@pytest.mark.parametrize(
    ("light", "message"),
    [
        ({"kind": "lamps"}, "need each other"),
        ({"kind": "hdri", "lamps": [LAMP]}, "need each other"),
        ({"kind": "lamps", "lamps": [{**LAMP, "type": "torch"}]}, r"lamps\[0\]\.type is 'torch'"),
        ({"kind": "lamps", "lamps": [{**LAMP, "energy": [1, 2, 3]}]}, "has 3 numbers, expected 1 or 2"),
        ({"kind": "lamps", "lamps": [{**LAMP, "shadow": 1}]}, "shadow is 1, expected true or false"),
        ({"kind": "lamps", "lamps": "many"}, "not a list of at most 16"),
    ],
)
def test_mistakes_about_lamps_are_named(light, message):
    with pytest.raises(UserError, match=f"^r\\.toml.*{message}"):
        rig_of(VIEW, light=light)
