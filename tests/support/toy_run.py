"""Run folders of minimal distillations, finished and unfinished, for tests that read them."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from distill.mesh.export import MeshSettings
from distill.output import results
from distill.output.preview import write_preview
from distill.sds.loop import distill
from tests.support.distill_toy import SETTINGS, make_guidance

MESH = MeshSettings(resolution=32, faces=500, texture_size=64)
CONFIG = {"image": "toys/<ball>.png", "model": "data/model", "preset": "tiny", "settings": asdict(SETTINGS)}


def finished(folder: Path) -> Path:
    """A finished run: six steps towards a ball, and all results at 24 pixels."""
    folder.mkdir(parents=True)
    Image.new("RGBA", (16, 16), (200, 30, 30, 255)).save(folder / "input.png")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    state = distill(SETTINGS, make_guidance(), folder, request=asdict(SETTINGS), write_preview=write_preview)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "VIEW_RESOLUTION", 24)
        results.write_results(state, SETTINGS, MESH, folder)
    return folder


def under_way(folder: Path, of: Path) -> Path:
    """The folder of the run `of` after four of its six steps."""
    (folder / "previews").mkdir(parents=True)
    for name in ("input.png", "config.json", "previews/step-000003.png"):
        shutil.copy(of / name, folder / name)
    rows = (of / "losses.csv").read_text().splitlines(keepends=True)
    (folder / "losses.csv").write_text("".join(rows[:5]))
    return folder
