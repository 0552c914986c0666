"""Write sample sheets of a run: images with views that the model samples at this point of the training."""

from pathlib import Path
from typing import Final

import torch
from torch import nn

from train.data.loader import BatchLoader
from train.device import mixed_precision
from train.loop.loss import encode_views, views_to_images
from train.loop.run_config import TrainingRun
from train.model.ddim import sample_views
from train.model.multiview import MultiViewModel
from train.model.reference import with_reference_latents
from train.sample import save_sheet

SAMPLE_OBJECTS: Final = 4
SAMPLE_STEPS: Final = 25
SAMPLE_GUIDANCE: Final = 3.0  # guidance scale that is used in addition to the model's own


def write_sample_sheet(run: TrainingRun, model: MultiViewModel, loader: BatchLoader, steps: int) -> Path:
    """Sample views of up to four objects, and write them to an image samples/step-*.png in the run folder.

    Each row of the image shows an object: reference view, true views, and sampled views at guidance scale 3 and at the
    model's own scale. The views are sampled from the embedding of the reference view. If the model reads the reference
    image as input channels, it also receives the latent of this image. Objects, views and noise are the same in all
    sheets of a run. Returns the path of the image.

    Args:
        run: Settings of the run.
        model: Model to sample from.
        loader: Loader of the objects. The first objects in its order are used.
        steps: Number of finished steps, for the file name.
    """
    views = loader.fixed(0, min(SAMPLE_OBJECTS, len(loader.shards)))
    encoded = encode_views(model, views, run.reference)
    reference, targets = views_to_images(model, views)
    conditioned = model
    if run.reference == "channels" and encoded.reference is not None:
        conditioned = with_reference_latents(model, encoded.reference, encoded.reference_camera[:, 0])
    scales = dict.fromkeys((SAMPLE_GUIDANCE, model.spec.guidance_scale))
    size = targets.shape[-1]
    columns = [reference[:, None], targets]
    for scale in scales:
        with mixed_precision(model.device):
            sampled = sample_views(
                conditioned,
                encoded.tokens,
                views.cameras.to(model.device),
                steps=SAMPLE_STEPS,
                guidance_scale=scale,
                generator=torch.Generator().manual_seed(run.seed),
            )
        resized = nn.functional.interpolate(sampled.flatten(0, 1).float().cpu(), (size, size), mode="area")
        columns.append(resized.view_as(targets))
    rows = torch.cat(columns, dim=1)
    path = run.out / "samples" / f"step-{steps:09d}.png"
    save_sheet(rows.flatten(0, 1), path, columns=rows.shape[1])
    return path
