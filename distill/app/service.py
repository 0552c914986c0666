"""What the app does: cut-outs, samples of views, and a queue of runs in one output folder. It knows no web page.

The state lives here and in the output folder, so that a reloaded page and a second browser see the same runs. The
output folder holds a folder per run, and these folders:

- `images/`: the cropped images of runs
- `samples/`: sampled views
- `logs/`: the output of the commands
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from dataset.errors import UserError
from dataset.images.background import Background
from dataset.io.option_checks import check_number, check_seed
from dataset.io.paths import ROOT
from distill.app.command import (
    NewRun,
    distill_command,
    run_options,
    sample_command,
    stored_options,
    with_mesh,
    with_seed,
)
from distill.app.inputs import Crop, CutOut, cut_out, store
from distill.app.library import RunState, free_seed, read_state, run_folders
from distill.app.queue import TaskQueue, TaskState
from distill.mesh.export import FACE_LIMIT, FEWEST_FACES, TEXTURE_SIZES, MeshSettings
from distill.mesh.export import PRESETS as MESH_PRESETS
from distill.quality import QUALITIES, QualityName
from distill.runs.plan import default_preset
from distill.sds.schedule import PRESETS
from distill.view.run import read_run
from train.convert.resolve import model_folder
from train.device import pick_device
from train.model.multiview import read_spec
from train.model.recognition.recognize import unknown_warnings

logger = logging.getLogger(__name__)

IMAGES: Final = "images"
SAMPLES: Final = "samples"
LOGS: Final = "logs"
_SAMPLE_TASK: Final = "sample "


class AppService:
    """The runs of one output folder with one model. All methods can be called from several threads."""

    def __init__(self, model: Path, out: Path, device: str, *, steps_scale: float = 1.0) -> None:
        """Check the model and the output folder, and start the queues.

        Args:
            model: As --model of `python -m distill`.
            out: The output folder.
            device: Device of the runs; auto and cuda use all GPUs of the machine.
            steps_scale: Factor of the number of steps of all presets.

        Raises:
            UserError: the model or the device cannot be used, or `out` is a file or the folder of a single run.
        """
        self.model, self.out, self.steps_scale = model, out.absolute(), steps_scale
        self.folder = model_folder(model).absolute()
        spec = read_spec(self.folder)
        self.image_size, self.preset = spec.image_size, default_preset(spec.image_size)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {out} is not a folder that can be written ({error.strerror})") from error
        if (self.out / "input.png").exists():
            raise UserError(f"--out {out} is the folder of a single run; give the folder that contains it")
        self.devices = device_names(device)
        self._runs = TaskQueue(self.devices)
        self._samples = TaskQueue(self.devices[:1])  # beside a run, so that views appear within seconds
        self._options: dict[str, tuple[str, ...]] = {}

    def close(self) -> None:
        """Stop all runs, each of which writes a checkpoint."""
        self._samples.close()
        self._runs.close()

    def steps(self, quality: QualityName) -> int:
        """Return the number of steps of a quality preset."""
        return max(1, round(QUALITIES[quality].steps(PRESETS[self.preset].steps) * self.steps_scale))

    @property
    def mesh_settings(self) -> MeshSettings:
        """Settings of the mesh by default."""
        return MESH_PRESETS[self.preset]

    def cut_out(self, image: Path, crop: Crop, background: Background, threshold: float | None = None) -> CutOut:
        """Return an image as the model will see it.

        Args:
            image: The image file.
            crop: What to cut off.
            background: How to remove the background.
            threshold: Threshold of the background; None: from its noise.

        Raises:
            UserError: the image cannot be used.
        """
        return cut_out(image, self.image_size, crop=crop, background=background, background_threshold=threshold)

    def unknown_warning(self, cut: CutOut) -> str:
        """Return a warning if the image is unlike the model's training images, otherwise an empty string.

        Raises:
            UserError: the model's table of known objects is damaged.
        """
        return unknown_warnings(self.folder, [("The image", cut.prepared.rgb)])[0] or ""

    def sample(self, cut: CutOut) -> tuple[TaskState | None, Path]:
        """Start to sample four views of an image, unless they were sampled or are being sampled already.

        Returns:
            The state of the task, and the image file that it writes. The state is None if the file exists.

        Raises:
            UserError: the image cannot be stored, or too many tasks are waiting.
        """
        image = store(cut, self.out / IMAGES)
        path = self.out / SAMPLES / image.name
        if path.is_file():
            return None, path
        name = _SAMPLE_TASK + image.stem
        state = self._samples.state(name)
        if state is None or state.status in ("failed", "stopped", "finished"):
            self._samples.submit(
                name,
                lambda device: sample_command(
                    image,
                    self.model,
                    path,
                    device,
                    background=cut.background,
                    background_threshold=cut.background_threshold,
                ),
                self.out / LOGS / f"sample-{image.stem}.log",
            )
        return self._samples.wait(name, 0.0), path

    def wait_for_sample(self, cut: CutOut, timeout_s: float) -> TaskState | None:
        """Wait until the views of an image are sampled, for at most `timeout_s` seconds."""
        return self._samples.wait(f"{_SAMPLE_TASK}{cut.stem}-{cut.digest}", timeout_s)

    def start(
        self,
        cut: CutOut,
        quality: QualityName,
        seed: int,
        *,
        faces: int | None = None,
        texture_size: int | None = None,
    ) -> str:
        """Append a run to the queue and return its name. The same request again resumes or shows the same run.

        A finished run gets another mesh if `faces` or `texture_size` differ.

        Args:
            cut: The image.
            quality: The quality preset.
            seed: Seed of the run.
            faces: Face budget of the mesh; None: the default.
            texture_size: Edge of the texture in pixels; None: the default.

        Raises:
            UserError: the seed or a setting of the mesh is invalid, the image cannot be stored, or too many runs are
                waiting.
        """
        check_seed("the seed", seed)
        faces, texture_size = self._checked_mesh(faces, texture_size)
        image = store(cut, self.out / IMAGES)
        name = f"{image.stem}-{quality}-seed-{seed}"
        request = NewRun(
            image,
            self.model,
            cut.background,
            quality,
            seed,
            self.steps(quality),
            background_threshold=cut.background_threshold,
            faces=faces,
            texture_size=texture_size,
        )
        self._submit(name, run_options(request))
        return name

    def resume(self, name: str) -> None:
        """Append an interrupted or failed run to the queue, with the settings with which it was started.

        Raises:
            UserError: there is no such run, or its settings or its image are not complete.
        """
        self._submit(name, self.options(name))

    def make_mesh_again(self, name: str, *, faces: int | None, texture_size: int | None) -> None:
        """Append a finished run to the queue with other settings of the mesh. Its steps are not repeated.

        Args:
            name: The run.
            faces: Face budget of the mesh; None: the default.
            texture_size: Edge of the texture in pixels; None: the default.

        Raises:
            UserError: there is no such run, it is not finished, its settings or its image are not complete, or a
                setting of the mesh is invalid.
        """
        faces, texture_size = self._checked_mesh(faces, texture_size)
        state = self.state(name)
        if state is not None and state.status != "finished":
            raise UserError("this run is not finished; wait for its end, or resume it")
        self._submit(name, with_mesh(self.options(name), faces, texture_size))

    def _checked_mesh(self, faces: int | None, texture_size: int | None) -> tuple[int | None, int | None]:
        """Check settings of the mesh. Return them with None for those that equal the default."""
        check_number("the number of faces", faces, FEWEST_FACES, FACE_LIMIT)
        check_number("the texture size", texture_size, *TEXTURE_SIZES)
        default = self.mesh_settings
        return (
            None if faces == default.faces else faces,
            None if texture_size == default.texture_size else texture_size,
        )

    def again(self, name: str) -> str:
        """Append a run like `name` with another seed to the queue, and return its name.

        Raises:
            UserError: there is no such run, or its settings or its image are not complete.
        """
        options = self.options(name)
        seed = int(options[options.index("--seed") + 1])
        stem = name.removesuffix(f"-seed-{seed}")
        used = {int(end) for each in self.names() if (end := each.removeprefix(f"{stem}-seed-")).isdecimal()}
        seed = free_seed([*used, seed], seed)
        new = f"{stem}-seed-{seed}"
        self._submit(new, with_seed(options, seed))
        return new

    def stop(self, name: str) -> None:
        """Stop a run of this app. It writes a checkpoint, from which it can be resumed."""
        self._runs.stop(name)

    def names(self) -> list[str]:
        """Return the names of all runs: those of this app that have no files yet, then the others, newest first."""
        stored = run_folders(self.out)
        queued = [state.name for state in self._runs.states() if state.name not in stored]
        return [*reversed(queued), *stored]

    def state(self, name: str) -> RunState | None:
        """Return the state of a run, or None if there is no run of this name."""
        if name not in self.names():
            return None
        return read_state(name, self.out / name, self._runs.state(name))

    def states(self) -> list[RunState]:
        """Return the states of all runs, in the order of `names`."""
        return [read_state(name, self.out / name, self._runs.state(name)) for name in self.names()]

    def current(self) -> str | None:
        """Return the name of the run that a new page shows: one that is running, otherwise the newest."""
        running = [state.name for state in self._runs.states() if state.status == "running"]
        return next(iter([*running, *self.names()]), None)

    def options(self, name: str) -> tuple[str, ...]:
        """Return the options of `python -m distill` with which a run was started.

        Raises:
            UserError: there is no such run, or its settings or its image are not complete.
        """
        if name not in self.names():
            raise UserError("this run is gone; choose another one")
        if name not in self._options:
            self._options[name] = stored_options(read_run(self.out / name, name).config, self.out / name)
        return self._options[name]

    def command(self, name: str) -> Sequence[str]:
        """Return the command line with which a terminal in the checkout resumes a run.

        Raises:
            UserError: there is no such run, or its settings or its image are not complete.
        """
        python, *rest = distill_command(self.options(name), self.out / name, "auto")
        program = Path(python)
        return (str(program.relative_to(ROOT)) if program.is_relative_to(ROOT) else python, *rest)

    def _submit(self, name: str, options: tuple[str, ...]) -> None:
        appended = self._runs.submit(
            name,
            lambda device: distill_command(options, self.out / name, device),
            self.out / LOGS / f"{name.replace('/', '-')}.log",
        )
        if not appended and options != self._options.get(name):
            raise UserError(
                "this run is already waiting or running, with other settings of the mesh; wait for its end, then "
                "choose New mesh"
            )
        self._options[name] = options


def device_names(name: str) -> list[str]:
    """Return the devices on which runs take place at the same time: all GPUs, or the device `name`.

    Args:
        name: A device, or auto or cuda for all GPUs.

    Raises:
        UserError: this machine has no such device.
    """
    device = pick_device(name)
    all_gpus = device.type == "cuda" and device.index is None
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] if all_gpus else [str(device)]
