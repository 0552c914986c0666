"""Remove the background of opaque images as the option `--background` says."""

from functools import cache
from typing import Any, Final, Literal

from PIL import Image

from dataset.errors import UserError, one_line
from dataset.io.option_checks import check_number

Background = Literal["auto", "keep", "uniform", "rembg"]
RENAMED: Final = {"--remove-background": "--background=rembg", "--no-remove-background": "--background=keep"}
THRESHOLDS: Final = (0.5, 50.0)  # smallest and largest --background-threshold
USES_THRESHOLD: Final[tuple[Background, ...]] = ("auto", "uniform")
REMBG_MODEL: Final = "isnet-general-use"
INSTALL_REMBG: Final = '.venv/bin/pip install "rembg[cpu]>=2.0.60" "numpy<2"'
_FAINT: Final = (64, 192)  # alpha of rembg that is counted as 0 and as 255; less is left of things in the background
NEEDS_CUT_OUT: Final = (
    "a cut-out is needed: give an image with a transparent background, or --background rembg, which makes one (an "
    f"optional package: {INSTALL_REMBG})"
)


def check_threshold(background: Background, threshold: float | None) -> None:
    """Check the value of the option `--background-threshold`.

    Args:
        background: The value of the option `--background`.
        threshold: The threshold; None if the option was not given.

    Raises:
        UserError: The threshold is out of range, or has no effect with `background`.
    """
    check_number("--background-threshold", threshold, *THRESHOLDS)
    if threshold is not None and background not in USES_THRESHOLD:
        raise UserError(
            f"--background-threshold has no effect with --background {background}; leave it out, or give "
            "--background auto or uniform"
        )


def remove_background(
    image: Image.Image, background: Background, name: str, threshold: float | None = None
) -> tuple[Image.Image | None, list[str]]:
    """Remove the background of an opaque image.

    Args:
        image: The image, RGBA.
        background: `keep`: remove nothing. `uniform`: remove a uniform or smoothly graded background. `auto`: the same,
            but a background that is neither is kept. `rembg`: remove any background with rembg.
        name: Name of the image for messages, such as its path.
        threshold: For `uniform` and `auto`: color difference (CIE76) from the fitted background up to which a pixel
            belongs to it; None: 2 to 7, from the noise of the background.

    Returns:
        The cut-out, or None if the background is kept, and a list of sentences for the user.

    Raises:
        UserError: The background cannot be removed in the way that `background` requires.
    """
    if background == "keep":
        return None, [f"{name} has neither transparency nor a white background, so the whole image is used"]
    if background == "rembg":
        cut_out = _with_rembg(image)
        if cut_out.getchannel("A").getbbox() is None:
            raise UserError(f"rembg found no object in {name}; give a cut-out, or --background keep")
        return cut_out, [f"the background of {name} was removed by rembg"]
    from dataset.images.background_color import NotUniformError
    from dataset.images.uniform_background import remove_uniform_background

    try:
        cut_out = remove_uniform_background(image, threshold)
    except NotUniformError as error:
        if background == "uniform":
            raise UserError(f"the background of {name} cannot be removed, since {error}; {NEEDS_CUT_OUT}") from error
        return None, [
            f"the background of {name} is kept, since {error}; the whole image is used and the result will be poor; "
            f"{NEEDS_CUT_OUT}"
        ]
    return cut_out, [f"the plain background of {name} was removed; give --background keep to keep it"]


def _with_rembg(image: Image.Image) -> Image.Image:
    try:
        from rembg import remove
    except ImportError as error:
        raise UserError(
            f"--background rembg requires rembg; run {INSTALL_REMBG} (Blender requires numpy 1; without Blender, omit "
            '"numpy<2")'
        ) from error
    cut: Image.Image = remove(image.convert("RGB"), session=_rembg_session())
    cut = cut.convert("RGBA")
    low, high = _FAINT
    cut.putalpha(cut.getchannel("A").point(lambda alpha: max(0, min(255, round((alpha - low) * 255 / (high - low))))))
    return cut


@cache
def _rembg_session() -> Any:
    from rembg import new_session

    try:
        return new_session(REMBG_MODEL)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"rembg cannot load its model {REMBG_MODEL} ({one_line(error)}); download it again, or put "
            f"{REMBG_MODEL}.onnx into the folder U2NET_HOME (default ~/.u2net) and set MODEL_CHECKSUM_DISABLED=1; see "
            "docs/distillation.md"
        ) from error
