"""Objects of a shard set distilled from one view each, by the functions behind `python -m distill`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from dataset.format.schema import VIEWS_PER_SET
from dataset.io.files import write_bytes_atomic
from dataset.reading.shard_set import ShardSet
from distill.__main__ import Args, plan_jobs
from distill.evaluate.ground_truth import VIEWS, Place, view_name
from distill.mesh.formats import png
from distill.runs.job import Preset, load
from distill.runs.sequential import in_turn, say, table
from train.device import pick_device
from train.evaluate.novel_views import reference_index

REFERENCES = "references"  # folder of the pictures that are distilled, within --out


@dataclass(frozen=True)
class Distill:
    """How; as `distill.__main__.Args` names it."""

    model: Path
    out: Path
    preset: Preset | None
    steps: int | None
    seed: int
    guidance_scale: float | None
    device: str
    shown: bool = False
    """Whether the model sees the pictures themselves."""


def reference_view(uid: str) -> int:
    """The view (of asset_truth.VIEWS) that is distilled when nothing else is asked: `train.evaluate`'s reference."""
    return VIEWS_PER_SET + reference_index(uid)


def distill_all(
    how: Distill, shards: ShardSet, objects: Mapping[str, Place], views: Mapping[str, int], out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """(the finished runs by uid, why others failed by uid). Runs that are finished or begun are taken up.

    Each is told the elevation of its view, and its azimuth if it is shown; both are known here. Raises
    KeyboardInterrupt when it was stopped.
    """
    args = Args(
        image=tuple(_picture(shards, place, views[uid], how.out) for uid, place in objects.items()),
        model=how.model,
        preset=how.preset,
        steps=how.steps,
        seed=how.seed,
        guidance_scale=how.guidance_scale,
        device=how.device,
    )
    planned, refused = plan_jobs(args)
    jobs = []
    for job in planned:
        uid = job.image.stem
        elevation_deg, azimuth_deg = map(float, shards.angles_deg(*objects[uid], [VIEWS[views[uid]]])[0])
        shown_from_deg = azimuth_deg if how.shown else None
        jobs.append(replace(job, name=uid, out=out / uid, elevation_deg=elevation_deg, shown_from_deg=shown_from_deg))
    ended = [replace(bad, name=bad.name.removesuffix(f"-seed-{how.seed}")) for bad in refused]
    device = pick_device(how.device)
    for outcome in in_turn(jobs, cache(lambda: load(jobs[0].model, device)), device):
        ended.append(outcome)
        say(outcome, out / outcome.name)
    statuses = {outcome.status for outcome in ended}
    if statuses & {"failed", "stopped"}:
        print(table(ended))
    if "stopped" in statuses:
        raise KeyboardInterrupt
    failed = {outcome.name: outcome.reason for outcome in ended if outcome.status == "failed"}
    return {uid: out / uid for uid in objects if uid not in failed}, failed


def _picture(shards: ShardSet, place: Place, view: int, out: Path) -> Path:
    """The view as a file; what is there is the same."""
    path = out / REFERENCES / view_name(view) / f"{shards.uid(*place)}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = png(shards.views(*place, [VIEWS[view]])[0])
        write_bytes_atomic(LocalFileSystem(), str(path.absolute()), data)
    return path
