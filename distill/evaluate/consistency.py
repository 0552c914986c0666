"""Multi-view consistency of a model by reconstruct and rerender: how much of its views one 3D object can show.

The model draws the 16 views of the fixed set from the reference's embedding, as `train.evaluate` has it; a field
is fitted to them with plain L2 (no diffusion model, no prior but the field's own), and rendered again by the same
cameras. The PSNR between the two is high where the views agree. The true views are put through the same fit: a model
cannot do better than what that leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from tqdm import tqdm

from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.reading.shard_set import ShardSet
from distill.evaluate.ground_truth import Place, TrueObject, read_object
from distill.evaluate.photometric_fit import Shown, fit_pictures
from distill.evaluate.score import keep_ring
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings
from distill.sds.checkpoint import new_distillation
from distill.sds.schedule import PRESETS
from train.evaluate.metrics import psnr_db
from train.evaluate.novel_views import Float32, draw_rings, read_truth
from train.evaluate.results import TRUTH, Method, Record
from train.evaluate.tables import Metric, Table, summarise, tables
from train.model.multiview import MultiViewModel, load_model

SAMPLED: Final = "sampled"  # METHOD-sampled: a model's views
RERENDERED: Final = "rerendered"  # METHOD-rerendered: a field that was fitted to them
CONSISTENCY: Final = Metric(
    "rerendered_psnr", "re-rendered PSNR dB", "of 16 views with a field fitted to them", True, 2
)
_FIT_STEPS: Final = 400
_RAYS_A_STEP: Final = 4096
# A ball as `tiny` has it, which holds what the fixed cameras frame, on a finer grid: cells of a pixel or two at 64.
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
    """How a model draws."""

    steps: int
    seed: int
    guidance_scale: float
    shown: bool
    """Whether the model sees the reference itself."""


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
    """Add to the record what it lacks: of each object the scores of a model's views, as METHOD-rerendered, and of the
    true ones, as truth-rerendered. Their pictures go beside.
    """
    model: MultiViewModel | None = None
    for place in tqdm(places, desc="consistency", unit="object", mininterval=1.0):
        uid = shards.uid(*place)
        if (f"{TRUTH}-{RERENDERED}", uid, 0) not in record.found:
            true = read_object(shards, place)
            _fitted(record, TRUTH, true, true.on_white[:VIEWS_PER_SET], device)
        if (f"{method}-{RERENDERED}", uid, 0) not in record.found:
            model = model or load_model(folder, device)
            truth, seed, scale = read_truth(shards, *place), sampling.seed, sampling.guidance_scale
            ring = draw_rings(
                model, [truth], seed, steps=sampling.steps, guidance_scale=scale, with_reference=sampling.shown
            )[0]
            keep_ring(record, f"{method}-{SAMPLED}", uid, ring)
            _fitted(record, method, read_object(shards, place), ring, device)


def _fitted(record: Record, method: str, true: TrueObject, ring: Float32, device: torch.device) -> None:
    again = rerendered(ring, true, device)
    keep_ring(record, f"{method}-{RERENDERED}", true.uid, again)
    scores = [psnr_db(seen, drawn) for seen, drawn in zip(again, ring, strict=True)]
    record.add((f"{method}-{RERENDERED}", true.uid, 0), {CONSISTENCY.name: scores})


def rerendered(ring: Float32, true: TrueObject, device: torch.device | str = "cpu") -> Float32:
    """A ring [f, h, w, 3] in [0, 1], of an object's fixed cameras, as a field shows it that was fitted to it."""
    state = new_distillation(FIT, device)
    cameras, fov_deg = true.c2w[:VIEWS_PER_SET], float(true.fov_deg[0])
    shown = Shown(cameras, fov_deg, torch.from_numpy(ring))
    fit_pictures(state.field, state.occupancy, state.optimizer, shown, FIT, steps=_FIT_STEPS, rays_a_step=_RAYS_A_STEP)
    with torch.no_grad():
        seen = [
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
    pictures: Float32 = torch.cat([view.rgb for view in seen]).clamp(0, 1).cpu().numpy()
    return pictures


def consistency_rows(record: Record, methods: Sequence[Method], uids: Sequence[str]) -> list[dict[str, Any]]:
    """`summarise` of the true views and of each model's."""
    rows = [Method(f"{TRUTH}-{RERENDERED}", "true views", {})]
    rows += [Method(f"{method.key}-{RERENDERED}", f"{method.title}, sampled views", {}) for method in methods]
    return summarise(record, rows, uids, (CONSISTENCY,))


def consistency_tables(record: Record, methods: Sequence[Method], uids: Sequence[str]) -> list[Table]:
    """The true views and each model's, and the difference to the true ones."""
    made = tables(consistency_rows(record, methods, uids), format_object_count(len(uids)), (CONSISTENCY,))
    titles = ("Multi-view consistency", "Consistency: difference to the true views")
    return [replace(table, title=title) for table, title in zip(made, titles, strict=True)]


def consistency_note(sampling_steps: int, seed: int) -> str:
    """How it is measured."""
    return (
        f"Multi-view consistency: 16 views drawn at the fixed cameras from the reference's embedding (of "
        f"train.evaluate's reference, {sampling_steps} DDIM steps, seed {seed}), a field fitted to them with "
        f"plain L2 ({_FIT_STEPS} steps), rendered again by the same cameras: PSNR between the two. The true views go "
        "through the same fit, and no model can do better than what it leaves of them; views that agree with each "
        "other, but not with the truth, score high too."
    )
