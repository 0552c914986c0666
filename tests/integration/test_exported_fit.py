"""A field fitted to the training views of an exported scene shows the held-out views: the cameras are right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.export.export_set import LAYOUTS, export_set
from dataset.images.psnr import psnr_db
from distill.evaluate.consistency import FIT
from distill.evaluate.photometric_fit import PosedImages, fit_images
from distill.nerf.render import render_views
from distill.sds.checkpoint import new_distillation
from tests.support.make_shards import make_shard_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
STEPS, RAYS = 600, 2048
SETTINGS = replace(FIT, march=replace(FIT.march, samples_per_ray=96))


def posed_images(folder: Path, names: list[str]) -> PosedImages:
    """The listed frames of a `transforms.json`, whose matrices have OpenGL's camera axes, as those of our renderer."""
    content = json.loads((folder / "transforms.json").read_text())
    frames = [frame for frame in content["frames"] if frame["file_path"] in names]
    images = []
    for frame in frames:
        rgba = np.asarray(Image.open(folder / frame["file_path"]), np.float32) / 255
        images.append(rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:])
    fov = 2 * np.degrees(np.arctan(frames[0]["w"] / (2 * frames[0]["fl_x"])))
    matrices = np.array([frame["transform_matrix"] for frame in frames])
    return PosedImages(matrices, float(fov), torch.from_numpy(np.stack(images)))


def test_held_out_views_of_an_exported_scene(tmp_path):
    uid = "synthetic-0001"  # an ellipsoid; the edges of a box are aliased at this size, which costs 5 dB
    shards = make_shard_set(tmp_path / "set", 2, 48)
    export_set(str(shards), tmp_path / "nerf", LAYOUTS["nerf"])
    folder = tmp_path / "nerf" / uid
    content = json.loads((folder / "transforms.json").read_text())
    training = posed_images(folder, content["train_filenames"])
    held_out = posed_images(folder, content["test_filenames"])
    assert (len(training.images), len(held_out.images)) == (28, 4)
    state = new_distillation(SETTINGS, torch.device("cpu"))
    fit_images(state.field, state.occupancy, state.optimizer, training, SETTINGS, steps=STEPS, rays_per_step=RAYS)
    scores = []
    for camera, image in zip(held_out.c2w, held_out.images, strict=True):
        with torch.no_grad():
            render = render_views(
                state.field,
                camera[None],
                held_out.fov_deg,
                48,
                settings=SETTINGS.march,
                occupancy=state.occupancy,
                device=torch.device("cpu"),
            )
        scores.append(psnr_db(render.rgb[0].clamp(0, 1).numpy(), image.numpy()))
    print(uid, [round(score, 2) for score in scores])
    assert np.mean(scores) >= 28
