"""The fixed list of objects of `benchmarks.render.render_bench`, each as a model file on disk.

The list contains procedural objects by index (seed 0), model files of a folder beside the checkout, and two meshes that
are generated here: a chrome knot of 320,000 triangles (large and glossy) and a glass knot. These two are the hardest
cases at few samples.
"""

import base64
import hashlib
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.io.paths import ROOT
from render.procedural.catalog import uid_of

MODELS: Final = ROOT.parent / "shared" / "objects"
SEED: Final = 0
CHROME: Final = {
    "pbrMetallicRoughness": {"baseColorFactor": [0.9, 0.9, 0.9, 1], "metallicFactor": 1, "roughnessFactor": 0.1}
}
GLASS: Final = {
    "pbrMetallicRoughness": {"baseColorFactor": [0.9, 1, 0.95, 1], "metallicFactor": 0, "roughnessFactor": 0.05},
    "extensions": {"KHR_materials_transmission": {"transmissionFactor": 1}},
}
PROCEDURAL: Final = (3, 13, 15, 17, 20, 25, 37, 39)  # teapot lamp cat car mug tree castle house
INSTEAD_OF_FILES: Final = (7, 8, 9, 18)  # rocket penguin sailboat robot
FILES: Final = (
    "kenney_market/ship-light.glb",
    "kenney_market/garbage-truck.glb",
    "kaykit_dungeon/table_long_decorated_c.glb",
    "kaykit_characters/shield_round_color.glb",
)
# Points around, points across, material.
KNOTS: Final[dict[str, tuple[int, int, dict[str, Any]]]] = {
    "made-chrome_knot": (1600, 100, CHROME),
    "made-glass_knot": (400, 50, GLASS),
}


@dataclass(frozen=True)
class BenchObject:
    """A benchmark object and its model file."""

    uid: str
    path: Path
    sha256: str


def listed(models: Path = MODELS) -> list[str]:
    """Return the uids in order, large and glossy objects early, so that --objects N includes some of them."""
    first = [uid_of(PROCEDURAL[0], SEED), *KNOTS]
    files = [file_uid(name) for name in FILES]
    if not models.is_dir():
        files = [uid_of(index, SEED) for index in INSTEAD_OF_FILES]
    rest = [*files, *(uid_of(index, SEED) for index in PROCEDURAL[1:])]
    return first + rest


def file_uid(name: str) -> str:
    return name.removesuffix(".glb").replace("/", "-")


def prepare(uid: str, folder: Path, models: Path = MODELS) -> BenchObject:
    """Return the object's file, from `models` or created in `folder`. Raises FileNotFoundError if it is missing."""
    names = {file_uid(name): models / name for name in FILES}
    path = names.get(uid) or _create(uid, folder)
    return BenchObject(uid, path, hashlib.sha256(path.read_bytes()).hexdigest())


def _create(uid: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if uid in KNOTS:
        path = folder / f"{uid}.gltf"
        if not path.is_file():
            around, across, material = KNOTS[uid]
            path.write_text(gltf(*knot(around, across), material))
        return path
    path = folder / f"{uid}.glb"
    if not path.is_file():
        code = "import sys; from pathlib import Path; from render.blender.procedural_glb import export; "
        code += f"export(int(sys.argv[1]), {SEED}, Path(sys.argv[2]))"
        index = str(int(uid.rsplit("-", 1)[1]))
        subprocess.run([sys.executable, "-c", code, index, str(path)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return path


def knot(around: int, across: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return a (2, 3) torus knot: vertices [around * across, 3] and triangles [2 * around * across, 3]."""
    t, s = np.meshgrid(np.arange(around) * 2 * np.pi / around, np.arange(across) * 2 * np.pi / across, indexing="ij")
    center = _knot_curve(t)
    tangent = _knot_curve(t + 1e-3) - _knot_curve(t - 1e-3)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    side = np.cross(tangent, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    radius = 0.4 * (1 + 0.08 * np.sin(24 * t) * np.cos(4 * s))[..., None]
    points = center + radius * (np.cos(s)[..., None] * side + np.sin(s)[..., None] * np.cross(side, tangent))
    index = np.arange(around * across).reshape(around, across)
    down, right = np.roll(index, -1, 0), np.roll(index, -1, 1)
    quads = np.stack([index, down, np.roll(down, -1, 1), right], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return points.reshape(-1, 3).astype(np.float32), triangles.astype(np.uint32)


def _knot_curve(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([(2 + np.cos(3 * t)) * np.cos(2 * t), np.sin(3 * t), (2 + np.cos(3 * t)) * np.sin(2 * t)], -1)


def gltf(points: NDArray[np.float32], triangles: NDArray[np.uint32], material: dict[str, Any]) -> str:
    """Return a glTF document of a mesh [n, 3], [m, 3] with smooth normals and an embedded buffer."""
    corners = points[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    arrays = [points, normals.astype(np.float32), triangles.reshape(-1)]
    data = b"".join(array.tobytes() for array in arrays)
    offsets = np.cumsum([0, *(array.nbytes for array in arrays)]).tolist()
    vector = {"componentType": 5126, "type": "VEC3", "count": len(points)}
    return json.dumps(
        {
            "asset": {"version": "2.0"},
            **({"extensionsUsed": sorted(material["extensions"])} if "extensions" in material else {}),
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0}]}],
            "materials": [material],
            "accessors": [
                {**vector, "bufferView": 0, "min": points.min(0).tolist(), "max": points.max(0).tolist()},
                {**vector, "bufferView": 1},
                {"bufferView": 2, "componentType": 5125, "type": "SCALAR", "count": triangles.size},
            ],
            "bufferViews": [
                {"buffer": 0, "byteOffset": start, "byteLength": end - start}
                for start, end in itertools.pairwise(offsets)
            ],
            "buffers": [
                {
                    "byteLength": len(data),
                    "uri": "data:application/octet-stream;base64," + base64.b64encode(data).decode(),
                }
            ],
        }
    )
