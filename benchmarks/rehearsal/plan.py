"""The steps of a rehearsal: command lines that a user could type, at the paper's size or at toy size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dataset.io.paths import ROOT

SizeName = Literal["paper", "toy"]
IMAGE: Final = ROOT / "examples" / "cat.png"


@dataclass(frozen=True)
class Size:
    """Sizes of a rehearsal, and the options of each command that depend on the size."""

    objects: int
    image_size: int  # in pixels
    disk_gb: float  # disk space that a rehearsal needs at most
    compile_unet: str
    convert: tuple[str, ...]
    stage1: tuple[str, ...]
    stage2: tuple[str, ...]
    sample: tuple[str, ...]
    distill: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One command line of a rehearsal."""

    name: str
    arguments: tuple[str, ...]  # after `python -m`
    makes: Path
    """File that exists after the step."""
    obsolete: tuple[Path, ...] = ()
    """Files and folders that no later step reads."""
    uses_gpu: bool = True
    """Whether the step may use the GPU, whose memory can be measured for one step at a time only."""
    beside_previous: bool = False
    """Whether the step runs at the same time as the step before, whose files it does not read."""


# The micro-batches are close to those of one of eight GPUs: 768 objects per step are 24 per GPU, accumulated four
# times, in stage 1, and 128 are 16 per GPU in stage 2. Stage 1 has 20 objects with 4 views instead of 24, which are as
# many images as 16 objects with 4 views and the reference in stage 2. Stage 2 then finds the compiled residual blocks
# of stage 1 in the cache. Transformer blocks depend on the number of frames per object, and single-view steps have 20
# and 32 images, so these are compiled in both stages. Twenty objects are also the smallest set with validation objects.
# With seed 0, the first four steps of both stages use the single-view and the multi-view branch.
PAPER: Final = Size(
    objects=20,
    image_size=256,
    disk_gb=36,
    compile_unet="blocks",
    convert=(),
    stage1=("--steps", "4", "--batch-size", "80", "--grad-accum-steps", "4"),
    stage2=("--steps", "4", "--batch-size", "16", "--grad-accum-steps", "1"),
    sample=(),
    distill=("--preset", "paper", "--steps", "20"),
)
TOY: Final = Size(
    objects=2,
    image_size=64,
    disk_gb=1,
    compile_unet="none",
    convert=("--head-width", "16", "--image-size", "64", "--image-encoder", "ViT-S-32-alt"),
    stage1=("--steps", "4", "--batch-size", "6", "--grad-accum-steps", "2"),
    stage2=("--steps", "2", "--batch-size", "2", "--grad-accum-steps", "1"),
    sample=("--ddim-steps", "4"),
    distill=("--preset", "tiny", "--steps", "6", "--texture", "off"),
)
SIZES: Final[dict[SizeName, Size]] = {"paper": PAPER, "toy": TOY}


def plan(name: SizeName, out: Path, *, device: str, compile_unet: str) -> list[Step]:
    """Return the steps of a rehearsal, in order.

    Args:
        name: Size of networks and images.
        out: Folder for all files of the rehearsal.
        device: Value of each command's option --device.
        compile_unet: Value of the option --compile of both training stages.
    """
    size, on = SIZES[name], ("--device", device)
    checkpoint, shards, latents, mvdream = (out / part for part in ("checkpoint.pt", "shards", "latents", "mvdream"))
    stage1, stage2, sample, asset = (out / part for part in ("stage1", "stage2", "sample.png", "asset"))
    inputs, image = ("benchmarks.rehearsal.inputs",), ("--image", str(IMAGE))
    data = ("--preset", "paper", "--shards", str(latents))
    training = (*on, *data, "--log-every", "1", "--fail-on-nan", "--compile", compile_unet)
    last = ("--checkpoint-every", size.stage1[1])  # so that stage 1 writes a checkpoint after its last step
    return [
        Step("checkpoint", (*inputs, "checkpoint", str(checkpoint), "--size", name, *on), checkpoint),
        Step(
            "objects",
            (*inputs, "objects", str(shards), "--size", name),
            shards / "index.json",
            uses_gpu=False,
            beside_previous=True,
        ),
        Step(
            "convert",
            ("train.convert", str(checkpoint), str(mvdream), "--cameras", "relative", *size.convert),
            mvdream / "model.json",
            obsolete=(checkpoint,),
        ),
        Step(
            "encode",
            ("train.encode", str(shards), str(latents), "--model", str(mvdream), *on),
            latents / "index.json",
            obsolete=(shards,),
        ),
        Step(
            "stage1",
            ("train", "stage1", "--init-from", str(mvdream), "--out", str(stage1), *training, *size.stage1, *last),
            stage1 / "model.json",
            obsolete=(mvdream, stage1 / "checkpoints"),
        ),
        Step(
            "stage2",
            ("train", "stage2", "--init-from", str(stage1), "--out", str(stage2), *training, *size.stage2),
            stage2 / "model.json",
            obsolete=(stage1, latents),
        ),
        Step(
            "sample",
            ("train.sample", *image, "--model", str(stage2), "--out", str(sample), *on, *size.sample),
            sample,
        ),
        Step(
            "distill",
            ("distill", *image, "--model", str(stage2), "--out", str(asset), *on, *size.distill),
            asset / "mesh.glb",
            obsolete=(stage2,),
        ),
    ]
