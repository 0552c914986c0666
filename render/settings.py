"""The render settings of a set: everything that changes an image and is the same for all objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from dataset.errors import UserError
from dataset.format.passes import PASSES, PassName
from dataset.format.schema import NormalizeMode
from render.rigs.frames import check_frame
from render.rigs.rig import Rig, stored_rig

Device = Literal["auto", "cpu", "gpu"]
DEVICES: Final[tuple[Device, ...]] = get_args(Device)
Backfaces = Literal["hidden", "drawn"]
Up = Literal["y", "z"]
GEOMETRY_RULES: Final = 3  # of repairing faces, normals and bounds; sets made by other rules are not continued
HDRI_SUFFIXES: Final = (".exr", ".hdr")
MODEL_SUFFIXES: Final = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".stl")


@dataclass(frozen=True)
class Settings:
    """Render settings of a whole shard set.

    `hdri` is a folder of environment maps; None uses the eight that ship with Blender. A pixel takes at most `samples`
    samples. After every 16 samples, Cycles stops the pixels whose noise is below `noise_threshold`; 0 disables this.
    The light of each object is brighter or darker by a random number of stops of at most `exposure_range`. `passes` are
    rendered beside the image of each view (`dataset.format.passes`).
    """

    resolution: int = 256
    samples: int = 128
    noise_threshold: float = 0.075
    normalize: NormalizeMode = "longest"
    device: Device = "cpu"
    hdri: str | None = None
    backfaces: Backfaces = "hidden"
    geometry: int = GEOMETRY_RULES
    up: Up | None = None  # axis of OBJ, PLY and STL files that points up; None: y for OBJ, z for PLY and STL
    exposure_range: float = 0.0
    passes: tuple[PassName, ...] = ()
    frame: str = "first"  # of animated objects: first, random, or a number of frames after the first
    rig: Rig | None = None  # cameras and light; None: the 32 views of the paper

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 4096:
            raise UserError(f"--resolution is {self.resolution}; choose a value from 8 to 4096 pixels")
        if not 1 <= self.samples <= 65536:
            raise UserError(f"--samples is {self.samples}; choose a value from 1 to 65536 samples per pixel")
        if not 0 <= self.noise_threshold <= 1:
            raise UserError(
                f"--noise-threshold is {self.noise_threshold}; choose a value from 0 (take all samples) to 1"
            )
        if not 0 <= self.exposure_range <= 4:
            raise UserError(f"--exposure-range is {self.exposure_range}; choose a value from 0 to 4 stops")
        check_frame(self.frame)
        if list(self.passes) != [name for name in PASSES if name in self.passes]:
            raise ValueError(f"the passes {self.passes} are not in the order of {PASSES}")


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """Convert settings that `dataclasses.asdict` and JSON have converted to a mapping."""
    rig = None if raw["rig"] is None else stored_rig(raw["rig"])
    return Settings(**{**raw, "passes": tuple(raw["passes"]), "rig": rig})


def parse_device(name: str) -> Device:
    """Return the device called `name`. Raises UserError when there is no device of this name."""
    for device in DEVICES:
        if device == name:
            return device
    raise UserError(f"--device is {name!r}; choose one of {', '.join(DEVICES)}")


def environment_maps(folder: Path) -> dict[str, Path]:
    """Return the .exr and .hdr files in a folder, as file name -> path, sorted by name.

    Raises UserError when the folder does not exist or contains no such file.
    """
    if not folder.is_dir():
        raise UserError(f"--hdri {folder} is not a folder; give a folder of .exr or .hdr environment maps")
    maps = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in HDRI_SUFFIXES}
    if not maps:
        raise UserError(f"--hdri {folder} contains no .exr or .hdr environment maps; give another folder")
    return maps
