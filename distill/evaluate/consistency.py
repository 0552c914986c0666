"""Multi-view consistency of a model: fit a 3D field to sampled views, render the field and compare.

The model samples views from the 16 fixed cameras of an object, given the embedding of the object's reference view, as
in `train.evaluate`. A field is fitted to the 16 sampled views with an L2 loss, without a diffusion model, and rendered
from the same cameras. The PSNR between sampled and rendered views is high where the sampled views agree with each
other. The same fit to the true views of the object gives an upper bound of the PSNR.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.images.psnr import psnr_db
from dataset.io.progress import ProgressBar
from dataset.reading.rendered_object import Place, RenderedObject, read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate.photometric_fit import PosedImages, fit_images
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings
from distill.sds.checkpoint import new_distillation
from distill.sds.schedule import PRESETS
from train.evaluate.novel_views import draw_rings, read_evaluation_object
from train.evaluate.results import TRUTH, Method, Record, opaque
from train.evaluate.tables import Metric, ResultTable, summarize, tables
from train.model.multiview import MultiViewModel, load_model

SAMPLED: Final = "sampled"  # METHOD-sampled: the views sampled by a model
RERENDERED: Final = "rerendered"  # METHOD-rerendered: renders of the field fitted to them
CONSISTENCY: Final = Metric(
    "rerendered_psnr", "re-rendered PSNR dB", "of 16 views with renders of a field fitted to them", True, 2
)
_FIT_STEPS: Final = 400
_RAYS_PER_STEP: Final = 4096
# The preset `tiny`, whose ball contains everything the fixed cameras see, with a finer grid (1 to 2 pixels per cell).
FIT: Final = replace(
    PRESETS["tiny"],
    nerf=FieldSettings(
        grid=HashGridSettings(levels=6, log2_table_size=16, base_resolution=8, growth=1.6),
        radius=0.87,
        hidden_width=32,
    ),
    march=replace(PRESETS["tiny"].march, samples_per_ray=128),
)


@dataclass(frozen=True)
class Sampling:
    """Settings for sampling views of an object from a model."""

    steps: int
    seed: int
    guidance_scale: float
    with_reference: bool
    """Whether the model is conditioned on the reference image itself."""


def measure_consistency(
    record: Record,
    method: str,
    folder: Path,
    *,
    sampling: Sampling,
    shards: ShardSet,
    places: Sequence[Place],
    device: torch.device,
) -> None:
    """Measure the multi-view consistency of a model's sampled views, and of the true views for comparison.

    Scores and rendered images are added to `record`. The key METHOD-rerendered contains those of the views sampled from
    the model, and the key truth-rerendered contains those of the true views. Scores that `record` already contains are
    not computed again.

    Args:
        record: The scores and images of the evaluation. This function adds to them.
        method: Key of the model in the record (METHOD).
        folder: The model folder. The model is loaded only if one of its scores is missing.
        sampling: Settings for sampling views from the model.
        shards: The shard set that contains the objects.
        places: The objects to measure, each as the pair (index of its shard, index of its sample in the shard).
        device: Device of the model and of the fitted fields.
    """
    model: MultiViewModel | None = None
    for place in ProgressBar(places, desc="consistency", unit="object"):
        uid = shards.uid(*place)
        if (f"{TRUTH}-{RERENDERED}", uid, 0) not in record.scores:
            truth = read_object(shards, place)
            _score_fit(record, TRUTH, truth, truth.on_white[:VIEWS_PER_SET], device)
        if (f"{method}-{RERENDERED}", uid, 0) not in record.scores:
            model = model or load_model(folder, device)
            ring = draw_rings(
                model,
                [read_evaluation_object(shards, place)],
                sampling.seed,
                steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                with_reference=sampling.with_reference,
            )[0]
            record.write_images(f"{method}-{SAMPLED}", uid, opaque(ring))
            _score_fit(record, method, read_object(shards, place), ring, device)


def _score_fit(
    record: Record, method: str, truth: RenderedObject, ring: NDArray[np.float32], device: torch.device
) -> None:
    renders = rerendered(ring, truth, device)
    record.write_images(f"{method}-{RERENDERED}", truth.uid, opaque(renders))
    scores = [psnr_db(render, image) for render, image in zip(renders, ring, strict=True)]
    record.add((f"{method}-{RERENDERED}", truth.uid, 0), {CONSISTENCY.name: scores})


def rerendered(
    ring: NDArray[np.float32], truth: RenderedObject, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Fit a field to views of an object, and render the field from the cameras of these views.

    Args:
        ring: Images [f, h, w, 3] in [0, 1], h x w pixels each, from the object's f = 16 fixed cameras.
        truth: The object. Only its cameras are used, not its images.
        device: Device on which the field is fitted and rendered.

    Returns:
        The rendered images [f, h, w, 3] in [0, 1].
    """
    state = new_distillation(FIT, device)
    cameras, fov_deg = truth.c2w[:VIEWS_PER_SET], float(truth.fov_deg[0])
    posed = PosedImages(cameras, fov_deg, torch.from_numpy(ring))
    fit_images(
        state.field, state.occupancy, state.optimizer, posed, FIT, steps=_FIT_STEPS, rays_per_step=_RAYS_PER_STEP
    )
    with torch.no_grad():
        renders = [
            render_views(
                state.field,
                camera[None],
                fov_deg,
                ring.shape[1],
                settings=FIT.march,
                occupancy=state.occupancy,
                device=device,
            )
            for camera in cameras
        ]
    images: NDArray[np.float32] = torch.cat([render.rgb for render in renders]).clamp(0, 1).cpu().numpy()
    return images


def consistency_rows(record: Record, methods: Sequence[Method], uids: Sequence[str]) -> list[dict[str, Any]]:
    """Return table rows with the mean consistency scores: one row for the true views, then one row per method.

    Args:
        record: The scores, as added by `measure_consistency`.
        methods: The evaluated models.
        uids: The objects over which the scores are averaged.

    Returns:
        The rows, in the format of `train.evaluate.tables.summarize`.
    """
    rows = [Method(f"{TRUTH}-{RERENDERED}", "true views", {})]
    rows += [Method(f"{method.key}-{RERENDERED}", f"{method.title}, sampled views", {}) for method in methods]
    return summarize(record, rows, uids, (CONSISTENCY,))


def consistency_tables(record: Record, methods: Sequence[Method], uids: Sequence[str]) -> list[ResultTable]:
    """Return two tables: the mean consistency scores, and their differences from the score of the true views.

    Args:
        record: The scores, as added by `measure_consistency`.
        methods: The evaluated models.
        uids: The objects over which the scores are averaged.
    """
    rows = consistency_rows(record, methods, uids)
    titles = ("Multi-view consistency", "Consistency: difference to the true views")
    both = zip(tables(rows, format_object_count(len(uids)), (CONSISTENCY,)), titles, strict=True)
    return [replace(table, title=title) for table, title in both]


def consistency_note(ddim_steps: int, seed: int) -> str:
    """Return sentences for the report that explain how consistency is measured.

    Args:
        ddim_steps: Number of DDIM steps with which the views were sampled.
        seed: Seed with which the views were sampled.
    """
    return (
        f"Multi-view consistency: 16 views are sampled at the fixed cameras from the embedding of train.evaluate's "
        f"reference ({ddim_steps} DDIM steps, seed {seed}). A field is fitted to them with plain L2 ({_FIT_STEPS} "
        "steps) and rendered from the same cameras. The score is the PSNR between sampled and rendered views. The same "
        "fit to the true views is the upper bound. Views that agree with each other but not with the truth also score "
        "high."
    )
