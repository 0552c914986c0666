import json
from dataclasses import asdict

import numpy as np
import pytest

from dataset.errors import UserError
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
