"""Encoders prepared for many images: weights converted once, and compiled networks for one batch size."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.support.train_micro import CPU, micro_model
from train.encode import encoder as encoder_module
from train.encode.encoder import (
    MIN_COMPILED_VIEWS,
    Encoder,
    convert_for_autocast,
    full_batch,
    load_encoder,
    speed_up,
    transformer_blocks,
)
from train.layers import compile as compile_module
from train.layers.compile import compile_modules
from train.model.image_encoder import SmallEncoder, build_image_encoder
from train.model.multiview import ModelSpec, save_model

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
def test_the_networks_are_compiled_for_large_sets_on_a_gpu(
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
    assert fast.compiled_batch == fast.compiled_embedded == (64 if compiled else None)
    blocks = list(encoder.image_encoder.visual.transformer.resblocks)  # type: ignore[union-attr, arg-type]
    assert len(blocks) == 1
    assert modules == ([encoder.vae.encoder, *blocks] if compiled else [])


@pytest.mark.parametrize(
    ("batch_size", "of_vae", "of_random"), [(8, 8, 8), (20, 20, 16), (32, 32, 16), (100, 96, 48), (192, 192, 96)]
)
def test_the_code_is_compiled_for_the_number_of_images_in_most_calls(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, batch_size: int, of_vae: int, of_random: int
) -> None:
    monkeypatch.setattr(encoder_module, "compile_modules", list)
    monkeypatch.setattr(encoder_module, "can_compile", lambda: True)
    fast = speed_up(replace(encoder, device=torch.device("cuda")), batch_size, 32, "on", "random")
    assert (fast.compiled_batch, fast.compiled_embedded) == (of_vae, of_random)
    assert full_batch(batch_size, 32) == of_vae


def test_an_image_encoder_of_timm_is_not_compiled(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: list[nn.Module] = []
    monkeypatch.setattr(encoder_module, "compile_modules", modules.extend)
    monkeypatch.setattr(encoder_module, "can_compile", lambda: True)
    monkeypatch.setattr(encoder_module, "transformer_blocks", lambda image_encoder: [])
    fast = speed_up(replace(encoder, device=torch.device("cuda")), 64, 32, "on")
    assert modules == [encoder.vae.encoder]
    assert (fast.compiled_batch, fast.compiled_embedded) == (64, None)


@pytest.mark.integration
def test_compiled_blocks_share_one_graph_and_give_the_same_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SmallEncoder(embed_dim=32, image_size=32, patch_size=16, width=32, layers=3, head_width=16)
    image_encoder = build_image_encoder(settings).eval().requires_grad_(False)
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    monkeypatch.setattr(compile_module, "BACKEND", "aot_eager")
    encoder = Encoder(nn.Module(), image_encoder, ModelSpec(32, 8, 1.0, "relative", 3.0), CPU, None, 2)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = encoder.embeddings(images)
    torch._dynamo.reset()
    counters.clear()
    compile_modules(transformer_blocks(image_encoder))
    with ThreadPoolExecutor(1) as pool:  # as in train.encode, whose networks run in a thread
        after = pool.submit(encoder.embeddings, images).result()
        alone = pool.submit(encoder.embeddings, images[:1]).result()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone, before[:1], rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


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
    partly = replace(encoder, compiled_batch=2, compiled_embedded=1)
    for count in (2, 1, 3):
        partly.latents(torch.rand(count, 3, 32, 32))
    encoder.latents(torch.rand(1, 3, 32, 32))
    assert stances == ["force_eager"] * 2
    partly.embeddings(torch.rand(1, 3, 32, 32))
    assert stances == ["force_eager"] * 2
    partly.embeddings(torch.rand(2, 3, 32, 32))
    encoder.embeddings(torch.rand(2, 3, 32, 32))
    assert stances == ["force_eager"] * 3
