"""Precision of the frozen networks: guidance amplifies rounding errors, so the last layer and guidance are float32."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distill.sds import networks
from distill.sds.guidance import model_guidance, sds_loss
from distill.sds.networks import available_compile_choice, avoid_overflow, to_run_precision
from distill.sds.schedule import PRESETS, draw_views
from tests.support.paths import ROOT
from tests.support.train_micro import micro_model
from train.layers.compile import Compute, make_optimizer, prepare, update
from train.layers.float32_output import Float32Conv, Float32Norm, cast_network, keep_output_float32
from train.model.multiview import BUNDLED_MODEL, MultiViewModel, load_model
from train.model.noise_schedule import add_noise, classifier_free_guidance, clean_latents
from train.model.unet import run_unet

pytestmark = pytest.mark.usefixtures("one_thread")
CPU, SCALE, TIMESTEP = torch.device("cpu"), 10.0, 980


def clean_prediction(model: MultiViewModel, unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """x0_hat with guidance for four views, whose arithmetic is done in `dtype`."""
    random = torch.Generator().manual_seed(0)
    config: Any = model.unet.config
    shape, width = (4, config.in_channels, 16, 16), config.cross_attention_dim
    latents, noise = (torch.randn(shape, generator=random) for _ in range(2))
    token = torch.randn(1, 1, width, generator=random)
    views = draw_views(PRESETS["tiny"], 0, 4)
    labels = model.labels(views.elevation_deg, views.azimuth_deg, 15.0, 0.0)
    alpha_bar = model.alphas_cumprod[TIMESTEP]
    noisy = add_noise(latents, noise, alpha_bar)
    context = torch.cat([token.expand(4, -1, -1), torch.zeros(4, 1, width)])
    with torch.no_grad():
        predicted = run_unet(
            unet,
            torch.cat([noisy, noisy]),
            torch.full((8,), TIMESTEP),
            torch.cat([labels, labels]),
            context,
            num_frames=4,
        )
    guided = classifier_free_guidance(*predicted.to(dtype).chunk(2), SCALE)
    return clean_latents(noisy.to(dtype), guided, alpha_bar.to(dtype)).float()


def test_a_float32_output_and_guidance_reduce_the_error_of_x0_hat():
    """The bundled model, compared with float32. bfloat16 throughout is what one would get without any care."""
    model = load_model(ROOT / BUNDLED_MODEL, CPU)
    exact = clean_prediction(model, model.unet)

    def error(dtype: torch.dtype, *, careful: bool) -> float:
        unet = copy.deepcopy(model.unet)
        if careful:
            keep_output_float32(unet)
        cast_network(unet, CPU, dtype)
        found = clean_prediction(model, unet, torch.float32 if careful else dtype)
        return float((found - exact).square().mean().sqrt())

    without_care = error(torch.bfloat16, careful=False)
    careful = error(torch.bfloat16, careful=True)
    assert careful < 0.7 * without_care
    assert error(torch.float16, careful=True) < 0.2 * careful


def test_the_last_layer_stays_float32_and_keeps_its_weights():
    unet: Any = micro_model().unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    keep_output_float32(unet)
    cast_network(unet, CPU, torch.float16)
    prepare(unet, Compute(blocks="lean"))
    assert (type(unet.conv_norm_out), type(unet.conv_out)) == (Float32Norm, Float32Conv)
    for name, value in unet.state_dict().items():
        last = name.startswith(("conv_norm_out", "conv_out"))
        assert value.dtype == (torch.float32 if last else torch.float16), name
        assert torch.equal(value, before[name] if last else before[name].half()), name
    with torch.autocast("cpu", torch.bfloat16):
        assert unet.conv_out(torch.ones(1, 32, 2, 2, dtype=torch.float16)).dtype == torch.float32


def test_a_cpu_run_has_the_weights_of_the_folder():
    model = load_model(ROOT / BUNDLED_MODEL, CPU)
    run = to_run_precision(load_model(ROOT / BUNDLED_MODEL, CPU), CPU)
    for part, same in ((run.unet, model.unet), (run.vae, model.vae), (run.image_encoder, model.image_encoder)):
        assert {type(module) for module in part.modules()} == {type(module) for module in same.modules()}
        for name, value in same.state_dict().items():
            assert torch.equal(part.state_dict()[name], value)


def test_an_overflowing_unet_becomes_bfloat16(caplog):
    tokens = torch.zeros(1, 1, 32)
    for factor, expected in ((1.0, torch.float16), (3e4, torch.bfloat16)):
        model = micro_model()
        unet: Any = model.unet
        unet.conv_in.weight.data.mul_(factor)
        keep_output_float32(unet)
        cast_network(unet, CPU, torch.float16)
        avoid_overflow(model, tokens, 4)
        assert unet.conv_in.weight.dtype == expected
        assert unet.conv_out.weight.dtype == torch.float32
        assert ("overflows in float16" in caplog.text) == (expected == torch.bfloat16)


def test_without_triton_a_gpu_run_is_not_compiled(monkeypatch, caplog):
    gpu = torch.device("cuda")
    monkeypatch.setattr(networks, "can_compile", lambda: False)
    assert available_compile_choice("whole", gpu) == "whole"  # an error, from `choose_compute`
    assert available_compile_choice("auto", CPU) == "auto"
    assert not caplog.text
    assert available_compile_choice("auto", gpu) == "none"
    assert "triton is not installed" in caplog.text
    monkeypatch.setattr(networks, "can_compile", lambda: True)
    assert available_compile_choice("auto", gpu) == "auto"


class HostReads(TorchDispatchMode):
    """Counts operations whose result depends on the values of a tensor in a way that makes the host wait for a GPU."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation.overloadpacket.__name__ in self.WAITING:
            self.found[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def test_guidance_and_update_read_only_the_timestep():
    """The timestep is drawn on the CPU, also in a run on a GPU."""
    guidance = model_guidance(micro_model(), torch.zeros(1, 1, 32), 15.0, 10.0, Compute(blocks="fused"))
    images = nn.Parameter(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    optimizer = make_optimizer([images], Compute(fused_optimizer=True), lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    views, generator = draw_views(PRESETS["paper"], 0, 8), torch.Generator().manual_seed(0)
    with HostReads() as reads:
        loss = sds_loss(guidance.encode(images), views, guidance, (20, 980), generator)
        loss.backward()
        assert images.grad is not None
        update(optimizer, loss.detach(), images.grad.norm())
    assert reads.found == Counter({"_local_scalar_dense": 1})
