"""The settings of an import, which determine the imported set together with the files of the source."""

from dataclasses import dataclass
from typing import Final, Literal

from dataset.errors import UserError
from dataset.format.manifest import UNKNOWN
from dataset.format.schema import MAX_VIEWS
from dataset.io.option_checks import check_number

SourceLayout = Literal["nerf", "folder"]
CameraAxes = Literal["opengl", "opencv"]
UpAxis = Literal["z", "y"]
LARGEST_SIDE: Final = 2048  # pixels; all images of an object are in memory together
SMALLEST_SIDE: Final = 8


@dataclass(frozen=True)
class ImportSettings:
    """The settings of an import.

    Attributes:
        layout: File layout of the source.
        convention: Camera axes of the matrices of the layout `folder`. None: not stated.
        up: World axis that points up in the matrices of the layout `folder`.
        resolution: Pixels per side of the stored images. None: that of the first object's images.
        scale: Factor by which positions are multiplied, or "auto" (`dataset.importing.placement`).
        center: Whether to move the point that the cameras look at to the origin.
        opaque: Whether images without transparent pixels are accepted.
        max_views: Largest number of views of an object besides the fixed ring.
        license: License of all objects.
        creator: Author of all objects.

    Raises:
        UserError: A setting is out of range, or does not apply to the layout.
    """

    layout: SourceLayout
    convention: CameraAxes | None = None
    up: UpAxis = "z"
    resolution: int | None = None
    scale: float | Literal["auto"] = 1.0
    center: bool = False
    opaque: bool = False
    max_views: int = MAX_VIEWS
    license: str = UNKNOWN
    creator: str = UNKNOWN

    def __post_init__(self) -> None:
        check_number("--resolution", self.resolution, SMALLEST_SIDE, LARGEST_SIDE)
        check_number("--max-views", self.max_views, 1, MAX_VIEWS)
        if self.scale != "auto":
            check_number("--scale", self.scale, 1e-6, 1e6)
        if self.layout == "nerf" and (self.convention or self.up != "z"):
            raise UserError(
                "--convention and --up apply to the layout folder; transforms.json always has OpenGL's camera axes in "
                "a world whose z axis points up. Remove these options"
            )
        for option, text in (("--license", self.license), ("--creator", self.creator)):
            if not text.strip() or not text.isprintable():
                raise UserError(f"{option} is {text!r}; give a text of one line, or remove the option")


def parse_scale(text: str) -> float | Literal["auto"]:
    """Convert the value of the option --scale.

    Raises:
        UserError: It is neither a number nor "auto".
    """
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--scale is {text!r}; give a factor such as 0.5, or auto") from error
