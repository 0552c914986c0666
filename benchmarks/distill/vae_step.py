"""Time the VAE in a step of distillation: `python -m benchmarks.distill.vae_step`, two minutes on one GPU.

A step encodes the rendered images and differentiates the latents with respect to the images: 8 views of 64 pixels in
the coarse half of the preset `paper`, 4 of 256 pixels in the fine half. The encoder has the size of Stable Diffusion's
and random weights. Each way of computing it is one line of JSON, with the time of a step on the device and on the host,
and the time of compiling and recording. The last line, also JSON, names the fastest way of each half.
`--toy` runs a small encoder on a CPU, without compiling, to check the script.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from benchmarks.distill.distill_parts import SIZES, Sizes, random_model
from benchmarks.options import add_device
from dataset.errors import run_cli
from distill.sds.cuda_graph import GraphedGradient
from distill.sds.guidance import enlarge
from distill.sds.networks import to_run_precision
from distill.sds.schedule import PRESETS
from train.device import fastest_attention
from train.layers.compile import Blocks, Compile, Compute, prepare
from train.layers.vae_attention import use_matmul_attention
from train.loop.flops import seconds_of
from train.model.multiview import MultiViewModel

WARM_UP: Final = 5


@dataclass(frozen=True)
class Way:
    """How the encoder is computed."""

    compile: Compile
    blocks: Blocks
    matmul_attention: bool
    graphs: bool


WAYS: Final = {
    "eager": Way("none", "diffusers", False, False),
    "compiled": Way("whole", "fused", False, False),
    "compiled-graphs": Way("whole", "fused", False, True),
    "compiled-matmul-graphs": Way("whole", "fused", True, True),  # `python -m distill --compile whole`
    "torch-norms-graphs": Way("whole", "lean", True, True),
    "eager-matmul-graphs": Way("none", "fused", True, True),  # compiles nothing but the norms' kernels
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ways to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=50, help="steps per measurement")
    parser.add_argument("--toy", action="store_true", help="run a small encoder without compiling, to check the script")
    add_device(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    tiny, paper = SIZES["tiny"], SIZES["paper"]
    sizes = tiny if options.toy else replace(paper, unet=replace(tiny.unet, latent_size=paper.unet.latent_size))
    model = to_run_precision(random_model(sizes, device, torch.float32), device)
    best: dict[str, Any] = {}
    for name in options.ways:
        way = replace(WAYS[name], compile="none", graphs=False) if options.toy else WAYS[name]
        for half, row in measure(model, sizes, way, options.repeats).items():
            print(json.dumps({"way": name, "half": half, **row}), flush=True)
            if row.get("ms", float("inf")) < best.get(half, {"ms": float("inf")})["ms"]:
                best[half] = {"way": name, **row}
    print(json.dumps({**best, "torch": torch.__version__}))
    return 0


def measure(model: MultiViewModel, sizes: Sizes, way: Way, repeats: int) -> dict[str, dict[str, Any]]:
    """Return the times in one way: a row for the coarse and one for the fine half. An error is also a row."""
    settings, device = PRESETS["tiny" if sizes is SIZES["tiny"] else "paper"], model.device
    encode = encoder_in(model, way)
    rows: dict[str, dict[str, Any]] = {}
    for half, views, side in (
        ("coarse", settings.coarse_views, settings.coarse_resolution),
        ("fine", settings.fine_views, settings.fine_resolution),
    ):
        images = torch.rand(views, 3, side, side, device=device, requires_grad=True)
        try:
            rows[half] = _times(encode, images, repeats)
        except RuntimeError as error:
            rows[half] = {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    return rows


def encoder_in(model: MultiViewModel, way: Way) -> Callable[[Tensor], Tensor]:
    """Return a function that encodes images [f, 3, h, w] with a copy of the model's VAE, computed in one way."""
    torch._dynamo.reset()
    model = replace(model, vae=copy.deepcopy(model.vae))
    encoder = cast(nn.Module, model.vae.encoder)
    if way.matmul_attention:
        use_matmul_attention(encoder, fused_norm=way.blocks == "fused")
    prepare(encoder, Compute(way.compile, channels_last=model.device.type == "cuda", blocks=way.blocks))

    def encode(images: Tensor) -> Tensor:
        with fastest_attention(images.device):
            return model.encode(enlarge(images, model.spec.image_size))

    return GraphedGradient(encode) if way.graphs else encode


def _times(encode: Callable[[Tensor], Tensor], images: Tensor, repeats: int) -> dict[str, Any]:
    device = images.device

    def step() -> Tensor:
        latents = encode(images)
        return torch.autograd.grad(latents, images, torch.ones_like(latents))[0]

    first_s = seconds_of(step, device)
    for _ in range(WARM_UP):
        step()
    host_s = 0.0

    def run() -> None:
        nonlocal host_s
        started = time.perf_counter()
        for _ in range(repeats):
            step()
        host_s = time.perf_counter() - started

    seconds = seconds_of(run, device)
    row = {"ms": 1000 * seconds / repeats, "host_ms": 1000 * host_s / repeats, "first_s": first_s}
    if device.type == "cuda":
        row["allocated_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return {name: round(value, 3) for name, value in row.items()}


if __name__ == "__main__":
    run_cli(main)
