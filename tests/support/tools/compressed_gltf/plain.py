"""Write the model that make.sh compresses: python -m tests.support.tools.compressed_gltf.plain FILE.glb."""

import sys
from pathlib import Path

import numpy as np

from tests.support.make_models import Gltf

COLUMNS, ROWS = 20, 12


def model() -> Gltf:
    """A wavy ball with normals, places on a texture and vertex colors, which turns and moves."""
    u, v = (axis.reshape(-1) for axis in np.meshgrid(np.linspace(0, 1, COLUMNS + 1), np.linspace(0.02, 0.98, ROWS + 1)))
    around, down = 2 * np.pi * u, np.pi * v
    normals = np.stack([np.sin(down) * np.cos(around), np.cos(down), np.sin(down) * np.sin(around)], 1)
    places = normals * (1 + 0.1 * np.sin(3 * around) * np.sin(down))[:, None]
    first = (np.arange(ROWS)[:, None] * (COLUMNS + 1) + np.arange(COLUMNS)).reshape(-1, 1)
    indices = (first + np.array([0, 1, COLUMNS + 2, 0, COLUMNS + 2, COLUMNS + 1])).reshape(-1)
    gltf = Gltf()
    attributes = {
        "POSITION": gltf.accessor(places.astype(np.float32), "VEC3"),
        "NORMAL": gltf.accessor(normals.astype(np.float32), "VEC3"),
        "TEXCOORD_0": gltf.accessor(np.stack([u, v], 1).astype(np.float32), "VEC2"),
        "COLOR_0": gltf.accessor((0.5 + places / 3).astype(np.float32), "VEC3"),
    }
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    primitive = {
        "attributes": attributes,
        "indices": gltf.accessor(indices.astype(np.uint16), "SCALAR"),
        "material": gltf.add("materials", material),
    }
    node = gltf.node(name="ball", mesh=gltf.add("meshes", {"primitives": [primitive]}))
    seconds = gltf.accessor(np.linspace(0, 1, 4, dtype=np.float32), "SCALAR")
    angles = np.linspace(0.5, 1.5, 4)
    turns = np.stack([0 * angles, np.sin(angles / 2), 0 * angles, np.cos(angles / 2)], 1).astype(np.float32)
    moves = np.stack([angles, 0 * angles, angles**2], 1).astype(np.float32)
    samplers = [{"input": seconds, "output": gltf.accessor(x, kind)} for x, kind in ((turns, "VEC4"), (moves, "VEC3"))]
    channels = [
        {"sampler": i, "target": {"node": node, "path": path}} for i, path in enumerate(("rotation", "translation"))
    ]
    gltf.add("animations", {"samplers": samplers, "channels": channels})
    return gltf


if __name__ == "__main__":
    model().write(Path(sys.argv[1]))
