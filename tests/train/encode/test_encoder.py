"""Encoders prepared for many images: weights converted once, and a compiled VAE for one batch size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.train_micro import CPU, micro_model
from train.encode import encoder as encoder_module
from train.encode.encoder import MIN_COMPILED_VIEWS, Encoder, convert_for_autocast, load_encoder, speed_up
from train.model.multiview import save_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    save_model(micro_model(), tmp_path / "model")
    return load_encoder(tmp_path / "model", CPU)


def test_converted_weights_give_the_same_embeddings_under_autocast(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    # torch's fused attention for inference is not used under autocast on a GPU, but it is on a CPU.
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)

    def embeddings() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            result: torch.Tensor = encoder.image_encoder(images)
        return result

    before = embeddings()
    convert_for_autocast(encoder.image_encoder, torch.bfloat16)
    assert torch.equal(embeddings(), before)
    kinds = {(type(layer), p.dtype) for layer in encoder.image_encoder.modules() for p in layer.parameters(False)}
    assert {dtype for layer, dtype in kinds if issubclass(layer, nn.LayerNorm)} == {torch.float32}
    assert not any(dtype == torch.float32 for layer, dtype in kinds if issubclass(layer, (nn.Linear, nn.Conv2d)))


@pytest.mark.parametrize(
    ("choice", "views", "compiled"),
    [
        ("auto", MIN_COMPILED_VIEWS, True),
        ("auto", MIN_COMPILED_VIEWS - 1, False),
        ("on", 32, True),
        ("off", 10**6, False),
    ],
)
def test_the_vae_is_compiled_for_large_sets_on_a_gpu(
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    choice: encoder_module.CompileEncoder,
    views: int,
    compiled: bool,
) -> None:
    modules: list[nn.Module] = []
    monkeypatch.setattr(encoder_module, "compile_modules", modules.extend)
    monkeypatch.setattr(encoder_module, "can_compile", lambda: True)
    fast = speed_up(replace(encoder, device=torch.device("cuda")), 64, views, choice)
    assert fast.compiled_batch == (64 if compiled else None)
    assert modules == ([encoder.vae.encoder] if compiled else [])


def test_without_triton_a_gpu_does_not_compile_and_says_so(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoder_module, "can_compile", lambda: False)
    fast = speed_up(replace(encoder, device=torch.device("cuda")), 64, 32, "on")
    assert fast.compiled_batch is None
    assert "triton is not installed" in caplog.text


def test_a_cpu_changes_nothing(encoder: Encoder) -> None:
    assert speed_up(encoder, 32, 10**6, "on") is encoder
    assert {p.dtype for p in encoder.image_encoder.parameters()} == {torch.float32}


def test_only_full_batches_run_the_compiled_code(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    stances: list[str] = []

    def set_stance(name: str) -> torch.no_grad:
        stances.append(name)
        return torch.no_grad()

    monkeypatch.setattr(torch.compiler, "set_stance", set_stance)
    partly = replace(encoder, compiled_batch=2)
    for count in (2, 1, 3):
        partly.latents(torch.rand(count, 3, 32, 32))
    encoder.latents(torch.rand(1, 3, 32, 32))
    assert stances == ["force_eager"] * 2
