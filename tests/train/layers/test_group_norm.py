"""`train.layers.group_norm`: its gradients, its kernels in Triton's interpreter and through its compiler, and, marked,
on a GPU.
"""

import importlib

import pytest
import torch
from torch import library

from tests.support.norm_agreement import LARGE, SHAPES
from tests.support.triton_cpu import compiled_for_h100, interpreted, needs_triton
from train.layers.group_norm import group_norm

pytestmark = pytest.mark.integration

NAMES = tuple(
    f"{name}, {shifted}{silu}" for name in SHAPES for shifted in ("plain", "shifted") for silu in ("", ", SiLU")
)


def inputs(dtype, shifted):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    return normal(2, 6, 4, 5), normal(6), normal(6), normal(2, 6) if shifted else None


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("silu", [False, True])
def test_result_and_gradients_are_torchs(shifted, silu):
    x, weight, bias, shift = inputs(torch.float64, shifted)
    found = group_norm(x, weight, bias, shift, 3, 1e-5, silu)[0]
    expected = torch.nn.functional.group_norm(x if shift is None else x + shift[:, :, None, None], 3, weight, bias)
    expected = torch.nn.functional.silu(expected) if silu else expected
    torch.testing.assert_close(found, expected)
    given = [tensor for tensor in (x, weight, bias, shift) if tensor is not None]
    upstream = torch.randn_like(x)
    for one, other in zip(
        torch.autograd.grad(found, given, upstream), torch.autograd.grad(expected, given, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


# torch hides this warning where it asks for `.grad` itself, but cannot where warnings are errors
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("shifted", [False, True])
def test_a_compiler_may_take_it_for_what_it_says(shifted):
    """Shapes, types, layouts and gradients of the traced operation are the real one's."""
    report = library.opcheck(group_norm, (*inputs(torch.float32, shifted), 3, 1e-5, True))
    assert set(report.values()) == {"SUCCESS"}


def test_bfloat16_is_summed_in_float32():
    x = (torch.randn(1, 32, 64, 64, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()
    out, statistics = group_norm(x, torch.ones(32), torch.zeros(32), None, 32, 1e-5, False)
    assert out.dtype == torch.bfloat16
    assert statistics.dtype == torch.float32
    torch.testing.assert_close(statistics[0], x.double().mean((2, 3)).float())


@pytest.fixture(scope="module")
def differences() -> dict[str, float]:
    return interpreted("tests.support.norm_agreement", NAMES)


@needs_triton
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_torch_in_the_interpreter(name, differences):
    assert differences[name] <= 3e-5


HALF, FLOAT = "*bf16", "*fp32"
GIVEN = (HALF, HALF, FLOAT, FLOAT, FLOAT)  # x, shift, weight, bias, statistics
SIZES = ("i32",) * 6
TILE = {"ROWS": 32, "WIDTH": 64}
CHOICES = {"HAS_SHIFT": True, "SILU": True}
KERNELS = {
    "_moments": ((HALF, HALF, FLOAT, *SIZES), {"HAS_SHIFT": True, **TILE}),
    "_merge": ((FLOAT, FLOAT, "fp32", *SIZES), {"PARTS": 4, "WIDTH": 16}),
    "_normalize": ((*GIVEN, HALF, *SIZES), {**CHOICES, **TILE}),
    "_gradient_sums": ((*GIVEN, HALF, FLOAT, *SIZES), {**CHOICES, **TILE}),
    "_merge_gradients": ((*[FLOAT] * 5, *SIZES), {"HAS_SHIFT": True, "PARTS": 4, "WIDTH": 16}),
    "_gradient": ((*GIVEN, HALF, FLOAT, HALF, *SIZES), {**CHOICES, **TILE}),
}


@needs_triton
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_for_an_h100(name, tmp_path, monkeypatch):
    """The whole compiler, without a GPU; images are read eight numbers at a time where sizes are multiples of 16, as
    Stable Diffusion's are.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types, constants = KERNELS[name]
    kernel = getattr(importlib.import_module("train.layers.group_norm_triton"), name)
    ptx = compiled_for_h100(kernel, types, constants, whole=("i32",), num_warps=4)
    assert ("ld.global.v4.b32" in ptx) == (HALF in types)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-5), (torch.bfloat16, 1e-2)])
def test_kernels_agree_with_torch_on_a_gpu(dtype, limit):
    from tests.support.norm_agreement import cases

    found = cases("cuda", large=True, dtype=dtype)
    assert len(found) == 4 * len({**SHAPES, **LARGE})
    assert max(found.values()) <= limit, found
