"""Generate the model card (README.md) of a model on the Hugging Face Hub from the files of the model folder."""

import json
import logging
from pathlib import Path
from typing import Any, Final

from dataset.check.info import info
from dataset.errors import UserError
from train.convert.resolve import SOURCE_FILE
from train.model.multiview import ModelSpec

logger = logging.getLogger(__name__)

CONFIG_FILE: Final = "config.json"  # written by a training run
_LICENSES_SHOWN: Final = 12

_HEAD: Final = """---
library_name: diffusers
pipeline_tag: image-to-3d
tags: [multi-view, image-to-3d, isotropic3d]
---
# {name}

A multi-view diffusion model after Isotropic3D (arXiv 2403.10395): from the CLIP embedding of one image to several
views of the object, and to a mesh by score distillation.
"""

_USE: Final = """
## Use

    make sample MODEL=hf:{repo} IMG=image.png
    make distill MODEL=hf:{repo} IMG=image.png

The parts can be loaded with diffusers: `UNet2DConditionModel.from_pretrained("{repo}", subfolder="unet")`, and so on.
The camera (16 values, camera-to-world, row by row) is `class_labels`, the embedding of the image is the only token of
cross-attention, and **self-attention must run over the tokens of all frames of an object**: set such an attention
processor (`JointAttention` in `train/model/attention.py`), otherwise each view is generated independently.
"""


def card_of(folder: Path, spec: ModelSpec, repo: str, object_fill: float | None = None) -> str:
    """Return the model card (the text of README.md) of a model folder.

    The card describes the training if the folder contains `config.json`, or the converted checkpoint if the folder
    contains `source.json`.

    Args:
        folder: Model folder.
        spec: Settings of the model.
        repo: Name OWNER/NAME of the repository on the Hub.
        object_fill: Setting of the model's image encoder (`ImageEncoder.object_fill`). None: images are not centered.

    Raises:
        UserError: `config.json` or `source.json` is not valid JSON.
    """
    config = _read(folder / CONFIG_FILE)
    parts = [_HEAD.format(name=_last_part(repo)), _model(spec, object_fill), _USE.format(repo=repo)]
    if config is not None:
        parts += [_training(config), _data(config["data"])]
    elif (source := _read(folder / SOURCE_FILE)) is not None:
        parts.append(
            f"\n## Origin\n\nConverted, not trained, from {_last_part(source['name'])} (sha256 `{source['sha256']}`). "
            "The license of those weights applies.\n"
        )
    else:
        parts.append("\n## Origin\n\nNot recorded in the model's folder.\n")
    return "".join(parts)


def centering_note(object_fill: float) -> str:
    """Return a note for programs that call the image encoder directly: they must center the object in the image.

    `object_fill` is the longer side of the centered object, as a fraction of the image side.
    """
    return (
        "The image encoder expects the object centered on white, its longer side at "
        f"{object_fill:.0%} of the image "
        "(`train.model.image_encoder.center_object`); other programs must do this themselves"
    )


def _model(spec: ModelSpec, object_fill: float | None) -> str:
    cameras = {
        "relative": "relative to the reference image: differences of elevation and azimuth, in true angles",
        "absolute": "absolute: azimuth 0 is the object's front, whatever the reference image shows, in true angles",
        "released_isotropic3d": "as in the released Isotropic3D code, which converts degrees to radians twice; "
        "`model.json` says so, and other programs must do the same",
    }[spec.cameras]
    centering = "" if object_fill is None else f"- {centering_note(object_fill)}\n"
    return (
        f"\n## Model\n\n- Images of {spec.image_size} x {spec.image_size} pixels, "
        f"latents of {spec.latent_size} x {spec.latent_size}, scaled by {spec.latent_scale:g}\n"
        f"- Camera labels: {cameras}\n- Default guidance scale: {spec.guidance_scale:g}\n{centering}"
    )


def _training(config: dict[str, Any]) -> str:
    recipe: dict[str, Any] = config["recipe"]
    base = config.get("base")
    start = "from scratch" if base is None else f"from `{_last_part(base)}`, whose license applies to this model too"
    stages = (
        (1, 2) if config["stage"] == 2 and base is None else (config["stage"],)
    )  # both, if one command trained them
    name = f"Stage {' and '.join(map(str, stages))}"
    tables = "".join(_schedule(stage, recipe.get(f"stage{stage}", {})) for stage in stages)
    return f"\n## Training\n\n{name}, preset `{recipe.get('name')}`, seed {config['seed']}, {start}.\n{tables}"


def _schedule(stage: int, schedule: dict[str, Any]) -> str:
    rows = "".join(f"| {key} | {value} |\n" for key, value in schedule.items() if not isinstance(value, (dict, list)))
    return f"\n| stage {stage} | |\n|---|---|\n{rows}"


def _data(data: dict[str, Any]) -> str:
    name = _last_part(data["url"])
    text = f"\n## Data\n\n`{name}`: {data['objects']} rendered objects, set sha256 `{data['sha256']}`.\n"
    try:
        counts = info(data["url"], quick=True).licenses
    except UserError as error:
        logger.info("note: the shard set cannot be read (%s); the card does not list licenses", error)
        return f"{text}The set could not be read when this card was written, so its licenses are not counted here.\n"
    shown = counts.most_common(_LICENSES_SHOWN)
    rows = "".join(f"| {license} | {count} |\n" for license, count in shown)
    more = f"\nand {len(counts) - len(shown)} more licenses.\n" if len(counts) > len(shown) else ""
    return f"{text}\n| license of objects | objects |\n|---|---|\n{rows}{more}"


def _last_part(place: str) -> str:
    """Return the last component of a path or URL. The other components may be private and are not published."""
    return place.rstrip("/").split("/")[-1]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        read: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: not valid JSON ({error}), so the model folder is damaged; train or convert the model again"
        ) from error
    return read
