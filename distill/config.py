"""Options of `python -m distill`, and `DistillRequest`, the values that determine the result of a run."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from dataset.images.background import Background
from dataset.io.options import HiddenDefault
from distill.mesh.export import Format
from distill.quality import QualityName, TextureChoice, quality_help
from distill.sds.schedule import BEFORE, WITHOUT_EFFECT, DistillSettings
from train.layers.compile import CompileChoice
from train.model.multiview import BUNDLED_MODEL

Preset = Literal["paper", "tiny"]
REFERENCE_KEY: Final = "shown_from_deg"  # the stored name of DistillRequest.reference_azimuth_deg


@dataclass(frozen=True)
class DistillRequest:
    """All values that determine the result of one run: image, model, camera and settings.

    Two runs with equal requests give the same mesh on a CPU, and the same mesh up to rounding errors on a GPU.
    """

    image_sha256: str
    """SHA-256 of the prepared image."""
    model_sha256: str
    preset: Preset
    elevation_deg: float
    guidance_scale: float
    settings: DistillSettings
    reference_azimuth_deg: float | None = None
    """Azimuth of the image's camera if the model is conditioned on the image itself; None if it sees only the
    embedding."""

    loss_azimuth_deg: float = 0.0
    """Azimuth of the image's camera in the L2 loss at the reference view; 0 without that loss."""

    def as_json(self) -> dict[str, Any]:
        """Return the request as a JSON object, as stored in config.json and in checkpoints; tuples become lists.

        Some fields did not exist in older versions of this program: the settings in `BEFORE`, the settings `texture`,
        `loss_azimuth_deg` and `reference_azimuth_deg`. Such a field is left out if its value gives the behavior of the
        older versions: the value in `BEFORE`, None, 0, and None respectively. A request stored by an older version is
        therefore equal to the same request made by this version. Any other `reference_azimuth_deg` is stored under the
        key REFERENCE_KEY, "shown_from_deg".
        """
        values = json.loads(json.dumps(asdict(self)))
        for group, names in BEFORE.items():
            for name, before in names.items():
                if values["settings"][group][name] == before:
                    del values["settings"][group][name]
        if values["settings"]["texture"] is None:
            del values["settings"]["texture"]
        if not values["loss_azimuth_deg"]:
            del values["loss_azimuth_deg"]
        azimuth_deg = values.pop("reference_azimuth_deg")
        return values if azimuth_deg is None else {REFERENCE_KEY: azimuth_deg, **values}

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of all values of the request that affect the result.

        The settings in WITHOUT_EFFECT, such as the number of steps between previews, do not affect it.
        """
        values = self.as_json()
        for name in WITHOUT_EFFECT:
            values["settings"].pop(name.removeprefix("settings."))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class DistillArgs:
    """Distill images into textured meshes. The same command resumes interrupted runs and skips finished ones.

    Each combination of an image and a seed is one run with its own folder. The folder receives mesh.glb, turntable.mp4,
    views.png, field.safetensors, config.json, input.png, previews/, a checkpoint and, at the end, done.json. A failed
    run does not stop the other runs: a table at the end lists the outcome of each run, and the exit status is 1 if any
    run failed. The runs take place one after the other on one GPU or on a CPU, and in parallel on several GPUs or with
    --workers.
    """

    image: tuple[Path, ...]
    """One or more images, each of one object seen from its front: preferably an RGBA cut-out, otherwise on white.
    A folder stands for all images in it."""
    model: Path = BUNDLED_MODEL
    """A model folder written by training or train.convert, a checkpoint file, or a Hub name."""
    out: HiddenDefault[Path | None] = None
    """Output folder. One run: the run folder itself (default out/NAME).
    Several runs: the parent of their folders, NAME-seed-K for seed K (default out)."""
    preset: HiddenDefault[Preset | None] = None
    """Preset that defines the settings of the runs. Default: tiny for images of at most 128 pixels, paper for larger
    ones."""
    steps: HiddenDefault[int | None] = None
    """Number of steps. All schedules scale with this number. Default: the preset's number times that of --quality."""
    quality: Annotated[QualityName, tyro.conf.arg(help=quality_help())] = "normal"
    texture: HiddenDefault[TextureChoice | None] = None
    """Whether to refine the colors of the finished shape with sharp views of the model and the image, which restores
    patterns. auto: on with the preset tiny, off with the preset paper, as in the paper.
    Default: auto; off with --quality draft."""
    seed: int = 0
    """Seed of all random numbers. With --num-seeds: the first seed."""
    num_seeds: int = 1
    """Number of seeds per image: SEED, SEED + 1, and so on."""
    elevation_deg: float = 15.0
    """Elevation in degrees of the camera that took the images. Models are trained on -10 to 40; 15 is the middle."""
    guidance_scale: HiddenDefault[float | None] = None
    """Classifier-free guidance scale. Default: the model's."""
    with_reference: bool = False
    """Also condition the model on the image itself, as in stage 2, as a clean frame beside the views.
    By default the model sees only the image embedding, as in the paper."""
    azimuth_deg: float = 0.0
    """Azimuth of the image's camera in degrees, from the object's front (0) towards its left (Blender's +x is 90).
    Used with --with-reference or --reference-loss-weight, for models with absolute camera labels."""
    reference_loss_weight: float = 0.0
    """Weight of an L2 loss between the image and the rendered reference view (color and mask). 0, as in the paper,
    omits the loss."""
    formats: tuple[Format, ...] = ("glb",)
    """Formats of the mesh to write. glb: a textured GLB, always written. obj: mesh.obj with its .mtl and .png. ply: a
    mesh with vertex colors. points: a point cloud. usdz: a textured USDZ. On a finished run, more formats, --faces and
    --texture-size make only the mesh again."""
    faces: HiddenDefault[int | None] = None
    """Face budget of the mesh, 100 to 200,000. Default: 10,000 with the preset tiny, 50,000 with the preset paper."""
    texture_size: HiddenDefault[int | None] = None
    """Edge of the square texture of the mesh in pixels, 16 to 8,192. Default: 512 with the preset tiny, 2,048 with the
    preset paper."""
    compile: CompileChoice = "auto"
    """How to compile the networks: whole or by blocks. Compilation takes minutes; the run is then about twice as fast.
    On a GPU, compiled networks are replayed as CUDA graphs; graphs is the same as whole, but refuses a CPU. auto: whole
    on a GPU for 3,000 steps or more if triton is installed, otherwise none."""
    background: Background = "auto"
    """How to remove the background of an opaque image. uniform: a background of one color or a smooth gradient. auto:
    the same, but any other background is kept. rembg: any background, with the optional package rembg. keep: never."""
    background_threshold: HiddenDefault[float | None] = None
    """Color difference (CIE76) from the fitted background up to which a pixel belongs to it, 0.5 to 50; a larger
    threshold removes more. For --background auto and uniform. Default: 2 to 7, from the noise of the background."""
    preview_every: HiddenDefault[int | None] = None
    """Number of steps between previews, sheets of four views in previews/. Default: the preset's number."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    workers: HiddenDefault[int | None] = None
    """Number of runs to do in parallel, each in its own process. On this machine, more runs than GPUs share the GPUs,
    which is faster with a small model. Default: one per GPU, or one on a CPU."""
    address: HiddenDefault[str | None] = None
    """Address of a Ray cluster, or auto. Its machines must share the storage of MODEL and OUT.
    Default: this machine only."""
    dry_run: bool = False
    """Print the settings of the runs as JSON and exit. For several runs, the JSON is a list."""
    json: bool = False
    """Print the results as one line of JSON, the only line on stdout: folders, files, metrics, warnings and errors."""
    open: bool = False
    """Write the page of the results (page.html in OUT) at the end, and open it in the browser if there is one."""

    @property
    def is_single(self) -> bool:
        """Whether the command has one image and one seed, so that `out` is the folder of its only run."""
        return len(self.image) == 1 and self.num_seeds == 1
