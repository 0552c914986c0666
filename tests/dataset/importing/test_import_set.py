"""`python -m dataset import`: round trips, failed objects, resuming, and sets that training reads."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.__main__ import main
from dataset.camera import DISTANCE, convert_c2w, intrinsics_from_fov, spherical_to_c2w
from dataset.check.verify import verify
from dataset.copy.copy_set import copy_sets
from dataset.errors import UserError
from dataset.export.export_set import LAYOUTS, export_set
from dataset.format.outcomes import read_outcomes
from dataset.format.schema import ALL_VIEWS
from dataset.importing import import_set as module
from dataset.importing.import_object import RIG
from dataset.importing.import_set import ImportSummary, import_set, views_text
from dataset.importing.settings import ImportSettings
from dataset.io.files import url_to_fs
from dataset.reading.latent_set import open_views
from dataset.reading.rendered_object import RenderedObject, read_object
from dataset.reading.shard_set import ShardSet
from dataset.report.contact_sheet import preview
from tests.support.make_posed_images import (
    FOV_DEG,
    RING,
    SPIRAL,
    folder_entries,
    write_blender_object,
    write_folder_object,
    write_image,
)
from tests.support.paths import ROOT

NERF = ImportSettings("nerf")
FOLDER = ImportSettings("folder")


def run(source: Path, out: Path, settings: ImportSettings = FOLDER, **options: int) -> ImportSummary:
    return import_set(source, str(out), settings, workers=1, **options)


def first(out: Path) -> RenderedObject:
    return read_object(ShardSet(out), (0, 0), None)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_exported_sets_come_back_with_the_same_views_and_cameras(shards, tmp_path):
    export_set(str(shards), tmp_path / "nerf", LAYOUTS["nerf"])
    summary = run(tmp_path / "nerf", tmp_path / "back", NERF, objects_per_shard=4)
    assert verify(tmp_path / "back") == []
    assert (summary.index.objects, summary.trainable, summary.failed, summary.left_out) == (6, 6, [], 0)
    before, after = ShardSet(shards), ShardSet(tmp_path / "back")
    assert before.uids() == after.uids()
    for place in ((0, 0), (0, 3), (1, 1)):
        old, new = read_object(before, place), read_object(after, place)
        np.testing.assert_array_equal(old.images, new.images)
        np.testing.assert_allclose(old.c2w, new.c2w, atol=1e-6, rtol=0)
        np.testing.assert_allclose(old.K, new.K, atol=1e-6, rtol=0)
        np.testing.assert_allclose(old.angles_deg, new.angles_deg, atol=1e-6, rtol=0)
        assert [view.clipped for view in old.views] == [view.clipped for view in new.views]
        meta = after.meta(*place)
        assert (meta.rig, meta.source, meta.license, meta.normalization.mode) == (
            "import v1",
            "import",
            "unknown",
            "given",
        )
    export_set(str(tmp_path / "back"), tmp_path / "again", LAYOUTS["nerf"])
    for path in (tmp_path / "nerf").rglob("*.png"):
        np.testing.assert_array_equal(
            Image.open(path), Image.open(tmp_path / "again" / path.relative_to(tmp_path / "nerf"))
        )


def test_a_synthetic_nerf_folder(tmp_path):
    source = write_blender_object(tmp_path / "lego")
    summary = run(source, tmp_path / "set", NERF)
    item = first(tmp_path / "set")
    assert item.uid == "lego"
    assert item.keys == tuple(("random", i) for i in range(18))
    np.testing.assert_allclose(item.c2w[1], spherical_to_c2w(11, 53, 4.03), atol=1e-12)
    np.testing.assert_allclose(item.fov_deg, np.rad2deg(0.6911112070083618))
    assert summary.trainable == 0
    assert "lacks 16 of 32 needed views, among others fixed_00; its rig import v1 has 0 fixed and 18" in summary.refusal
    with pytest.raises(UserError) as refused:
        open_views(tmp_path / "set")
    assert str(refused.value) == summary.refusal
    assert summary.refusal in views_text(summary)
    scaled = replace(NERF, scale="auto", resolution=12, license="CC-BY-4.0", creator="somebody", max_views=5)
    summary = run(source, tmp_path / "scaled", scaled)
    item = first(tmp_path / "scaled")
    assert item.images.shape == (5, 12, 12, 4)
    np.testing.assert_allclose(item.size / item.K[:, 0, 0] * item.views[0].distance, DISTANCE * 32 / 35)
    assert summary.left_out == 13
    meta = ShardSet(tmp_path / "scaled").meta(0, 0)
    assert (meta.license, meta.author, meta.renderer["views_left_out"]) == ("CC-BY-4.0", "somebody", 13)
    assert verify(tmp_path / "scaled") == []


def test_a_shuffled_ring_is_found_and_training_reads_it(tmp_path):
    angles = [*SPIRAL, *(RING[(5 * i) % 16] for i in range(16))]
    write_folder_object(tmp_path / "source" / "cup", angles)
    write_folder_object(tmp_path / "source" / "pot", angles, shade=100)
    summary = run(tmp_path / "source", tmp_path / "set")
    assert summary.trainable == 2
    shards = open_views(tmp_path / "set")
    item = read_object(ShardSet(tmp_path / "set"), (0, 0))
    assert item.keys == ALL_VIEWS
    np.testing.assert_allclose(item.angles_deg[:16], RING, atol=1e-9)
    np.testing.assert_allclose(
        item.angles_deg[16:], np.mod(SPIRAL, 360) + [[-360 * (e < 0), 0] for e, _ in SPIRAL], atol=1e-9
    )
    assert item.images[0, 8, 8, 0] == 16  # the first view of the ring is number 16 of the file
    from train.data.loader import BatchLoader

    assert isinstance(shards, ShardSet)
    batch = BatchLoader(shards, 3, 2, 1, 4, 0.0, "relative", 0, 1).load(0)
    assert batch.targets.shape == (2, 4, 3, 16, 16)


def test_the_example_of_the_documentation(tmp_path):
    text = (ROOT / "docs" / "dataset.md").read_text()
    (block,) = re.findall(r'^    (\[\{"file".*?\}\])$', text, re.M | re.S)
    for file in ("000.png", "001.png"):
        write_image(tmp_path / "cup" / file)
    (tmp_path / "cup" / "cameras.json").write_text(block)
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, convention="opengl"))
    np.testing.assert_allclose(first(tmp_path / "set").angles_deg, [(0, 0), (30, 22.5)], atol=1e-9)


def test_both_conventions_and_both_up_axes_give_the_same_cameras(tmp_path):
    expected = np.stack([spherical_to_c2w(e, a, 2.0) for e, a in SPIRAL])
    write_folder_object(tmp_path / "angles", SPIRAL)
    run(tmp_path / "angles", tmp_path / "set")
    np.testing.assert_allclose(first(tmp_path / "set").c2w, expected, atol=1e-12)
    for convention, up in (("opengl", "z"), ("opencv", "z"), ("opengl", "y"), ("opencv", "y")):
        matrices = convert_c2w(expected, "blender", "opengl") if up == "y" else expected
        matrices = matrices @ np.diag([1, -1, -1, 1]) if convention == "opencv" else matrices
        name = f"{convention}-{up}"
        write_folder_object(tmp_path / name, SPIRAL)
        entries = [
            {"file": f"{i:03d}.png", "fov_deg": FOV_DEG, "camera_to_world": each.tolist()}
            for i, each in enumerate(matrices)
        ]
        (tmp_path / name / "cameras.json").write_text(json.dumps(entries))
        run(tmp_path / name, tmp_path / f"set-{name}", replace(FOLDER, convention=convention, up=up))
        item = first(tmp_path / f"set-{name}")
        np.testing.assert_allclose(item.c2w, expected, atol=1e-12)
        np.testing.assert_allclose(item.K[0], intrinsics_from_fov(16, FOV_DEG))
        with pytest.raises(
            UserError, match=r"no object can be imported; .* give --convention opengl .* or --convention opencv"
        ):
            run(tmp_path / name, tmp_path / "none", replace(FOLDER, up=up))
        wrong = "opengl" if convention == "opencv" else "opencv"
        with pytest.raises(UserError, match="all cameras look away from the origin, so the camera axes are probably"):
            run(tmp_path / name, tmp_path / "none", replace(FOLDER, convention=wrong, up=up))


def test_orthographic_views_are_scaled_and_copied(tmp_path):
    write_folder_object(tmp_path / "cup", SPIRAL)
    entries = folder_entries(SPIRAL, orthographic_scale=3.0)
    (tmp_path / "cup" / "cameras.json").write_text(
        json.dumps([{k: v for k, v in e.items() if k != "fov_deg"} for e in entries])
    )
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, scale=0.5))
    meta = ShardSet(tmp_path / "set").meta(0, 0)
    assert meta.projection == "orthographic"
    assert meta.normalization.scale == 0.5
    view = meta.views["random"][0]
    assert view.K[0][0] == pytest.approx(16 / 1.5)
    assert view.distance == pytest.approx(1.0)
    with pytest.raises(UserError, match="has orthographic cameras"):
        export_set(str(tmp_path / "set"), tmp_path / "out", LAYOUTS["nerf"])


def test_centering_moves_what_the_cameras_look_at(tmp_path):
    c2w = np.stack([spherical_to_c2w(e, a, 2.0) for e, a in SPIRAL])
    moved = c2w.copy()
    moved[:, :3, 3] += (3.0, -1.0, 2.0)
    write_folder_object(tmp_path / "cup", SPIRAL)
    entries = [
        {"file": f"{i:03d}.png", "fov_deg": FOV_DEG, "camera_to_world": each.tolist()} for i, each in enumerate(moved)
    ]
    (tmp_path / "cup" / "cameras.json").write_text(json.dumps(entries))
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, convention="opengl", center=True))
    np.testing.assert_allclose(first(tmp_path / "set").c2w, c2w, atol=1e-9)
    np.testing.assert_allclose(ShardSet(tmp_path / "set").meta(0, 0).normalization.offset, (-3, 1, -2), atol=1e-9)


def test_wide_images_are_padded_and_reduced(tmp_path):
    write_folder_object(tmp_path / "cup", SPIRAL, width=32, height=16)
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, resolution=16))
    item = first(tmp_path / "set")
    np.testing.assert_allclose(item.K[0], intrinsics_from_fov(16, FOV_DEG))
    assert item.images.shape == (16, 16, 16, 4)
    assert not item.images[:, :4, :, 3].any()
    assert item.images[0, 8, 8, 3] == 255


def test_objects_that_fail_are_rows_of_the_outcome_table(tmp_path, capsys, monkeypatch):
    source = tmp_path / "source"
    for name in ("a", "b", "c d"):
        write_folder_object(source / name, SPIRAL, shade=ord(name[0]))
    (source / "b" / "003.png").write_bytes((source / "b" / "003.png").read_bytes()[:60])
    (source / "empty").mkdir()
    (source / ".cache").mkdir()
    arguments = ["dataset", "import", "folder", str(source), str(tmp_path / "set"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 1
    printed = capsys.readouterr()
    assert "2 objects, 32 views in 1 shards" in printed.out
    assert "failed 2\n" in printed.out
    assert "Training refuses the others" in printed.out
    assert "failed: ViewImageError: b: " in printed.err
    rows = read_outcomes(*url_to_fs(tmp_path / "set"))
    assert [(row.uid, row.status, row.error_class) for row in rows] == [
        ("a", "ok", ""),
        ("b", "failed", "ViewImageError"),
        ("c_d", "ok", ""),
        ("empty", "failed", "CameraFileError"),
    ]
    assert f"{source}/b/cameras.json, [3]: {source}/b/003.png cannot be read as an image" in rows[1].message
    assert verify(tmp_path / "set") == []
    copy_sets([str(tmp_path / "set")], str(tmp_path / "copy"), resolution=8, workers=1)
    assert verify(tmp_path / "copy") == []
    assert main() == 1  # nothing is left to do, and the failures are named again


def test_equal_objects_are_flagged(tmp_path):
    for name in ("a", "b"):
        write_folder_object(tmp_path / "source" / name, SPIRAL)
    run(tmp_path / "source", tmp_path / "set", objects_per_shard=1)
    assert [row.flags for row in read_outcomes(*url_to_fs(tmp_path / "set"))] == [(), ("duplicate",)]


def test_objects_with_different_views_can_be_previewed(tmp_path):
    write_folder_object(tmp_path / "source" / "a", RING)
    write_folder_object(tmp_path / "source" / "b", SPIRAL[:3])
    summary = run(tmp_path / "source", tmp_path / "set")
    assert summary.index.views == 19
    assert preview(tmp_path / "set", tmp_path / "sheet.png") == 2


def test_an_interrupted_import_resumes_with_the_same_bytes(tmp_path, monkeypatch):
    for number in range(4):
        write_folder_object(tmp_path / "source" / f"object-{number}", SPIRAL[:4], shade=40 * number)
    run(tmp_path / "source", tmp_path / "whole", objects_per_shard=1)
    real, calls = module.import_object, []

    def failing(task):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(module, "import_object", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "source", tmp_path / "set", objects_per_shard=1)
    assert not (tmp_path / "set" / "index.json").exists()
    assert not list((tmp_path / "set").rglob("*.tmp"))
    (tmp_path / "set" / "shard-000002.tar.0123abcd.tmp").write_bytes(b"half")  # as a killed process leaves it
    monkeypatch.setattr(module, "import_object", real)
    before = len(list((tmp_path / "set" / "outcomes").iterdir()))
    assert before < 4
    run(tmp_path / "source", tmp_path / "set", objects_per_shard=1)
    assert verify(tmp_path / "set") == []
    left, right = contents(tmp_path / "whole"), contents(tmp_path / "set")
    assert left.keys() == right.keys()
    assert all(left[name] == right[name] for name in left if not name.startswith("outcomes/"))


def test_another_request_is_refused_once_a_shard_is_finished(tmp_path):
    write_folder_object(tmp_path / "cup", SPIRAL)
    run(tmp_path / "cup", tmp_path / "set")
    with pytest.raises(UserError, match=r"scale was 1\.0, is now 2\.0"):
        run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, scale=2.0))
    (tmp_path / "cup" / "cameras.json").write_text(json.dumps(folder_entries(SPIRAL[:8])))
    with pytest.raises(UserError, match="fingerprint was"):
        run(tmp_path / "cup", tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"contains the file or folder notes\.txt, which is not part of an import"):
        run(tmp_path / "cup", tmp_path / "other")


def test_a_set_of_another_command_is_refused(tmp_path, shards):
    write_folder_object(tmp_path / "cup", SPIRAL)
    with pytest.raises(UserError, match="contains a set that `python -m dataset import` did not write"):
        run(tmp_path / "cup", shards)


def test_a_source_that_fails_as_a_whole_can_be_corrected(tmp_path):
    write_folder_object(tmp_path / "cup", SPIRAL, mode="RGB")
    with pytest.raises(UserError, match=r"none of the 1 objects in .* has no transparent pixels.* give --opaque"):
        run(tmp_path / "cup", tmp_path / "set")
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, opaque=True))
    assert verify(tmp_path / "set") == []
    (row,) = read_outcomes(*url_to_fs(tmp_path / "set"))
    assert (row.status, row.flags) == ("ok", ())  # neither clipped nor near-white: white is the background


def test_names_that_are_not_utf8(tmp_path):
    source = tmp_path / "source"
    write_folder_object(source / "good", SPIRAL[:3])
    write_folder_object(source / os.fsdecode(b"bad\xff"), SPIRAL[:3], mode="RGB")
    summary = run(source, tmp_path / "set")
    assert [row.uid for row in summary.failed] == ["bad_"]
    assert r"source/bad\xff/cameras.json, [0]" in summary.failed[0].message
    assert verify(tmp_path / "set") == []


def test_a_set_inside_the_source_is_refused(tmp_path):
    write_folder_object(tmp_path / "source" / "cup", SPIRAL[:3])
    with pytest.raises(UserError, match="would be inside the source"):
        run(tmp_path / "source", tmp_path / "source" / "set")
    assert not (tmp_path / "source" / "set").exists()


def test_a_source_without_objects_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"is not a folder; give a folder with cameras\.json"):
        run(tmp_path / "nothing", tmp_path / "set")
    (tmp_path / "source" / "cup").mkdir(parents=True)
    with pytest.raises(UserError, match=r"neither .*source nor a folder in it has a file transforms.json"):
        run(tmp_path / "source", tmp_path / "set", NERF)
    assert not (tmp_path / "set").exists()


def test_cameras_that_do_not_show_the_origin_are_noted(tmp_path, capsys):
    write_folder_object(tmp_path / "cup", SPIRAL)
    c2w = np.stack([spherical_to_c2w(e, a, 2.0) for e, a in SPIRAL])
    c2w[2, :3, 3] += 5 * c2w[2, :3, 0]
    entries = [
        {"file": f"{i:03d}.png", "fov_deg": FOV_DEG, "camera_to_world": each.tolist()} for i, each in enumerate(c2w)
    ]
    (tmp_path / "cup" / "cameras.json").write_text(json.dumps(entries))
    run(tmp_path / "cup", tmp_path / "set", replace(FOLDER, convention="opengl"))
    assert "note: cup: 1 of 16 cameras do not show the origin" in capsys.readouterr().err


def test_settings_are_checked(tmp_path):
    with pytest.raises(UserError, match="--workers is 0"):
        import_set(tmp_path, str(tmp_path / "set"), FOLDER, workers=0)
    with pytest.raises(UserError, match="--resolution is 4"):
        replace(FOLDER, resolution=4)
    with pytest.raises(UserError, match="--max-views is 101"):
        replace(FOLDER, max_views=101)
    with pytest.raises(UserError, match="--scale is nan"):
        replace(FOLDER, scale=float("nan"))
    with pytest.raises(UserError, match="--convention and --up apply to the layout folder"):
        replace(NERF, convention="opencv")
    with pytest.raises(UserError, match="--license is ' '"):
        replace(FOLDER, license=" ")


@pytest.mark.integration
def test_worker_processes_write_the_same_set(tmp_path):
    for number in range(3):
        write_folder_object(tmp_path / "source" / f"object-{number}", SPIRAL[:3], shade=40 * number)
    run(tmp_path / "source", tmp_path / "one")
    import_set(tmp_path / "source", str(tmp_path / "two"), FOLDER, workers=2)
    left, right = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert all(left[name] == right[name] for name in left if not name.startswith("outcomes/"))
    assert json.loads(left["set.json"])["rig"] == RIG
