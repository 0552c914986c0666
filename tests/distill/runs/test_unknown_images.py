"""The table of known objects: the warning before a run, in its files and on its page, and the corrected embedding."""

import json
from dataclasses import replace

import pytest
import torch

from dataset.errors import UserError
from distill.__main__ import main
from distill.config import DistillArgs
from distill.runs import job as one
from distill.runs import plan
from distill.runs.plan import plan_command
from distill.runs.unknown_images import with_unknown_warnings
from distill.view.run import read_run
from distill.view.run_page import run_page
from tests.support.distill_micro import SETTINGS, draw
from tests.support.known_table import table_of_white
from tests.support.result_page_tags import Tags
from tests.support.train_micro import CPU
from train.model.multiview import load_model
from train.model.recognition.table import CORRECTION, write_known

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]
WARNING = "is unlike anything the model was trained on. The nearest known kinds are: paper."


@pytest.fixture
def args(tmp_path, base, monkeypatch):
    """One run with an image that the model does not know, if it has a table."""
    monkeypatch.setattr(plan, "PRESETS", {"tiny": SETTINGS})
    return DistillArgs(image=(draw(tmp_path / "red.png", (200, 30, 30)),), model=base, out=tmp_path / "a", device="cpu")


def test_the_warning_comes_before_the_run_and_stays_with_its_results(args, base, tmp_path, monkeypatch, capsys):
    plain = plan_command(args)[0][0].request.sha256
    said = []
    monkeypatch.setattr(
        one, "load_model", lambda *given, load=one.load_model: said.append(capsys.readouterr().err) or load(*given)
    )
    with table_of_white(base):
        assert main(args) == 0
        assert WARNING in said[0]
        config, metrics = (json.loads((args.out / name).read_text()) for name in ("config.json", "metrics.json"))
        assert metrics["warnings"] == config["warnings"]
        (warning,) = config["warnings"]
        assert warning.startswith(f"{args.image[0]} {WARNING}")
        assert json.loads((args.out / "done.json").read_text())["request_sha256"] != plain  # the table has an effect
        page = run_page(read_run(args.out, "red"))
        assert Tags(page).text.count(WARNING) == 1
        capsys.readouterr()
        assert main(args) == 0  # finished: nothing to warn about
        assert WARNING not in capsys.readouterr().err


def test_a_run_is_conditioned_on_the_corrected_embedding(args, base, monkeypatch):
    seen = []

    def stop(model, tokens, *given, **named):
        seen.append(tokens)
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "model_guidance", stop)
    with table_of_white(base) as known:
        for familiar in ((-1.0, -1.0), (1.5, 2.0)):
            write_known(replace(known, render_similarity=familiar), base)
            with pytest.raises(KeyboardInterrupt):
                main(args)
    white = load_model(base, CPU).embed_image(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(seen[1], seen[0] + CORRECTION * (white - seen[0]), atol=1e-2, rtol=0)
    assert not torch.allclose(seen[0], seen[1])


def test_a_resumed_run_says_it_once(args, base, monkeypatch, capsys):
    def stop(*given, **named):
        raise KeyboardInterrupt

    with table_of_white(base):
        monkeypatch.setattr(one, "write_results", stop)
        with pytest.raises(KeyboardInterrupt):
            main(args)
        assert capsys.readouterr().err.count(WARNING) == 1
        monkeypatch.undo()
        monkeypatch.setattr(plan, "PRESETS", {"tiny": SETTINGS})
        assert main(args) == 0
        assert WARNING not in capsys.readouterr().err
        assert len(json.loads((args.out / "metrics.json").read_text())["warnings"]) == 1
        assert len(json.loads((args.out / "config.json").read_text())["warnings"]) == 1


def test_several_runs_of_one_image_warn_once(args, base, capsys):
    jobs, _ = plan_command(replace(args, num_seeds=3))
    with table_of_white(base):
        warned = with_unknown_warnings(jobs)
    assert capsys.readouterr().err.count(WARNING) == 1
    assert [len(job.warnings) for job in warned] == [1, 1, 1]
    assert [job.request for job in warned] == [job.request for job in jobs]


def test_known_images_and_models_without_a_table_change_nothing(args, base, capsys):
    jobs, _ = plan_command(args)
    assert with_unknown_warnings(jobs) == jobs
    with table_of_white(base) as known:
        assert known.kinds == ("paper",)
        assert "warnings" not in jobs[0].config
    assert capsys.readouterr().err == ""


def test_a_damaged_table_is_refused_before_the_run(args, base):
    with table_of_white(base):
        (base / "known" / "known.json").write_text("{")
        with pytest.raises(UserError, match="not a readable table of known objects"):
            main(args)
    assert not args.out.exists()
