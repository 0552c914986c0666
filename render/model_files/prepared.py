"""Define the result of checking a model file: the file to import, and flags for its missing parts."""

from dataclasses import dataclass
from pathlib import Path

from dataset.format.outcomes import Flag


@dataclass(frozen=True)
class Scenes:
    """The scenes of a glTF file.

    `count` is the number of scenes, and `default` the index of the default scene, or 0 if the file declares none.
    """

    count: int
    default: int
    twins: frozenset[str] = frozenset()  # names of meshes with a triangle in both windings on the same vertices


@dataclass(frozen=True)
class PreparedModel:
    """A checked model file.

    Attributes:
        path: The file to import: the model file itself, or a normalized copy, in which references to files are
            absolute paths.
        flags: Quality flags for missing or unsupported data, such as a missing texture.
        scenes: The scenes of a glTF file; None for other formats.
        texture: The image file that a PLY file names as its texture, if any. Blender's importer ignores it.
        animated: Whether the file has animations.
        depth: Number of nodes on the longest path from a root node to a leaf of a glTF file; 0 for other formats.
        images: Whether the file or its materials declare image textures.
    """

    path: Path
    flags: tuple[Flag, ...] = ()
    scenes: Scenes | None = None
    texture: Path | None = None
    animated: bool = False
    depth: int = 0
    images: bool = False
