"""One run: distill one image with one seed into one folder.

The run writes input.png and config.json at the start, a checkpoint and previews while it runs, and the result files
(RESULTS: field, sheet of views, video and mesh) at the end. Then it adds the statistics of the mesh to config.json, and
writes done.json, which marks the run as finished.
"""

import logging
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
from dataset.images.background import Background
from dataset.images.prepare import Prepared
from dataset.io.files import write_json_atomic
from dataset.io.lock import locked_folder
from distill.config import DistillRequest
from distill.mesh import export
from distill.output.preview import write_preview
from distill.output.results import write_results
from distill.runs.finished import CONFIG, RESULTS, FinishedRun, chosen, finished_run, remove_marker, write_marker
from distill.runs.remesh import make_mesh_again
from distill.sds.checkpoint import CHECKPOINT, Distillation, check_same_request
from distill.sds.guidance import Guidance, model_guidance
from distill.sds.loop import PREVIEWS, Watch, distill
from distill.sds.networks import available_compile_choice, to_run_precision
from distill.sds.reference_loss import new_reference_view
from distill.texture.input_view import find_input_view
from distill.texture.phase import refine_texture
from train.layers.compile import CompileChoice, choose_compute
from train.model.multiview import MultiViewModel, load_model
from train.model.recognition.recognize import embed_input
from train.model.reference import with_reference_image

logger = logging.getLogger(__name__)

_COMPILED_STEPS: Final = 3000  # compiling takes four minutes on an H100 and saves about seven of ten thousand steps


@dataclass(frozen=True)
class Job:
    """One run with all its inputs. A job can be pickled and sent to another process."""

    name: str
    image: Path
    prepared: Prepared
    out: Path
    model: Path  # a model folder
    model_name: str  # as given on the command line
    request: DistillRequest
    formats: tuple[export.Format, ...] = ("glb",)
    faces: int | None = None
    """Face budget of the mesh; None: that of the preset."""
    texture_size: int | None = None
    """Edge of the texture in texels; None: that of the preset."""
    background: Background = "auto"
    """How the background of the image was removed. The request has the hash of the result instead."""
    background_threshold: float | None = None
    compile: CompileChoice = "auto"
    warnings: tuple[str, ...] = ()
    """Sentences about the image, which the run stores with its results. They are not part of the request."""

    @property
    def effective_compile(self) -> CompileChoice:
        """The value of `compile`. For runs too short to save time by compiling, "auto" is replaced by "none"."""
        return "none" if self.compile == "auto" and self.request.settings.steps < _COMPILED_STEPS else self.compile

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json when the run starts. `--dry-run` prints the same content."""
        paths = {"image": str(self.image), "model": self.model_name, "out": str(self.out)}
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        background: dict[str, Any] = {"background": self.background}
        if self.background_threshold is not None:
            background["background_threshold"] = self.background_threshold
        return {**paths, **background, **warnings, **self.mesh_config, **self.request.as_json()}

    @property
    def mesh_config(self) -> dict[str, Any]:
        """The entry of config.json for mesh settings that differ from the preset's; empty if none does."""
        of_preset = chosen(export.PRESETS[self.request.preset])
        changed = {name: value for name, value in chosen(self.mesh_settings).items() if value != of_preset[name]}
        return {"mesh_settings": changed} if changed else {}

    @property
    def mesh_settings(self) -> export.MeshSettings:
        """Settings of the mesh. They are not part of the request."""
        settings = export.PRESETS[self.request.preset]
        return replace(
            settings,
            faces=settings.faces if self.faces is None else self.faces,
            texture_size=settings.texture_size if self.texture_size is None else self.texture_size,
        )

    @property
    def finished_faces(self) -> int | None:
        """Number of faces of the mesh if this run is finished and has the mesh of this job, otherwise None."""
        run = finished_run(self.out, self.request)
        if run is None or not run.has_field or not run.has_mesh(self.mesh_settings, self.formats):
            return None
        return run.faces

    @property
    def with_other_mesh(self) -> FinishedRun | None:
        """The finished run in the folder if its mesh has other settings or fewer formats than this job's."""
        run = finished_run(self.out, self.request)
        return None if run is None or run.has_mesh(self.mesh_settings, self.formats) else run

    @property
    def needs_model(self) -> bool:
        """Whether the image must be distilled; False if the run is finished, even if its mesh must be made again."""
        return self.finished_faces is None and self.with_other_mesh is None


def load_run_model(folder: Path, device: torch.device) -> MultiViewModel:
    """Load the model in `folder` in the precision that runs use (`distill.sds.networks`)."""
    return to_run_precision(load_model(folder, torch.device("cpu")), device)


def run_job(
    job: Job,
    loaded: Callable[[], MultiViewModel],
    device: torch.device,
    *,
    title: str = "distill",
    watch: Watch | None = None,
) -> int:
    """Distill the image of a job and write all results. If the run was interrupted before, resume it.

    If the run is finished, only its mesh is made again, and the model is not loaded.

    Args:
        job: The run.
        loaded: Function that returns the model. It is called only after the run folder has been checked.
        device: Device of the run.
        title: Description of the progress bar.
        watch: Function that is called after each step with the number of steps done, and returns True to stop the run.
            With `watch`, there is no progress bar.

    Returns:
        The number of faces of the mesh.

    Raises:
        UserError: another process writes to the run folder, or the run cannot continue. The message names the run
            folder, and the result files in this folder that are kept.
        KeyboardInterrupt: the run was stopped, after it wrote a checkpoint.
    """
    with _folder_is_writable(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
    with locked_folder(job.out, "distillation"):
        if (run := job.with_other_mesh) is not None:
            with _errors_name_folder(job.out):
                return make_mesh_again(
                    job.out,
                    job.request,
                    run,
                    job.mesh_settings,
                    job.formats,
                    config=job.mesh_config,
                    device=device,
                )
        check_same_request(job.out / CHECKPOINT, job.request.as_json())
        _start_folder(job)
        model = loaded()
        with _errors_name_folder(job.out):
            state, texture_s = _distill(job, model, device, title, watch)
        with _errors_name_folder(job.out):
            report = write_results(
                state,
                job.request.settings,
                job.mesh_settings,
                job.out,
                kinds=job.formats,
                warnings=job.warnings,
                texture_s=texture_s,
            )
            _write_config(job, mesh={**asdict(report), "formats": job.formats})
            write_marker(job.out, job.request, report.faces, job.formats, job.mesh_settings)
    return report.faces


def _start_folder(job: Job) -> None:
    """Write input.png and config.json."""
    with _folder_is_writable(job.out):
        remove_marker(job.out)
        Image.fromarray(job.prepared.rgba).save(job.out / "input.png")
    _write_config(job)


@contextmanager
def _folder_is_writable(out: Path) -> Iterator[None]:
    """Convert an OSError raised in the `with` block to a UserError that contains the run folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"the run folder {out} cannot be written ({reason}); check the permissions of the folder and the free disk "
            "space, or choose another --out"
        ) from error


def _write_config(job: Job, **more: Any) -> None:
    write_json_atomic(LocalFileSystem(), str((job.out / CONFIG).absolute()), {**job.config, **more})


def _distill(
    job: Job, model: MultiViewModel, device: torch.device, title: str, watch: Watch | None
) -> tuple[Distillation, float | None]:
    """Return the final state, and the duration of the texture phase in seconds; None without this phase."""
    rgb = torch.from_numpy(np.ascontiguousarray(job.prepared.rgb)).permute(2, 0, 1)[None].to(device)
    conditioned = with_reference_image(
        model,
        rgb,
        as_frame=job.request.reference_azimuth_deg is not None,
        elevation_deg=job.request.elevation_deg,
        azimuth_deg=job.request.reference_azimuth_deg or 0.0,
    )
    compute = choose_compute(device, available_compile_choice(job.effective_compile, device))
    if compute.compile != "none":
        logger.info(
            "%s: compiling the networks takes minutes, in the coarse and again in the fine part of the run, but only "
            "in the first run on this machine (avoid this with --compile none)",
            title,
        )
    guidance = model_guidance(
        conditioned,
        embed_input(conditioned, job.model, rgb),
        job.request.elevation_deg,
        job.request.guidance_scale,
        compute,
    )
    if job.request.settings.reference_weight:
        half_frame = job.request.settings.cameras.half_frame
        guidance = replace(
            guidance,
            reference=new_reference_view(
                job.prepared.rgba,
                job.request.elevation_deg,
                half_frame,
                azimuth_deg=job.request.loss_azimuth_deg,
                device=device,
            ),
        )
    state = distill(
        job.request.settings,
        guidance,
        job.out,
        request=job.request.as_json(),
        device=device,
        title=title,
        watch=watch,
        write_preview=write_preview,
    )
    if job.request.settings.texture is None:
        return state, None
    absolute = model.spec.cameras == "absolute"
    return state, _refine(job, state, guidance, absolute=absolute, title=title, quiet=watch is not None)


def _refine(job: Job, state: Distillation, guidance: Guidance, *, absolute: bool, title: str, quiet: bool) -> float:
    """Run the texture phase, write a preview of its result, log its duration, and return the duration in seconds."""
    request, settings = job.request, job.request.settings
    input_view = find_input_view(
        state,
        settings,
        job.prepared.rgba,
        request.elevation_deg,
        azimuth_deg=_input_azimuth_deg(request, absolute=absolute),
    )
    report = refine_texture(state, settings, guidance, input_view=input_view, title=f"{title}, texture", quiet=quiet)
    preview = job.out / PREVIEWS / "texture.png"
    write_preview(state.field, state.occupancy, settings, preview)
    logger.info("%s: the texture took %.1f s in %d rounds", preview, report.seconds, report.rounds)
    return report.seconds


def _input_azimuth_deg(request: DistillRequest, *, absolute: bool) -> float | None:
    """Return the azimuth of the input image that the run used, or None if the run used none.

    With relative camera labels (not `absolute`), the azimuth is 0.
    """
    if request.reference_azimuth_deg is not None:
        return request.reference_azimuth_deg
    if request.settings.reference_weight or not absolute:
        return request.loss_azimuth_deg
    return None


@contextmanager
def _errors_name_folder(out: Path) -> Iterator[None]:
    """Add the run folder, and the files kept in it, to the message of an error raised in the `with` block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the run in {out} failed: {error}{_kept_files(out)}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the run folder {out} cannot be written ({one_line(error)}); check the free disk space, then repeat the "
            f"command{_kept_files(out)}"
        ) from error


def _kept_files(out: Path) -> str:
    kept = [name for name in (CHECKPOINT, *RESULTS) if (out / name).is_file()]
    return f"; files kept in the run folder: {', '.join(kept)}" if kept else ""
