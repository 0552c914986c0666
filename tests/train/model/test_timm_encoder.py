"""Image encoders of timm: written and read, converted and exported, and without any download."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dataset.errors import UserError
from tests.support.train_micro import CPU, micro_model
from train.convert.checkpoint_file import parse_notes
from train.export import ExportArgs, export
from train.model.image_encoder import build_image_encoder, center_object, load_image_encoder, resize, save_image_encoder
from train.model.multiview import assemble, load_model, save_model
from train.model.timm_encoder import TimmEncoder, TimmVisual

SPEC = TimmEncoder("test_efficientnet", embed_dim=32, image_size=48, object_fill=0.75)


def test_an_encoder_is_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    encoder = build_image_encoder(SPEC).eval()
    rgb = torch.rand(2, 3, 64, 64)
    save_image_encoder(encoder, tmp_path / "a")
    assert json.loads((tmp_path / "a" / "image_tower.json").read_text()) == {"timm": asdict(SPEC)}
    loaded = load_image_encoder(tmp_path / "a")
    assert loaded.spec == SPEC
    assert loaded.object_fill == 0.75
    with torch.no_grad():
        assert torch.equal(loaded(rgb), encoder(rgb))
        assert loaded(rgb).shape == (2, loaded.embed_dim)


def test_the_projection_may_have_a_hidden_layer(tmp_path: Path) -> None:
    spec = replace(SPEC, hidden_width=24)
    encoder = build_image_encoder(spec).eval()
    save_image_encoder(encoder, tmp_path)
    again = load_image_encoder(tmp_path)
    assert again.spec == spec
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), encoder(images))
    shapes = [tuple(each.shape) for name, each in encoder.named_parameters() if ".head." in name]
    assert shapes == [(24, encoder.visual.num_features), (24,), (32, 24)]


def test_half_precision_is_stored_and_computed_in_float32(tmp_path: Path) -> None:
    encoder = build_image_encoder(SPEC).eval()
    rgb = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(rgb)
        save_image_encoder(nn.Module.to(encoder, torch.float16), tmp_path / "a")  # type: ignore[arg-type]
        loaded = load_image_encoder(tmp_path / "a")
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
        torch.testing.assert_close(loaded(rgb), expected, atol=0.02, rtol=0.02)


def test_the_preprocessing_is_that_of_timm() -> None:
    encoder = build_image_encoder(TimmEncoder("tf_efficientnet_lite0", 16, 32, 0.75)).eval()
    rgb = torch.rand(1, 3, 64, 64)
    pixels = (center_object(resize(rgb, 32).clamp(0, 1), 0.75) - 0.5) / 0.5
    with torch.no_grad():
        torch.testing.assert_close(encoder(rgb), encoder.visual(pixels))


def test_bad_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="object_fill is 2"):
        TimmEncoder("test_efficientnet", 32, 48, 2)
    with pytest.raises(UserError, match=r"no architecture 'unheard_of'.*list_models"):
        TimmVisual(TimmEncoder("unheard_of", 32, 48))
    save_image_encoder(build_image_encoder(SPEC), tmp_path / "a")
    (tmp_path / "a" / "image_tower.json").write_text('{"timm": {"architecture": "test_efficientnet"}}')
    with pytest.raises(UserError, match=r"image_tower\.json"):
        load_image_encoder(tmp_path / "a")
    (tmp_path / "a" / "image_tower.json").write_text(json.dumps({"timm": {**asdict(SPEC), "embed_dim": 33}}))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_image_encoder(tmp_path / "a")


def test_a_model_is_exported_for_diffusers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    micro = micro_model()
    model = assemble(micro.unet, micro.vae, build_image_encoder(SPEC), micro.spec, device=CPU)
    save_model(model, tmp_path / "model")
    with caplog.at_level("INFO"):
        export(ExportArgs(tmp_path / "model", tmp_path / "out"))
    assert "test_efficientnet" in caplog.text
    assert "image_encoder" not in json.loads((tmp_path / "out" / "model_index.json").read_text())
    loaded = load_model(tmp_path / "out", CPU)
    assert loaded.image_encoder.spec == SPEC
    torch.testing.assert_close(loaded.image_encoder.state_dict(), model.image_encoder.state_dict())


def test_notes_of_a_checkpoint_name_the_architecture() -> None:
    values = {"cameras": "absolute", "image_tower": asdict(SPEC)}
    assert parse_notes(json.dumps(values), "file").image_tower == SPEC
