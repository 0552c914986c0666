"""The whole loop: it resumes bit-identically, stops cleanly and refuses other settings; the command writes files."""

import json
import math
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from dataset.camera import spherical_to_c2w
from dataset.errors import UserError
from distill.__main__ import main
from distill.config import DistillArgs
from distill.nerf.field import load_field, read_tensors
from distill.output.preview import write_preview
from distill.sds.checkpoint import CHECKPOINT
from distill.sds.loop import distill
from distill.sds.schedule import PRESETS, DistillSettings
from distill.sds.texture_settings import TextureSettings
from tests.support.distill_micro import quick_results, same_field
from tests.support.distill_toy import SETTINGS, make_guidance
from train.model.image_encoder import SmallEncoder, build_image_encoder
from train.model.multiview import ModelSpec, assemble, camera_labels, save_model
from train.model.unet import UNetShape, build_unet, run_unet


def run(folder: Path, settings: DistillSettings = SETTINGS, interrupt_at: int | None = None) -> None:
    guidance = make_guidance(interrupt_at)
    distill(settings, guidance, folder, request=asdict(settings), write_preview=write_preview)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", interrupt_at=3)
    assert signal.getsignal(signal.SIGINT) is handler
    tensors, header = read_tensors(tmp_path / "parts" / CHECKPOINT)
    assert header["step"] == "3"
    whole, _ = read_tensors(tmp_path / "whole" / CHECKPOINT)
    assert not torch.equal(tensors["field.grid.table"], whole["field.grid.table"])
    run(tmp_path / "parts")
    resumed, header = read_tensors(tmp_path / "parts" / CHECKPOINT)
    assert header["step"] == "6"
    assert resumed.keys() == whole.keys()
    assert {"field.grid.table", "occupancy.grid.occs", "optimizer.0.exp_avg_sq"} <= whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_the_seed_matters(tmp_path):
    run(tmp_path / "a", replace(SETTINGS, steps=2))
    run(tmp_path / "b", replace(SETTINGS, steps=2, seed=1))
    a, b = (read_tensors(tmp_path / name / CHECKPOINT)[0]["field.density_mlp.hidden.weight"] for name in "ab")
    assert not torch.equal(a, b)


def test_previews_are_images(tmp_path):
    run(tmp_path)
    previews = sorted((tmp_path / "previews").iterdir())
    assert [path.name for path in previews] == ["step-000003.png", "step-000006.png"]
    assert np.asarray(Image.open(previews[-1])).std() > 5


def test_other_settings_do_not_continue_a_run(tmp_path):
    run(tmp_path, replace(SETTINGS, steps=1))
    changed = replace(SETTINGS, steps=1, march=replace(SETTINGS.march, samples_per_ray=20))
    with pytest.raises(UserError, match=r"other settings:\n  march\.samples_per_ray was 24, is now 20\n"):
        run(tmp_path, changed)


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path, replace(SETTINGS, steps=1))
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is not a complete"):
        run(tmp_path, replace(SETTINGS, steps=1))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda latents: latents * float("nan"), "step 5: the loss is nan"),
        (lambda latents: latents + 0 * (latents - latents).sqrt(), "gradient norm nan"),  # 0 * inf, backwards
    ],
)
def test_a_loss_of_nan_stops_the_run_and_keeps_the_checkpoint(tmp_path, spoil, complaint):
    good, calls = make_guidance(), 0

    def broken(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        latents = good.encode(images)
        return spoil(latents) if calls == 6 else latents

    with pytest.raises(UserError, match=complaint):
        distill(SETTINGS, replace(good, encode=broken), tmp_path, request={})
    tensors, header = read_tensors(tmp_path / CHECKPOINT)
    assert header["step"] == "4"
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest possible model, with random weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    image_encoder = build_image_encoder(
        SmallEncoder(embed_dim=16, image_size=16, patch_size=8, width=16, layers=1, head_width=8)
    )
    shape = UNetShape(4, 8, widths=(32, 32), attention=(True, False), blocks_per_level=1, head_width=16, token_width=16)
    spec = ModelSpec(image_size=16, latent_size=8, latent_scale=1.0, cameras="relative", guidance_scale=5.0)
    save_model(assemble(build_unet(shape), vae, image_encoder, spec, device=torch.device("cpu")), folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:35, 8:22] = (200, 40, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "thing.png")
    return tmp_path / "thing.png"


@pytest.mark.integration
def test_command_line_leaves_everything_that_is_promised(tmp_path, model_folder, picture, capsys):
    out = tmp_path / "out"
    args = DistillArgs(image=(picture,), model=model_folder, out=out, steps=2, device="cpu")
    assert main(args) == 0
    names = {path.name for path in out.iterdir()}
    assert {"mesh.glb", "turntable.mp4", "views.png", "field.safetensors", "config.json", "input.png"} <= names
    assert trimesh.load(out / "mesh.glb", force="mesh").faces.shape[0] > 100
    assert load_field(out / "field.safetensors").settings == PRESETS["tiny"].nerf
    config = json.loads((out / "config.json").read_text())
    assert config["preset"] == "tiny"
    assert config["guidance_scale"] == 5.0
    assert config["settings"]["steps"] == 2
    assert config["settings"]["reference_weight"] == 0
    assert config["mesh"]["faces"] > 100
    with pytest.raises(UserError, match=r"other settings:\n  elevation_deg was 15\.0, is now 3\.0\nRepeat"):
        main(replace(args, elevation_deg=3.0))
    assert json.loads((out / "config.json").read_text()) == config


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, model_folder, picture, capsys):
    out = tmp_path / "out"
    args = DistillArgs(
        image=(picture,), model=model_folder, out=out, preset="paper", reference_loss_weight=2.5, dry_run=True
    )
    assert main(args) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["steps"] == 10_000
    assert plan["settings"]["reference_weight"] == 2.5
    assert plan["out"] == str(out)
    assert not out.exists()


def test_bad_input_is_refused_by_name(tmp_path, model_folder, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="weights/tiny: the bundled model is not in the current folder"):
        main(DistillArgs(image=(picture,)))
    with pytest.raises(UserError, match="nowhere"):
        main(DistillArgs(image=(picture,), model=Path("nowhere")))
    good = DistillArgs(image=(picture,), model=model_folder, dry_run=True)
    with pytest.raises(UserError, match=r"missing\.png"):
        main(replace(good, image=(Path("missing.png"),)))
    with pytest.raises(UserError, match="steps is 0"):
        main(replace(good, steps=0))
    with pytest.raises(UserError, match="elevation-deg is 91"):
        main(replace(good, elevation_deg=91.0))
    with pytest.raises(UserError, match="sofa"):
        main(replace(good, dry_run=False, device="sofa"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_scale": math.nan}, "--guidance-scale is nan; it must be a finite number"),
        ({"guidance_scale": math.inf}, "--guidance-scale is inf; it must be a finite number"),
        ({"elevation_deg": math.nan}, "--elevation-deg is nan; it must be between -90 and 90"),
        ({"azimuth_deg": math.nan}, "--azimuth-deg is nan; it must be a finite number"),
        ({"reference_loss_weight": math.nan}, "--reference-loss-weight is nan; it must be at least 0, and finite"),
        ({"reference_loss_weight": -1.0}, "--reference-loss-weight is -1.0; it must be at least 0, and finite"),
        ({"steps": 0}, "--steps is 0; it must be at least 1"),
        ({"preview_every": 0}, "--preview-every is 0; it must be at least 1"),
        ({"num_seeds": 0}, "--num-seeds is 0; it must be at least 1"),
        ({"seed": -1}, "--seed is -1; it must be between 0 and"),
        ({"seed": 2**63}, f"--seed is {2**63}; it must be between 0 and"),
        ({"seed": 2**63 - 2, "num_seeds": 3}, f"--seed + --num-seeds - 1 is {2**63}; it must be between 0 and"),
        ({"device": "mps"}, "device 'mps': this machine has no Apple GPU; use --device auto, cpu or cuda"),
        ({"device": "meta"}, "device 'meta' is not supported; use --device auto, cpu or cuda"),
    ],
)
def test_invalid_numbers_and_devices_are_refused_by_option(model_folder, picture, tmp_path, changes, message):
    args = DistillArgs(image=(picture,), model=model_folder, out=tmp_path / "out", device="cpu")
    with pytest.raises(UserError, match=re.escape(message)):
        main(replace(args, **changes))
    assert not (tmp_path / "out").exists()


def test_the_largest_seed_runs(tmp_path):
    run(tmp_path, replace(SETTINGS, steps=1, seed=2**63 - 1))


@pytest.mark.integration
def test_the_model_is_conditioned_on_the_image_on_request(tmp_path, model_folder, picture, monkeypatch):
    """The image is an additional frame with its camera label; config.json tells such runs apart."""
    frames = []
    plain = run_unet

    def watched(unet, latents, timesteps, cameras, context, *, num_frames):
        frames.append((type(unet).__name__, getattr(unet, "camera", None)))
        return plain(unet, latents, timesteps, cameras, context, num_frames=num_frames)

    monkeypatch.setattr("train.model.multiview.run_unet", watched)
    args = DistillArgs(image=(picture,), model=model_folder, out=tmp_path / "plain", steps=1, device="cpu")
    main(args)
    assert {name for name, _ in frames} == {"UNet2DConditionModel"}
    frames.clear()
    main(replace(args, out=tmp_path / "shown", with_reference=True))
    assert {name for name, _ in frames} == {"ReferenceFrameUNet"}
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("plain", "shown")]
    assert "shown_from_deg" not in configs[0]
    assert configs[1]["shown_from_deg"] == 0.0
    fields = [load_field(tmp_path / name / "field.safetensors").state_dict() for name in ("plain", "shown")]
    assert any(not torch.equal(fields[0][name], fields[1][name]) for name in fields[0])
    with pytest.raises(UserError, match=r"other settings:\n  shown_from_deg was None, is now 0\.0"):
        main(replace(args, with_reference=True))
    with pytest.raises(UserError, match=r"other settings:\n  shown_from_deg was 0\.0, is now None"):
        main(replace(args, out=tmp_path / "shown"))
    with pytest.raises(UserError, match="needs --with-reference or --reference-loss-weight"):
        main(replace(args, azimuth_deg=20.0))
    with pytest.raises(UserError, match="drop --azimuth-deg"):
        main(replace(args, with_reference=True, azimuth_deg=20.0))
    frames.clear()
    absolute = shutil.copytree(model_folder, tmp_path / "absolute")
    spec = json.loads((absolute / "model.json").read_text())
    (absolute / "model.json").write_text(json.dumps({**spec, "cameras": "absolute"}))
    main(replace(args, model=absolute, out=tmp_path / "turned", with_reference=True, azimuth_deg=20.0))
    expected = camera_labels("absolute", [args.elevation_deg], [20.0], 0.0, 0.0)
    torch.testing.assert_close(frames[0][1], expected.to(frames[0][1]))


def test_the_reference_view_is_supervised_on_request(tmp_path, model_folder, picture, monkeypatch):
    asked = []

    def begin(settings, guidance, folder, **rest):
        asked.append((settings.reference_weight, guidance.reference))
        raise UserError("enough")

    monkeypatch.setattr("distill.runs.job.distill", begin)
    args = DistillArgs(image=(picture,), model=model_folder, out=tmp_path / "out", device="cpu")
    for weight in (0.0, 100.0):
        with pytest.raises(UserError, match="enough"):
            main(replace(args, reference_loss_weight=weight))
    (_, nothing), (weight, reference) = asked
    assert nothing is None
    np.testing.assert_allclose(reference.c2w, spherical_to_c2w([15.0], [0.0], np.linalg.norm(reference.c2w[0, :3, 3])))
    with pytest.raises(UserError, match="relative to the reference image; drop --azimuth-deg"):
        main(replace(args, reference_loss_weight=100.0, azimuth_deg=20.0))
    absolute = shutil.copytree(model_folder, tmp_path / "absolute")
    spec = json.loads((absolute / "model.json").read_text())
    (absolute / "model.json").write_text(json.dumps({**spec, "cameras": "absolute"}))
    for with_reference in (False, True):
        out = tmp_path / f"turned-{with_reference}"
        turned = replace(args, model=absolute, out=out, reference_loss_weight=100.0, with_reference=with_reference)
        with pytest.raises(UserError, match="enough"):
            main(replace(turned, azimuth_deg=20.0))
        c2w = asked[-1][1].c2w
        np.testing.assert_allclose(c2w, spherical_to_c2w([15.0], [20.0], np.linalg.norm(c2w[0, :3, 3])))
        config = json.loads((out / "config.json").read_text())
        assert config["loss_azimuth_deg"] == 20.0
        assert config.get("shown_from_deg") == (20.0 if with_reference else None)
    assert weight == 100
    assert reference.image.shape == (4, 16, 16)
    assert reference.image[3].max() == 1
    Image.new("RGB", (40, 30), (90, 120, 40)).save(picture)
    with pytest.raises(UserError, match="outline"):
        main(replace(args, out=tmp_path / "opaque", reference_loss_weight=100.0))


@pytest.mark.integration
def test_another_format_of_a_finished_run_is_written(tmp_path, model_folder, picture, capsys):
    out = tmp_path / "out"
    args = DistillArgs(image=(picture,), model=model_folder, out=out, steps=2, device="cpu")
    assert main(args) == 0
    assert not (out / "mesh.ply").exists()
    assert main(replace(args, formats=("glb", "ply"))) == 0
    assert (out / "mesh.ply").stat().st_size > 1000
    capsys.readouterr()
    assert main(replace(args, formats=("ply",))) == 0
    assert "is already finished" in capsys.readouterr().out


def test_a_run_stopped_in_its_texture_phase_ends_as_an_unstopped_one(tmp_path, model_folder, picture, monkeypatch):
    small = TextureSettings(rounds=2, groups=1, steps=1, iterations=2, resolution=16)
    monkeypatch.setattr("distill.runs.plan.texture_settings", lambda image_size: small)
    monkeypatch.setattr("distill.runs.job.write_results", quick_results)
    args = DistillArgs(image=(picture,), model=model_folder, out=tmp_path / "a", steps=2, texture="on", device="cpu")
    assert main(args) == 0
    stopped = replace(args, out=tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr("distill.texture.phase._Phase._fit", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            main(stopped)
    assert not (stopped.out / "done.json").exists()
    assert main(stopped) == 0
    assert same_field(args.out, stopped.out)
    first, second = ((run.out / "previews" / "texture.png").read_bytes() for run in (args, stopped))
    assert first == second
    plain = replace(args, out=tmp_path / "c", texture="off")
    assert main(plain) == 0
    first, second = (load_field(run.out / "field.safetensors") for run in (args, plain))
    assert torch.equal(first.grid.table, second.grid.table)
    assert (first.texture is None, second.texture is None) == (False, True)
