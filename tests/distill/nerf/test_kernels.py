"""The Triton kernels: interpreted on the CPU, compiled for an H100 and, in tests marked gpu, run on a GPU."""

import importlib
import logging

import pytest
import torch
from torch import Tensor

from dataset.camera import spherical_to_c2w
from distill.nerf.backend import has_kernels, missing_for
from distill.nerf.field import Field
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import RenderOutput, render_views
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings
from tests.support.triton_cpu import compiled_for_h100, interpreted, needs_triton

pytestmark = pytest.mark.integration

LIMITS = {"float64": 1e-12, "float32": 2e-5}
NAMES = (
    "grid float64",
    "grid and Jacobian float64",
    "grid and Jacobian float32",
    "grid of three features float64",
    "grid without points float64",
    "field float64",
    "field float32",
    "field without points float64",
    "composite float64",
    "composite float32",
    "composite of empty rays float64",
    "composite without rays float64",
    "march float32",
    "march without grid float32",
    "march without rays float32",
    "picture float32",
)


@pytest.fixture(scope="module")
def differences() -> dict[str, float]:
    return interpreted("tests.support.kernel_agreement", NAMES)


@needs_triton
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_torch_in_the_interpreter(name, differences):
    assert differences[name] <= LIMITS[name.split()[-1]]


@needs_triton
def test_the_march_in_the_interpreter_is_exact(differences):
    assert differences["march float32"] == 0


@needs_triton
def test_kernels_compile_for_an_h100(tmp_path, monkeypatch):
    """Compile without a GPU; features of a corner are loaded together, networks use matrix
    products and ray marching fuses nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptx = {name: ptx_of(name) for name in KERNELS}
    assert ptx["look_up"].count("ld.global.v2.b32") == 8
    assert ptx["scatter"].count("add.v2.f32") == 8
    assert all("wgmma" in ptx[name] for name in ("decode", "density_backward", "albedo_backward"))
    assert "fma" not in ptx["march"]
    assert "fma" in ptx["look_up"]  # so that the line above means something


FLOAT, LONG, INT, BYTE = "*fp32", "*i64", "*i32", "*u8"
GRID_CONSTANTS = {"CHANNELS": 2, "PADDED": 2, "JACOBIAN": True, "BLOCK": 128}
FIELD_CONSTANTS = {"WIDTH": 32, "W": 32, "HIDDEN": 64, "H": 64, "COLORS": 16, "PRECISION": "tf32", "EPSILON": 1e-12}
COMPOSITE_CONSTANTS = {"WIDTH": 9, "PADDED": 16, "BLOCK": 32}
KERNELS = {
    "look_up": ("hash_grid._look_up_kernel", (FLOAT, FLOAT, INT, FLOAT, "i32"), GRID_CONSTANTS),
    "scatter": ("hash_grid._scatter_kernel", (FLOAT, FLOAT, INT, FLOAT, "i32"), GRID_CONSTANTS),
    "decode": (
        "field._decode",
        (*[FLOAT] * 9, "i32", *["fp32"] * 3),
        {**FIELD_CONSTANTS, "EVERYTHING": True, "BLOCK": 64},
    ),
    "density_backward": (
        "field._density_backward",
        (*[FLOAT] * 11, "i32", *["fp32"] * 3),
        {**FIELD_CONSTANTS, "BLOCK": 32},
    ),
    "albedo_backward": (
        "field._albedo_backward",
        (*[FLOAT] * 10, "i32", *["fp32"] * 3),
        {**FIELD_CONSTANTS, "BLOCK": 32},
    ),
    "weight": (
        "composite._weight_kernel",
        (LONG, FLOAT, FLOAT, FLOAT, "fp32"),
        {"MAX_OPTICAL_DEPTH": 104.0, "BLOCK": 32},
    ),
    "sum": ("composite._sum_kernel", (LONG, FLOAT, FLOAT, FLOAT), COMPOSITE_CONSTANTS),
    "gradient": (
        "composite._gradient_kernel",
        (LONG, *[FLOAT] * 6, "fp32"),
        {"ATTACHED": 8, **COMPOSITE_CONSTANTS},
    ),
    "march": (
        "ray_march._march",
        (*[FLOAT] * 5, BYTE, LONG, FLOAT, LONG, "i32", "i32", "fp32", "fp32", "fp32"),
        {"SIDE": 32, "HAS_CELLS": True, "WRITE": True, "BLOCK": 128},
    ),
}


def ptx_of(name: str) -> str:
    """Return the PTX of a kernel of `KERNELS`."""
    place, types, constants = KERNELS[name]
    module, function = place.split(".")
    kernel = getattr(importlib.import_module(f"distill.nerf.kernels.{module}"), function)
    return compiled_for_h100(kernel, types, constants, **({"enable_fp_fusion": False} if name == "march" else {}))


def test_plain_torch_is_announced_once(caplog):
    has_kernels.cache_clear()
    with caplog.at_level(logging.INFO):
        assert not has_kernels("cpu")
        assert not has_kernels("cpu")
    assert [record.message for record in caplog.records] == [
        "hash grid, ray marching and compositing run in plain torch: the Triton kernels need a CUDA GPU, but the "
        "device is cpu"
    ]
    assert missing_for("cuda", installed=True) == ""
    assert missing_for("cuda", installed=False) == "Triton is not installed"


SETTINGS = MarchSettings(samples_per_ray=200, occupancy_resolution=16, occupancy_threshold=1e-4, sample_budget=20_000)
CAMERAS = spherical_to_c2w([10.0, -20.0], [0.0, 130.0], [1.5, 1.8])


def rendered_on(device: str) -> tuple[RenderOutput, list[Tensor]]:
    """Render a field with gradients, in several chunks."""
    generator = torch.Generator().manual_seed(0)
    grid = HashGridSettings(levels=6, log2_table_size=12, base_resolution=4, growth=1.6)
    field = Field(FieldSettings(grid=grid, radius=0.9, hidden_width=16), generator)
    with torch.no_grad():
        field.grid.table.uniform_(-0.5, 0.5, generator=generator)
    occupancy = Occupancy(field.radius, SETTINGS)
    for step in range(0, 64, SETTINGS.occupancy_every):
        occupancy.update(step, field.density, seed=0)
    field, occupancy = field.to(device), occupancy.to(device)
    picture = render_views(field, CAMERAS, 45.0, 32, settings=SETTINGS, occupancy=occupancy, device=device)
    loss = picture.rgb.square().sum() + picture.normal.square().sum() + picture.away.sum()
    gradients = torch.autograd.grad(loss, list(field.parameters()))
    picture = RenderOutput(*(values.detach().cpu() for values in picture))
    return picture, [gradient.cpu() for gradient in gradients]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_torch_on_a_gpu(name):
    from tests.support.kernel_agreement import cases

    assert has_kernels("cuda")
    difference = cases("cuda", 20_000, 3_000)[name]()
    # Rounding may put a sample at a cell's border on either side, or one that is almost hidden.
    assert difference <= (1e-3 if name.startswith(("march", "picture")) else LIMITS[name.split()[-1]])


@pytest.mark.gpu
def test_a_gpu_renders_and_differentiates_as_a_cpu_does():
    """Compare all kernels with plain torch."""
    (on_cpu, expected), (on_gpu, found) = rendered_on("cpu"), rendered_on("cuda")
    torch.testing.assert_close(on_gpu.rgb, on_cpu.rgb, atol=2e-3, rtol=0)
    torch.testing.assert_close(on_gpu.alpha, on_cpu.alpha, atol=2e-3, rtol=0)
    for gradient, reference in zip(found, expected, strict=True):
        scale = reference.abs().max()
        torch.testing.assert_close(gradient / scale, reference / scale, atol=2e-2, rtol=0)


@pytest.mark.gpu
def test_memory_follows_the_budget():
    """Rendering more images at once takes no more memory than their rays and samples."""
    field = Field(FieldSettings(), torch.Generator().manual_seed(0)).cuda()
    settings = MarchSettings(sample_budget=2**18)
    peaks = []
    for views in (1, 4):
        cameras = spherical_to_c2w([10.0] * views, [90.0 * view for view in range(views)], [2.0] * views)
        torch.cuda.reset_peak_memory_stats()
        picture = render_views(field, cameras, 40.0, 128, settings=settings, device="cuda")
        torch.autograd.backward(picture.rgb.sum())
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.5 * peaks[0]
