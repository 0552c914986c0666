"""diffusers' blocks without their copies: the same numbers and names, and channels last from end to end."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.micro_batches import SHAPE, batch, gradients
from train.layers import compile as computing
from train.layers.compile import Compute, prepare
from train.layers.unet_blocks import LeanGeglu, LeanResnet, LeanTransformer, LeanUpsample, make_lean
from train.loop.loss import predict, training_loss
from train.model.noise_schedule import noise_schedule
from train.model.unet import build_unet

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("lean", "fused")


def network():
    torch.manual_seed(0)
    return build_unet(SHAPE)


class Copies(TorchDispatchMode):
    """Counts images that an operation writes in another layout than channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        views = any(result.alias_info is not None for result in operation._schema.returns)
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and not views and is_picture(tensor):
                self.found[str(operation)] += not tensor.is_contiguous(memory_format=torch.channels_last)
        return out


def is_picture(tensor: torch.Tensor) -> bool:
    """Of a level of SHAPE; attention's [b, heads, l, c] are none."""
    return tensor.dim() == 4 and tensor.shape[0] == 10 and tensor.shape[2:] in ((8, 8), (4, 4)) and tensor.shape[1] > 4


def written_otherwise(compute: Compute) -> int:
    unet = prepare(network().train(), compute)
    encoded, draw = batch("attention")
    with Copies() as copies:
        training_loss(predict(unet, encoded, draw, noise_schedule()), draw, noise_schedule()).backward()
    return sum(copies.found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_leaves_channels_last(kind):
    assert written_otherwise(Compute(channels_last=True)) > 40  # so that the line below means something
    assert written_otherwise(Compute(channels_last=True, blocks=kind)) == 0


@pytest.mark.parametrize("use", ["none", "attention"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_diffusers(kind, use):
    unet = network()
    plain, lean = (gradients(unet, Compute(channels_last=True, blocks=blocks), use) for blocks in ("diffusers", kind))
    assert lean[0] == pytest.approx(plain[0], rel=1e-5)
    assert list(lean[1]) == list(plain[1])
    for name, expected in plain[1].items():
        torch.testing.assert_close(lean[1][name], expected, rtol=1e-3, atol=1e-6, msg=name)


# torch hides this warning where it asks for `.grad` itself, but cannot where warnings are errors
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("kind", "compiled"), [("fused", "whole"), ("lean", "blocks")])
def test_they_compile_without_a_break(kind, compiled, monkeypatch):
    monkeypatch.setattr(computing, "BACKEND", "aot_eager")
    unet = network()
    plain = gradients(unet, Compute(), "attention")
    found = gradients(unet, Compute(compiled, channels_last=True, blocks=kind), "attention")
    assert found[0] == pytest.approx(plain[0], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_of_a_vae_gives_the_same_latents_and_input_gradient(kind):
    torch.manual_seed(0)
    plain = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        latent_channels=4,
    ).encoder
    lean = copy.deepcopy(plain)
    make_lean(lean, fused=kind == "fused")
    assert any(isinstance(module, LeanResnet) for module in lean.modules())
    assert list(lean.state_dict()) == list(plain.state_dict())
    images = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
    latents = [encoder(images) for encoder in (plain, lean)]
    torch.testing.assert_close(latents[1], latents[0], rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(each.square().sum(), images)[0] for each in latents]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-4)


def test_the_blocks_of_a_unet_are_all_changed():
    unet = network()
    before = Counter(type(module).__name__ for module in unet.modules())
    make_lean(unet, fused=True)
    after = Counter(type(module).__name__ for module in unet.modules())
    for plain, lean in (
        ("ResnetBlock2D", LeanResnet),
        ("Transformer2DModel", LeanTransformer),
        ("Upsample2D", LeanUpsample),
        ("GEGLU", LeanGeglu),
    ):
        assert before[plain] > 0
        assert after[plain] == 0
        assert after[lean.__name__] == before[plain]
    assert after["GroupNorm"] == 0


@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_unit_concatenates_no_gradients(bias):
    torch.manual_seed(0)
    plain = GEGLU(8, 16, bias=bias)
    lean = copy.deepcopy(plain)
    make_lean(nn.Sequential(lean), fused=False)
    x = torch.randn(2, 5, 8, requires_grad=True)
    torch.testing.assert_close(lean(x), plain(x))
    assert _concatenated_widths(plain, x) == {32}
    assert _concatenated_widths(lean, x) == set()


def _concatenated_widths(network: nn.Module, x: torch.Tensor) -> set[int]:
    with Calls() as calls:
        network(x).square().sum().backward()
    return {shape[-1] for name, shape in calls.found if name == "aten.cat" and len(shape) > 2}


class Calls(TorchDispatchMode):
    """Lists the name of each operation and the shape of its first result."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.found.append((str(operation.overloadpacket), tuple(out.shape)))
        return out


def test_an_odd_size_is_upsampled_as_diffusers_does():
    """The size of the skip that it meets is asked for."""
    unet = network()
    upsample = next(module for module in unet.modules() if type(module).__name__ == "Upsample2D")
    x = torch.randn(1, 64, 3, 4)
    expected = [upsample(x), upsample(x, (5, 7))]
    make_lean(unet, fused=False)
    torch.testing.assert_close([upsample(x), upsample(x, (5, 7))], expected)
