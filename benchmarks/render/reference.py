"""Reference images: 1,024 samples without a denoiser, computed once per object and cached by their settings.

`python -m benchmarks.render.reference` computes missing images. The folder of an object gets its final name only when
the object is complete, so the same command resumes an interrupted run.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.render.bench_objects import SEED, BenchObject, listed, prepare
from benchmarks.render.plain_settings import BASELINE, REFERENCE_SAMPLES, RESOLUTION, PlainJob
from dataset.errors import run_cli
from dataset.io.paths import ROOT
from render.rigs.rig import poses

CACHE: Final = ROOT / "data" / "bench-render"
VIEWS: Final = (0, 9, 20, 29)  # of the 32 views: two fixed ones (elevation 30) and two random ones, from four sides
_NOISE_OFFSET: Final = 1000


@dataclass(frozen=True)
class ReferenceImages:
    """Images uint8 [v, h, w, 4] of an object and their scene (normalization and light)."""

    images: NDArray[np.uint8]
    scene: dict[str, Any]


def key_of(item: BenchObject, views: tuple[int, ...] = VIEWS) -> str:
    """Return a hash of everything that determines the reference images, except the code of render.blender.scene."""
    cameras = [pose for view_set in poses(SEED, item.uid).values() for pose in view_set]
    what = {
        "asset": item.sha256,
        "uid": item.uid,
        "seed": SEED,
        "noise": _NOISE_OFFSET,
        "views": [asdict(cameras[view]) for view in views],
        "samples": REFERENCE_SAMPLES,
        "cycles": {**BASELINE, "use_denoising": False, "use_light_tree": False},
        "resolution": RESOLUTION,
        "blender": version("bpy"),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def run_plain(job: PlainJob) -> None:
    """Run benchmarks.render.plain_render in a new process. Raises CalledProcessError if it fails."""
    out = Path(job.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "job.json").write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", "benchmarks.render.plain_render", str(out / "job.json")]
    with (out / "log.txt").open("wb") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)


def load_images(folder: Path, views: tuple[int, ...] | list[int]) -> NDArray[np.uint8]:
    """Load the files VIEW.png of a folder as uint8 [v, h, w, 4]. Colors become black where alpha is 0, as in ours."""
    images: NDArray[np.uint8] = np.stack(
        [np.asarray(Image.open(folder / f"{view:02d}.png").convert("RGBA")) for view in views]
    )
    images[images[..., 3] == 0] = 0
    return images


def folder_of(item: BenchObject, cache: Path = CACHE) -> Path:
    return cache / "reference" / f"{item.uid}-{key_of(item)}"


def reference(item: BenchObject, threads: int, cache: Path = CACHE) -> ReferenceImages:
    """Return the reference images of an object. Images that are not in the cache are rendered and added to it."""
    folder = folder_of(item, cache)
    if not (folder / "done.json").is_file():
        unfinished = folder.with_suffix(".tmp")
        run_plain(
            PlainJob(
                uid=item.uid,
                path=str(item.path),
                out=str(unfinished),
                seed=SEED,
                samples=REFERENCE_SAMPLES,
                denoise=False,
                threads=threads,
                views=list(VIEWS),
                noise_offset=_NOISE_OFFSET,
                light_tree=False,
                only_object=True,
            )
        )
        unfinished.replace(folder)
    scene = json.loads((folder / "done.json").read_text())["scene"]
    return ReferenceImages(load_images(folder, VIEWS), scene)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=None, help="use only the first N objects")
    names = listed()[: parser.parse_args().objects]
    for number, uid in enumerate(names, start=1):
        started = time.monotonic()
        reference(prepare(uid, CACHE / "objects"), threads=os.cpu_count() or 1)
        print(f"reference {number}/{len(names)} {uid}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    run_cli(main)
