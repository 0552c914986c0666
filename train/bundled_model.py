"""Write the folder of the bundled model: float16 weights, config.json and a README.md."""

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

import torch
from torch import nn

from train.components.backbone import PACKAGES
from train.loop.run_config import CONFIG_FILE
from train.model.image_encoder import ImageEncoderSpec
from train.model.multiview import load_model, save_model
from train.model.recognition.table import remove_known
from train.model.timm_encoder import TimmEncoder

MAX_MB: Final = 90  # largest size that a checkout should contain


def write_float16(
    folder: Path, out: Path, arguments: str, vae: nn.Module | None = None, backbone: Path | None = None
) -> float:
    """Write the model of a training run to another model folder, in float16, with config.json and a README.md.

    The files contain no path of this machine.

    Returns the size of the model folder in megabytes (10^6 bytes).

    Args:
        folder: Run folder.
        out: Model folder to write.
        arguments: Options of the command for README.md, from `make_arguments`.
        vae: Autoencoder with the same encoder as the run's, to write in its place. None: the run's.
        backbone: File from which the image encoder's pretrained weights were read. None: the package.
    """
    model = load_model(folder, torch.device("cpu"))
    if vae is not None:
        model = replace(model, vae=vae)
    for part in (model.unet, model.vae, model.image_encoder):
        nn.Module.to(part, torch.float16)
    remove_known(out)  # a table of known objects belongs to the image encoder that is replaced
    save_model(model, out)
    for part_config in (out / "unet" / "config.json", out / "vae" / "config.json"):
        values = json.loads(part_config.read_text())
        values.pop("_name_or_path", None)  # a path of this machine
        part_config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    config = {**json.loads((folder / CONFIG_FILE).read_text()), "base": None}  # stage 1 has the same data and command
    config["data"] = {**config["data"], "url": PurePosixPath(config["data"]["url"]).name}
    (out / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    (out / "README.md").write_text(
        card(config["data"]["objects"], arguments, model.spec.image_size, model.image_encoder.spec, backbone)
    )
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6


def card(objects: int, arguments: str, image_size: int, encoder: ImageEncoderSpec, backbone: Path | None = None) -> str:
    """Return the text of the bundled model's README.md.

    Args:
        objects: Number of objects of the training set.
        arguments: Options of the command, from `make_arguments`.
        image_size: Height and width of the model's images in pixels.
        encoder: Settings of the image encoder.
        backbone: File from which the image encoder's pretrained weights were read. None: the package.
    """
    start = ""
    if isinstance(encoder, TimmEncoder):
        package = PACKAGES.get(encoder.architecture)
        source = "" if package is None else f"\n(ImageNet; Apache-2.0; from the package {package.replace('_', '-')})"
        if backbone is not None:
            source = f"\n(from the file {backbone.name})"
        start = f"\n\nThe image encoder starts from pretrained weights of {encoder.architecture}{source}."
    return f"""# The bundled model

A small multi-view diffusion model after Isotropic3D. It generates {image_size}-pixel views of an object from the
embedding of one image. All parts were trained by

    make tiny-model{arguments}

on rendered shards of {objects:,} objects, of which 5 % were kept for testing and 5 % for validation. Weights are
float16. `{CONFIG_FILE}` is the recipe of both stages.{start}
"""
