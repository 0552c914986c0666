"""The benchmark of time outside sampling: a checkout compared with itself, bad input, failing objects."""

import json
import sys

import pytest

from benchmarks.render.setup_time import PARTS, SetupTimeConfig, bench_jobs, main, render, renderer
from dataset.errors import UserError
from tests.support.make_models import box_glb
from tests.support.paths import ROOT

NO_BLENDER = "Blender's module is installed on Python 3.11 only"


@pytest.mark.integration
def test_a_checkout_renders_the_same_shards_as_itself(tmp_path, capsys):
    pytest.importorskip("bpy", reason=NO_BLENDER)
    box_glb(tmp_path / "boxes" / "box.glb")
    main(SetupTimeConfig(objects=1, models=tmp_path, resolution=16, samples=1))
    *lines, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert (figures.pop("identical_shards"), figures.pop("objects")) == (2, 2)
    assert tuple(figures) == PARTS
    assert all(0.3 < ratio < 3 for ratio in figures.values())
    assert len(lines) == 2 * len(PARTS)


@pytest.mark.integration
def test_the_reason_of_a_failure_is_shown(tmp_path):
    pytest.importorskip("bpy", reason=NO_BLENDER)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "text.glb").write_text("no model")
    (job,) = bench_jobs(1, tmp_path)["files"]
    with (
        renderer(ROOT, SetupTimeConfig(resolution=16, samples=1)) as process,
        pytest.raises(UserError, match=r"texts-text cannot be rendered.*ModelError"),
    ):
        render(process, job, tmp_path / "a.tar")


def test_the_output_of_a_process_that_ended_is_shown(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho out of disks >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    box_glb(tmp_path / "boxes" / "box.glb")
    (job,) = bench_jobs(1, tmp_path)["files"]
    with renderer(ROOT, SetupTimeConfig()) as process:
        for _ in range(2):
            with pytest.raises(UserError, match=r"boxes-box: the process ended with status 3.*\nout of disks"):
                render(process, job, tmp_path / "a.tar")


def test_model_files_are_spread_evenly(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(23):
        (tmp_path / "a" / f"{number:02d}.glb").touch()
    jobs = bench_jobs(12, tmp_path)
    assert [int(job.uid[2:]) for job in jobs["files"]] == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21]
    assert [job.index for job in jobs["procedural"]] == list(range(12))


def test_bad_input_is_named_before_anything_is_rendered(tmp_path):
    with pytest.raises(UserError, match="--objects must be at least 1, not 0"):
        main(SetupTimeConfig(objects=0))
    with pytest.raises(UserError, match=r"gone contains 0 files .* --models"):
        main(SetupTimeConfig(models=tmp_path / "gone"))
    with pytest.raises(UserError, match="gone is not a checkout"):
        main(SetupTimeConfig(compare=tmp_path / "gone"))
