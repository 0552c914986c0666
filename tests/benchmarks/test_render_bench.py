"""The pure functions of the rendering benchmark: object list, PSNR, last line."""

import json

import numpy as np
import pytest

from benchmarks.render.bench_objects import FILES, MODELS, SEED, file_uid, gltf, knot, listed, prepare
from benchmarks.render.plain_settings import BASELINE
from benchmarks.render.quality import alpha_box, compare
from benchmarks.render.reference import VIEWS, folder_of, key_of
from benchmarks.render.render_bench import ALL_VIEWS, VariantResults, summarize, view_list
from benchmarks.render.render_gpu import report, utilization
from dataset.format.schema import check_uid
from render.model_files.gltf import prepare_gltf


def picture(alpha=255, size=8):
    made = np.zeros((size, size, 4), np.uint8)
    made[2:4, 3:6] = (100, 150, 200, alpha)
    return made


def test_psnr_of_known_errors():
    black = np.zeros((1, 4, 4, 4), np.uint8)
    black[..., 3] = 255
    assert compare(black, black).white_db == compare(black, black).box_db == (100.0,)
    for error in (1, 25, 255):
        lighter = black.copy()
        lighter[..., :3] += error
        for decibels in (compare(lighter, black).white_db, compare(lighter, black).box_db):
            assert decibels == pytest.approx([-20 * np.log10(error / 255)], abs=1e-4)


def test_the_box_is_that_of_the_true_alpha():
    assert alpha_box(picture()) == (slice(2, 4), slice(3, 6))
    with pytest.raises(ValueError, match="empty"):
        alpha_box(picture(alpha=0))


def test_white_flatters_and_the_box_does_not():
    truth, seen = picture(), picture()
    seen[2:4, 3:6, 0] += 20
    quality = compare(seen[None], truth[None])
    share = 6 / 64  # of the pixels
    assert quality.box_db[0] == pytest.approx(-10 * np.log10((20 / 255) ** 2 / 3), abs=1e-3)
    assert quality.white_db[0] == pytest.approx(quality.box_db[0] - 10 * np.log10(share), abs=1e-3)
    with pytest.raises(ValueError, match="references"):
        compare(seen[None], truth[None, :4])


def test_the_list_is_fixed_long_enough_and_its_uids_are_usable(tmp_path):
    for models in (MODELS, tmp_path / "missing"):
        uids = listed(models)
        assert len(uids) == len(set(uids)) >= 12
        assert all(check_uid(uid) == uid for uid in uids)
    (tmp_path / "models").mkdir()
    assert file_uid(FILES[0]) in listed(tmp_path / "models")
    with pytest.raises(FileNotFoundError):
        prepare(file_uid(FILES[0]), tmp_path, tmp_path / "models")


def test_the_made_object_is_sound_gltf_and_its_triangles_face_outwards(tmp_path):
    points, triangles = knot(60, 12)
    path = tmp_path / "knot.gltf"
    path.write_text(gltf(points, triangles, {"pbrMetallicRoughness": {}}))
    prepare_gltf(path, tmp_path, tmp_path)
    assert triangles.shape == (2 * 60 * 12, 3)
    corners = points[triangles].astype(np.float64)
    volume = np.einsum("ti,ti->t", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume > 0


def test_the_reference_key_changes_with_the_file_the_views_and_what_people_set(tmp_path, monkeypatch):
    from dataclasses import replace

    from benchmarks.render.bench_objects import BenchObject

    item = BenchObject("a", tmp_path / "a.glb", "00")
    keys = {key_of(item), key_of(replace(item, sha256="01")), key_of(replace(item, uid="b")), key_of(item, VIEWS[:2])}
    monkeypatch.setitem(BASELINE, "filter_width", 1.5)
    keys.add(key_of(item))
    assert len(keys) == 5
    assert folder_of(item, tmp_path).name == f"a-{key_of(item)}"


def test_a_few_views_hold_the_compared_ones():
    assert view_list(4) == list(VIEWS)
    assert sorted(view_list(ALL_VIEWS)) == list(range(ALL_VIEWS))


def test_the_last_line_is_json_with_the_goals_figures():
    quality = compare(np.stack([picture(), picture(250)]), np.stack([picture(), picture()]))
    baseline, ours = VariantResults(2, 64, 600.0, 800.0), VariantResults(4, 128, 60.0, 500.0, {"import": 12.8})
    for results in (baseline, ours):
        results.quality.append(("a", compare(np.stack([picture(250)] * 2), np.stack([picture()] * 2))))
    summary = json.loads(json.dumps(summarize({"a": baseline.row(), "b": ours.row(), "scaling": {"scaling": 1.8}})))
    assert summary["speedup"] == 20.0
    assert summary["seconds_per_view"] == pytest.approx(60 / 128, abs=1e-3)
    assert summary["psnr_mean_db"] == summary["psnr_worst_db"] == pytest.approx(quality.white_db[1], abs=1e-3)
    assert summary["scaling"] == 1.8
    assert ours.row()["import_s_per_view"] == pytest.approx(0.1)
    assert SEED == 0


def test_the_gpu_report_says_what_was_not_measured():
    cpu = {"workers": 16, "seconds_per_view": 0.05}
    line = report(cpu, {"error": "not done after 540 s, killed"}, None)
    assert line["backend"] is None
    assert line["cpu_seconds_per_view"] == 0.05
    assert line["errors"] == {"gpu": "not done after 540 s, killed"}
    assert report(cpu, {"device": "OPTIX", "ready_s": 90.0}, 45.0)["errors"] == {}


def test_utilisation_from_nvidia_smi():
    assert utilization("NVIDIA H100 80GB HBM3, 37 %, 1234 MiB") == 37
    assert utilization("NVIDIA H100 80GB HBM3, [N/A], 1234 MiB") == 0
    assert utilization("no devices were found") == 0
