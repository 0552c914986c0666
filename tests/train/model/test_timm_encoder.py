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
from train.model.color_grid import COLOR_SCALE
from train.model.fingerprint import image_encoder_sha256
from train.model.image_encoder import build_image_encoder, center_object, load_image_encoder, resize, save_image_encoder
from train.model.multiview import assemble, load_model, save_model
from train.model.timm_encoder import TimmEncoder, TimmVisual

SPEC = TimmEncoder("test_efficientnet", embed_dim=32, image_size=48, object_fill=0.75)


def test_an_encoder_is_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_image_encoder(SPEC).eval()  # imports timm, which needs the functions that are replaced below
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
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


@pytest.mark.parametrize("hidden_width", [None, 24])
def test_an_encoder_with_a_color_grid_appends_the_colors_of_the_centered_object(
    hidden_width: int | None, tmp_path: Path
) -> None:
    """An object in a corner of its image, red at the left and blue at the right, has the same colors in the middle."""
    spec = replace(SPEC, embed_dim=44, hidden_width=hidden_width, color_grid=2)
    encoder = build_image_encoder(spec).eval()
    middle, corner = torch.ones(2, 1, 3, 48, 48)
    red, blue = torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.3, 0.9]])[:, :, None, None]
    middle[..., 6:42, 6:24], middle[..., 6:42, 24:42] = red, blue
    corner[..., :18, :9], corner[..., :18, 9:18] = red, blue
    save_image_encoder(encoder, tmp_path)
    again = load_image_encoder(tmp_path)
    assert (again.embed_dim, again.num_colors, again.spec) == (44, 12, spec)
    with torch.no_grad():
        embeddings = again(torch.cat([middle, corner]))
        assert torch.equal(embeddings, encoder(torch.cat([middle, corner])))
    assert embeddings.shape == (2, again.embed_dim)
    assert embeddings.dtype == torch.float32
    colors = embeddings[:, 32:].view(2, 3, 2, 2) / COLOR_SCALE + 0.5
    for column, color in enumerate((red, blue)):
        expected = color.view(1, 3, 1).expand(2, 3, 2)
        torch.testing.assert_close(colors[..., column], expected, atol=0.15, rtol=0)  # the edges are blurred with white
    plain = build_image_encoder(replace(spec, embed_dim=32, color_grid=None))
    plain.visual.load_state_dict(encoder.visual.state_dict())
    assert image_encoder_sha256(plain) != image_encoder_sha256(encoder)


@pytest.mark.parametrize(("side", "embed_dim"), [(0, 32), (4, 32), (2, 12)])
def test_a_color_grid_leaves_channels_for_the_network(side: int, embed_dim: int) -> None:
    with pytest.raises(ValueError, match=f"color_grid is {side}"):
        replace(SPEC, embed_dim=embed_dim, color_grid=side)


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
