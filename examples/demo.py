"""Run the whole pipeline in minutes: render objects, train on them, distill a mesh, and write a page.

The bundled model is fine-tuned briefly on new objects; --from-scratch trains both stages from random weights instead.

Each step is a command line that a user could type; `--dry-run` prints all of them. Run the same command again to resume
an interrupted demo.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import tyro

from dataset.errors import UserError, run_cli
from dataset.io.old_flags import rename_old_flags
from dataset.io.options import HiddenDefault
from train.config.presets import PAPER, TINY
from train.model.multiview import BUNDLED_MODEL, SPEC_FILE, read_spec

PYTHON: Final = sys.executable
FINE_TUNING_LR: Final = 5e-5


@dataclass(frozen=True)
class Demo:
    """Render objects, fine-tune the bundled model on them briefly, distill one image, and write index.html."""

    source: str = "procedural:24"
    """Objects to render and train on: procedural:N, folder:DIR or objaverse:FILE."""
    out: Path = Path("data/demo")
    """Output folder."""
    image: Path = Path("examples/cat.png")
    """Image to convert to 3D. The default is a procedural cat that is not in the training set."""
    workers: HiddenDefault[int | None] = None
    """Number of Blender processes. Default: chosen by the renderer."""
    model: Path = BUNDLED_MODEL
    """Model to fine-tune: a model folder, a checkpoint file or a Hub name."""
    from_scratch: bool = False
    """Train the tiny preset from random weights instead. Minutes of training only give blobs."""
    autoencoder_steps: int = 400
    """Training steps of the autoencoder. Used with --from-scratch."""
    image_encoder_steps: int = 200
    """Training steps of the image encoder. Used with --from-scratch."""
    stage1_steps: int = 300
    """Training steps of stage 1. Used with --from-scratch."""
    stage2_steps: int = 30
    """Training steps of stage 2. With --from-scratch, 100 or more give better blobs."""
    distill_steps: HiddenDefault[int | None] = None
    """Steps of the distillation. Default: those of the tiny preset."""
    seed: int = 1
    """Seed of objects, training and distillation. Seed 0 gives objects that the bundled model was trained on."""
    dry_run: bool = False
    """Print the commands and exit."""


@dataclass(frozen=True)
class Step:
    """One command line of the demo."""

    name: str
    title: str
    arguments: tuple[str, ...]  # after `python -m`


def plan(demo: Demo) -> list[Step]:
    """Return the steps of the demo, in order."""
    out, seed = demo.out, ("--seed", str(demo.seed))
    shards, model = str(out / "shards"), str(out / "model")
    workers = ("--workers", str(demo.workers)) if demo.workers else ()
    distill_steps = ("--steps", str(demo.distill_steps)) if demo.distill_steps else ()
    image = ("--image", str(demo.image), "--model", model, *seed)
    size = str(_resolution(demo))
    render = ("render", "--source", demo.source, "--shards", shards, "--resolution", size, "--samples", "8")
    return [
        Step("render", "Render", (*render, "--objects-per-shard", "8", *seed, *workers)),
        Step("verify", "Check the shards", ("dataset", "verify", shards)),
        Step("preview", "Contact sheet", ("dataset", "preview", shards, "--out", str(out / "preview.png"))),
        *(_from_scratch(demo) if demo.from_scratch else _fine_tuning(demo)),
        Step("sample", "Sample views", ("train.sample", *image, "--out", str(out / "sample.png"))),
        Step("distill", "Distill", ("distill", *image, "--out", str(out / "asset"), *distill_steps)),
    ]


def _resolution(demo: Demo) -> int:
    """Return the pixels per side of the images to render: those of the model to train.

    A checkpoint file or a Hub name is a model of the paper's size.
    """
    if demo.from_scratch:
        return TINY.image_size
    return read_spec(demo.model).image_size if (demo.model / SPEC_FILE).is_file() else PAPER.image_size


def _fine_tuning(demo: Demo) -> list[Step]:
    base = ("--init-from", str(demo.model), "--out", str(demo.out / "model"))
    steps = ("--steps", str(demo.stage2_steps), "--lr", str(FINE_TUNING_LR))
    return [Step("stage2", "Fine-tune stage 2 (EMA)", ("train", "stage2", *_data(demo), *base, *steps))]


def _from_scratch(demo: Demo) -> list[Step]:
    data, stage1, model = _data(demo), str(demo.out / "stage1"), str(demo.out / "model")

    def part(name: str, title: str, steps: int) -> Step:
        return Step(name, title, ("train", name, *data, "--out", stage1, "--steps", str(steps)))

    second = ("train", "stage2", *data, "--init-from", stage1, "--out", model, "--steps", str(demo.stage2_steps))
    return [
        part("autoencoder", "Train the autoencoder", demo.autoencoder_steps),
        part("image-encoder", "Train the image encoder", demo.image_encoder_steps),
        part("stage1", "Train stage 1", demo.stage1_steps),
        Step("stage2", "Train stage 2 (EMA)", second),
    ]


def _data(demo: Demo) -> tuple[str, ...]:
    return ("--shards", str(demo.out / "shards"), "--preset", "tiny", "--seed", str(demo.seed))


def run_child(command: Sequence[str]) -> int:
    """Run a command and return its exit status. A SIGTERM to this process is passed on to the command."""
    with subprocess.Popen(command) as child:

        def end(number: int, frame: FrameType | None) -> None:
            child.terminate()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, end)
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.wait()  # it writes a checkpoint and ends
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def run_step(step: Step, demo: Demo) -> float:
    """Run one step of the demo and return its time in seconds.

    Raises UserError when the step fails. Objects that could not be rendered are not a failure of the step.
    """
    print(f"\n== {step.title}\n   python -m {' '.join(step.arguments)}", flush=True)
    start = time.monotonic()
    status = run_child((PYTHON, "-m", *step.arguments))
    finished_set = step.name == "render" and (demo.out / "shards" / "index.json").is_file()
    if status and finished_set:
        print("   some objects were not rendered (see above); continuing with the others", flush=True)
    elif status:
        raise UserError(
            f"step {step.name!r} of the demo failed with exit status {status}; correct the error shown above, then run "
            "the same command to resume from this step"
        )
    return time.monotonic() - start


def record_seconds(path: Path, name: str, seconds: float) -> dict[str, float]:
    """Record the time of a step in a JSON file. Return the seconds of all steps by name.

    If the demo is resumed, the longest time is kept, because a repeated step that has nothing to do takes less time.

    Args:
        path: The JSON file.
        name: Name of the step.
        seconds: Time of the step.
    """
    record: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    record[name] = round(max(seconds, record.get(name, 0.0)), 1)
    path.write_text(json.dumps(record, indent=2) + "\n")
    return record


def main() -> int:
    renamed = {"--from-nothing": "--from-scratch", "--tower-steps": "--image-encoder-steps"}
    demo = tyro.cli(Demo, args=rename_old_flags(sys.argv[1:], renamed), description=__doc__)
    steps = plan(demo)
    if demo.dry_run:
        print("\n".join(f"python -m {' '.join(step.arguments)}" for step in steps))
        return 0
    if not demo.image.is_file():
        raise UserError(f"--image {demo.image} is not a file; give the path of an image file")
    demo.out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    for step in steps:
        seconds = record_seconds(demo.out / "seconds.json", step.name, run_step(step, demo))
    from examples.demo_page import write_demo_page

    page = write_demo_page(demo.out, demo.image, [(step.title, step.arguments, seconds[step.name]) for step in steps])
    print(f"\ndone in {sum(seconds.values()) / 60:.1f} minutes; open {page} in a browser")
    return 0


if __name__ == "__main__":
    run_cli(main)
