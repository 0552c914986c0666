"""Several images and seeds in one command: each run gives the same result as alone, also if others fail."""

import json
import resource
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from dataset.errors import UserError
from distill.__main__ import main
from distill.config import DistillArgs
from distill.nerf.field import load_field, read_header
from distill.output import results
from distill.runs import job as one
from distill.runs import plan
from distill.runs.sequential import RunOutcome, outcome_table
from distill.sds.checkpoint import CHECKPOINT
from tests.support.distill_micro import SETTINGS, draw, quick_results, rows, same_field

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]


@pytest.fixture
def quick(monkeypatch):
    """Use settings with a few small steps, and results that take no time."""
    monkeypatch.setattr(plan, "PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(one, "write_results", quick_results)


@pytest.fixture
def args(tmp_path, base, quick):
    """Two images and two seeds."""
    images = draw(tmp_path / "red.png", (200, 30, 30)), draw(tmp_path / "blue.png", (30, 30, 200))
    return DistillArgs(image=images, num_seeds=2, model=base, out=tmp_path / "out", device="cpu")


def test_each_run_ends_as_if_alone_and_the_model_is_loaded_once(args, tmp_path, monkeypatch, capsys):
    loads = []
    monkeypatch.setattr(one, "load_model", lambda *given, load=one.load_model: loads.append(1) or load(*given))
    assert main(args) == 0
    names = ["red-seed-0", "red-seed-1", "blue-seed-0", "blue-seed-1"]
    assert sorted(path.name for path in args.out.iterdir()) == sorted(names)
    assert len(loads) == 1
    printed, messages = capsys.readouterr()
    assert list(rows(printed)) == names
    assert {row[0] for row in rows(printed).values()} == {"done"}
    assert (
        "the part that is not transparent, 14x30 pixels, is centered; the longest side fills 78% of 32 pixels"
        in messages
    )
    alone = replace(args, image=args.image[1:], num_seeds=1, seed=1, out=tmp_path / "alone")
    assert main(alone) == 0
    assert same_field(tmp_path / "alone", args.out / "blue-seed-1")
    assert not same_field(tmp_path / "alone", args.out / "blue-seed-0")
    assert not same_field(tmp_path / "alone", args.out / "red-seed-1")
    written = json.loads((args.out / "blue-seed-1" / "config.json").read_text())
    assert written["settings"]["seed"] == 1
    assert written["mesh"]["faces"] == 12


def test_finished_runs_are_skipped_and_reported(args, monkeypatch, capsys):
    args = replace(args, num_seeds=1)
    assert main(args) == 0
    (args.out / "red-seed-0" / "mesh.glb").unlink()
    capsys.readouterr()
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert {name: row[0] for name, row in rows(printed).items()} == {"red-seed-0": "done", "blue-seed-0": "skipped"}
    assert (args.out / "red-seed-0" / "mesh.glb").exists()
    monkeypatch.setattr(one, "load_model", lambda *given: pytest.fail("the model is not needed"))
    assert main(replace(args, preview_every=7)) == 0  # of no effect on the result
    alone = replace(args, image=args.image[:1], out=args.out / "red-seed-0")
    assert main(alone) == 0
    assert "is already finished (12 faces)" in capsys.readouterr().out


def test_failures_do_not_stop_the_others(args, tmp_path, monkeypatch, capsys):
    """A truncated image, a file in place of a folder, and an unexpected error in one run."""
    whole = args.image[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    args.out.mkdir()
    (args.out / "red-seed-0").write_text("in the way")
    guide = one.model_guidance

    def mistaken(*given):
        if given[0] and next(calls) == 1:
            raise KeyError("a mistake")
        return guide(*given)

    calls = iter(range(9))
    monkeypatch.setattr(one, "model_guidance", mistaken)
    assert main(replace(args, image=(tmp_path / "cut.png", *args.image))) == 1
    printed, errors = capsys.readouterr()
    found = rows(printed)
    assert [row[0] for row in found.values()] == ["failed", "failed", "failed", "done", "failed", "done"]
    assert "cannot be read as an image" in " ".join(found["cut-seed-1"])
    assert "cannot be written (File exists)" in " ".join(found["red-seed-0"])
    assert "KeyError: 'a mistake'" in " ".join(found["blue-seed-0"])
    assert "in mistaken" in errors  # where it happened


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_everything_and_the_same_command_resumes(args, tmp_path, monkeypatch, capsys, number):
    args = replace(args, num_seeds=1)
    assert main(replace(args, out=tmp_path / "whole")) == 0
    guide = one.model_guidance

    def stopped(*given):
        guidance, calls = guide(*given), iter(range(99))

        def denoise(*shown):
            if next(calls) == 2:
                signal.raise_signal(number)
            return guidance.denoise(*shown)

        return replace(guidance, denoise=denoise)

    before = signal.getsignal(number)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(one, "model_guidance", stopped)
        with pytest.raises(KeyboardInterrupt):
            main(args)
    assert signal.getsignal(number) is before
    found = rows(capsys.readouterr().out)
    assert {name: (row[0], " ".join(row[2:])) for name, row in found.items()} == {
        "red-seed-0": ("stopped", "resumes from its checkpoint"),
        "blue-seed-0": ("stopped", "not started"),
    }
    assert read_header(args.out / "red-seed-0" / CHECKPOINT)["step"] == "3"
    assert main(args) == 0
    for name in ("red-seed-0", "blue-seed-0"):
        assert same_field(args.out / name, tmp_path / "whole" / name)


def test_images_of_one_name_are_refused(args, tmp_path):
    twin = draw(tmp_path / "more" / "RED.png", (1, 2, 3))
    with pytest.raises(UserError, match=r"red\.png and .*RED\.png would share the run folder red-seed-0"):
        main(replace(args, image=(*args.image, twin)))
    with pytest.raises(UserError, match="at least one image"):
        main(replace(args, image=()))
    with pytest.raises(UserError, match="--num-seeds is 0"):
        main(replace(args, num_seeds=0))
    with pytest.raises(UserError, match="--preview-every is 0"):
        main(replace(args, preview_every=0))
    with pytest.raises(UserError, match="--workers is 0"):
        main(replace(args, workers=0))


def test_dry_run_lists_all_runs_and_writes_nothing(args, tmp_path, capsys):
    assert main(replace(args, dry_run=True)) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(run["out"], run["settings"]["seed"]) for run in planned] == [
        (str(args.out / f"{name}-seed-{seed}"), seed) for name in ("red", "blue") for seed in (0, 1)
    ]
    (tmp_path / "bad.png").write_text("no")
    assert main(replace(args, image=(*args.image, tmp_path / "bad.png"), num_seeds=1, dry_run=True)) == 1
    planned = json.loads(capsys.readouterr().out)
    assert "unknown format" in planned[2]["error"]
    assert not args.out.exists()


def test_glb_is_always_written(args):
    jobs, _ = plan.plan_command(replace(args, formats=("ply",)))
    assert {job.formats for job in jobs} == {("glb", "ply")}


def test_previews_follow_the_setting_and_the_first_is_reported(args, capsys):
    alone = replace(args, image=args.image[:1], num_seeds=1, preview_every=3)
    assert main(alone) == 0
    assert f"{args.out / 'previews' / 'step-000003.png'}: the first preview" in capsys.readouterr().err
    names = {path.name for path in (args.out / "previews").iterdir()}
    assert names == {"step-000003.png", "texture.png"}


def test_a_loss_of_nan_names_the_folder_and_keeps_the_checkpoint(args, monkeypatch):
    guide = one.model_guidance

    def broken(*given):
        guidance, calls = guide(*given), iter(range(99))
        return replace(
            guidance, encode=lambda images: guidance.encode(images) * (float("nan") if next(calls) == 3 else 1)
        )

    monkeypatch.setattr(one, "model_guidance", broken)
    alone = replace(args, image=args.image[:1], num_seeds=1)
    with pytest.raises(UserError) as caught:
        main(alone)
    said = str(caught.value)
    assert said.startswith(f"the run in {args.out} failed: step 3: the loss is nan")
    assert said.endswith(
        "--guidance-scale (the last checkpoint is kept); files kept in the run folder: checkpoint.safetensors"
    )
    assert read_header(args.out / CHECKPOINT)["step"] == "2"


def test_an_empty_field_leaves_all_but_the_mesh(args, monkeypatch):
    empty = replace(SETTINGS, steps=1, nerf=replace(SETTINGS.nerf, blob_density=-50.0, blob_radius=1000.0))
    monkeypatch.setattr(one, "write_results", results.write_results)
    monkeypatch.setattr(results, "VIEW_RESOLUTION", 16, raising=False)
    monkeypatch.setattr(plan, "PRESETS", {"tiny": empty})
    with pytest.raises(UserError, match="nothing was generated: the field is empty") as caught:
        main(replace(args, image=args.image[:1], num_seeds=1))
    kept = {"checkpoint.safetensors", "field.safetensors", "views.png", "turntable.mp4"}
    assert all(name in str(caught.value) for name in kept)
    assert kept <= {path.name for path in args.out.iterdir()}
    assert not (args.out / "mesh.glb").exists()
    assert load_field(args.out / "field.safetensors").settings == empty.nerf


def test_a_full_disk_at_the_end_is_reported_and_the_checkpoint_resumes(args, monkeypatch):
    """A real error of the system: the limit on file sizes is smaller than the field."""

    def on_full_disk(state, settings, mesh_settings, out, **kinds):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            return quick_results(state, settings, mesh_settings, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    alone = replace(args, image=args.image[:1], num_seeds=1, texture="off")
    with monkeypatch.context() as patch:
        patch.setattr(one, "write_results", on_full_disk)
        with pytest.raises(
            UserError,
            match=r"File too large; check the free disk space.*files kept in the run folder: checkpoint\.safetensors",
        ):
            main(alone)
    assert not (args.out / "field.safetensors").exists()
    no_step_is_left = SimpleNamespace(alphas_cumprod=range(1000))  # its length is all that is read
    monkeypatch.setattr(one, "model_guidance", lambda *given: no_step_is_left)
    assert main(alone) == 0


def test_a_folder_that_cannot_be_written_is_named(args, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out cannot be written \(Not a directory\).*another --out"):
        main(replace(args, image=args.image[:1], num_seeds=1, out=tmp_path / "file" / "out"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.json").unlink(), r"not a model folder \(model\.json is missing\)"),
        (lambda folder: shutil.rmtree(folder / "unet"), r"unet: cannot be read as UNet2DConditionModel"),
        (lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), r"unet: cannot be read as UNet2D"),
        (lambda folder: shutil.rmtree(folder / "vae"), r"vae: cannot be read as AutoencoderKL"),
        (lambda folder: shutil.rmtree(folder / "image_tower"), r"contains no image encoder \(image_tower/ is missing"),
        (lambda folder: (folder / "image_tower" / "model.safetensors").unlink(), "not the weights of the image enc"),
        (lambda folder: halve(next((folder / "unet").glob("*.safetensors"))), r"unet: cannot be read as UNet2D"),
        (
            lambda folder: drop_a_tensor(next((folder / "unet").glob("*.safetensors"))),
            r"unet: .*missing, such as conv_in\.weight",
        ),
        (lambda folder: swap(folder / "unet", folder / "vae"), r"(unet|vae): "),
    ],
)
def test_half_a_model_and_the_wrong_one(args, base, tmp_path, spoil, says):
    folder = shutil.copytree(base, tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError, match=says) as caught:
        main(replace(args, model=folder, num_seeds=1, image=args.image[:1]))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: x for name, x in load_file(path).items() if name != "conv_in.weight"}, path)


def swap(first: Path, second: Path) -> None:
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


def test_help_explains_every_option_and_a_wrong_one_is_readable(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # nothing is broken at the end of a line
    with pytest.raises(SystemExit):
        tyro.cli(DistillArgs, prog="python -m distill", args=["--help"])
    shown = capsys.readouterr().out
    for option in DistillArgs.__dataclass_fields__:
        assert f"--{option.replace('_', '-')}" in shown
    assert shown.count("(required)") == 1
    hidden = [field for field in fields(DistillArgs) if field.default in (None, ())]  # their help explains the default
    assert shown.count("(default: ") == len(DistillArgs.__dataclass_fields__) - 1 - len(hidden)
    with pytest.raises(SystemExit) as ended:
        tyro.cli(DistillArgs, prog="python -m distill", args=["--image", "a.png", "--num-sedes", "4"])
    assert ended.value.code == 2
    assert "--num-sedes" in (told := capsys.readouterr().err)
    assert "--num-seeds" in told
    good = tyro.cli(DistillArgs, args=["--image", "a b.png", "c.png", "--num-seeds", "4"])
    assert good.image == (Path("a b.png"), Path("c.png"))


def test_the_table_lines_up():
    shown = outcome_table([RunOutcome("a", "done", 12.3, 500), RunOutcome("long-name", "failed", 1.0, None, "because")])
    assert shown.splitlines() == [
        "run        status  seconds  faces  reason",
        "a          done         12    500",
        "long-name  failed        1         because",
    ]
