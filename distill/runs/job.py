"""One run of `python -m distill`: a picture, a seed and a folder become an asset. `batch` does it many times.

A run's folder gets input.png and config.json at its start, a checkpoint and previews on its way, and at its end
RESULTS; config.json is then written again with the mesh's figures, which marks the run as finished.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from safetensors import SafetensorError

from dataset.errors import UserError, one_line
from dataset.images.prepare import Prepared
from dataset.io.files import write_json_atomic
from distill.config import REFERENCE_KEY, DistillRequest
from distill.mesh import export
from distill.output.preview import write_preview
from distill.output.results import write_results
from distill.sds.checkpoint import CHECKPOINT, Distillation, check_same, differences
from distill.sds.guidance import model_guidance
from distill.sds.loop import Watch, distill
from distill.sds.reference_loss import new_reference
from train.layers.compile import CompileChoice, choose_compute
from train.model.multiview import MultiViewModel, load_model
from train.model.reference import with_reference_image

CONFIG: Final = "config.json"
_COMPILED_STEPS: Final = 3000  # compiling takes four minutes on an H100 and saves about seven of ten thousand steps
RESULTS: Final = ("field.safetensors", "views.png", "turntable.mp4", "mesh.glb")


@dataclass(frozen=True)
class Job:
    """One run and all that it needs, so that it can travel to another process."""

    name: str
    image: Path
    prepared: Prepared
    out: Path
    model: Path  # a model folder
    model_name: str  # as the person gave it
    request: DistillRequest
    formats: tuple[export.Format, ...] = ("glb",)
    compile: CompileChoice = "auto"

    @property
    def compiling(self) -> CompileChoice:
        """`compile`, but what compiling would not pay for is left as it is."""
        return "none" if self.compile == "auto" and self.request.settings.steps < _COMPILED_STEPS else self.compile

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says at the start, and `--dry-run`."""
        where = {"image": str(self.image), "model": self.model_name, "out": str(self.out)}
        return {**where, **self.request.as_json()}


def load(folder: Path, device: torch.device) -> MultiViewModel:
    """The model as a run uses it."""
    return load_model(folder, device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def finished_faces(job: Job) -> int | None:
    """How many faces the mesh of this very run has, where it is finished; None where it is not."""
    path = job.out / CONFIG
    if not all((job.out / name).is_file() for name in (CONFIG, *RESULTS)):
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        faces = int(found["mesh"]["faces"])
    except (ValueError, KeyError, TypeError):  # damaged, or not at its end: the run writes it anew
        return None
    if not set(job.formats) <= {"glb", *found["mesh"].get("formats", ())}:
        return None  # another format is asked for now
    asked = json.loads(json.dumps(job.request.as_json()))
    made = {name: found[name] for name in (*asked, REFERENCE_KEY) if name in found}
    return None if differences(made, asked) else faces


def run(
    job: Job,
    loaded: Callable[[], MultiViewModel],
    device: torch.device,
    *,
    title: str = "distill",
    watch: Watch | None = None,
) -> int:
    """Run, or continue, a job to its end; returns the faces of its mesh.

    `title` and `watch` as in `loop.distill`. Raises UserError, which names the folder, whenever it cannot go on, and
    KeyboardInterrupt when it was stopped; what there was is kept.
    """
    check_same(job.out / CHECKPOINT, job.request.as_json())
    _begin(job)
    model = loaded()
    with _told_with(job.out):
        state = _distilled(job, model, device, title, watch)
    with _told_with(job.out):
        report = write_results(
            state, job.request.settings, export.PRESETS[job.request.preset], job.out, kinds=job.formats
        )
        _write_config(job, mesh={**asdict(report), "formats": job.formats})
    return report.faces


def _begin(job: Job) -> None:
    """The folder, with what is known beforehand."""
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(job.prepared.rgba).save(job.out / "input.png")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{job.out}: cannot be written ({reason}); check its permissions and free space, or choose another --out"
        ) from error
    _write_config(job)


def _write_config(job: Job, **more: Any) -> None:
    write_json_atomic(LocalFileSystem(), str((job.out / CONFIG).absolute()), {**job.config, **more})


def _distilled(job: Job, model: MultiViewModel, device: torch.device, title: str, watch: Watch | None) -> Distillation:
    rgb = torch.from_numpy(np.ascontiguousarray(job.prepared.rgb)).permute(2, 0, 1)[None].to(device)
    shown = job.request.reference_azimuth_deg is not None
    seeing = with_reference_image(
        model,
        rgb,
        as_frame=shown,
        elevation_deg=job.request.elevation_deg,
        azimuth_deg=job.request.reference_azimuth_deg or 0.0,
    )
    compute = choose_compute(device, job.compiling)
    if compute.compile != "none":
        print(f"{title}: compiles the networks first, some minutes for each part of the run (--compile none: at once)")
    guidance = model_guidance(
        seeing, seeing.embed_image(rgb), job.request.elevation_deg, job.request.guidance_scale, compute
    )
    if job.request.settings.reference_weight:
        half_frame = job.request.settings.cameras.half_frame
        guidance = replace(
            guidance, reference=new_reference(job.prepared.rgba, job.request.elevation_deg, half_frame, device)
        )
    return distill(
        job.request.settings,
        guidance,
        job.out,
        asked=job.request.as_json(),
        device=device,
        title=title,
        watch=watch,
        write_preview=write_preview,
    )


@contextmanager
def _told_with(out: Path) -> Iterator[None]:
    """Add the folder, and what is safe in it, to an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{out}: {error}{_kept(out)}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{out}: cannot be written ({one_line(error)}); check its free space, then repeat the command{_kept(out)}"
        ) from error


def _kept(out: Path) -> str:
    kept = [name for name in (CHECKPOINT, *RESULTS) if (out / name).is_file()]
    return f"; kept there: {', '.join(kept)}" if kept else ""
