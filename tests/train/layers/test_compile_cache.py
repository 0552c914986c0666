"""A second process finds the code that a first one compiled, although the group norm is an operation of our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# The operations and their gradients reach the compiler as in the distillation's VAE encoder.
CODE = """
import json
import train
import torch
from torch._dynamo.utils import counters
from train.layers.compile import compile_modules
from train.layers.unet_blocks import FusedNormSilu

torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8)).requires_grad_(False)
network[1].__class__ = FusedNormSilu
compile_modules([network])
images = torch.rand(2, 3, 8, 8, requires_grad=True)
network(images).sum().backward()
print(json.dumps({name: counters["aot_autograd"][name] for name in ("autograd_cache_hit", "autograd_cache_miss")}))
"""


@pytest.mark.slow
def test_the_second_process_compiles_nothing(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_DIR")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    found = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(result.stdout.splitlines()[-1]))
    assert (tmp_path / "isotropic3d" / "compiled" / "inductor").is_dir()
    assert found == [
        {"autograd_cache_hit": 0, "autograd_cache_miss": 1},
        {"autograd_cache_hit": 1, "autograd_cache_miss": 0},
    ]
