"""Remove the background of opaque images as the option `--background` says."""

from typing import Final, Literal

from PIL import Image

from dataset.errors import UserError

Background = Literal["auto", "keep", "uniform", "rembg"]
RENAMED: Final = {"--remove-background": "--background=rembg", "--no-remove-background": "--background=keep"}
INSTALL_REMBG: Final = '.venv/bin/pip install "rembg[cpu]>=2.0.60" "numpy<2"'
NEEDS_CUT_OUT: Final = (
    "a cut-out is needed: give an image with a transparent background, or --background rembg, which makes one (an "
    f"optional package: {INSTALL_REMBG})"
)


def remove_background(image: Image.Image, background: Background, name: str) -> tuple[Image.Image | None, list[str]]:
    """Remove the background of an opaque image.

    Args:
        image: The image, RGBA.
        background: `keep`: remove nothing. `uniform`: remove a uniform or smoothly graded background. `auto`: the same,
            but a background that is neither is kept. `rembg`: remove any background with rembg.
        name: Name of the image for messages, such as its path.

    Returns:
        The cut-out, or None if the background is kept, and a list of sentences for the user.

    Raises:
        UserError: The background cannot be removed in the way that `background` requires.
    """
    if background == "keep":
        return None, [f"{name} has neither transparency nor a white background, so the whole image is used"]
    if background == "rembg":
        return _with_rembg(image), [f"the background of {name} was removed by rembg"]
    from dataset.images.uniform_background import NotUniformError, remove_uniform_background

    try:
        cut_out = remove_uniform_background(image)
    except NotUniformError as error:
        if background == "uniform":
            raise UserError(f"the background of {name} cannot be removed, since {error}; {NEEDS_CUT_OUT}") from error
        return None, [
            f"{name} has neither transparency nor a plain background ({error}), so the whole image is used and the "
            f"result will be poor; {NEEDS_CUT_OUT}"
        ]
    return cut_out, [f"the uniform background of {name} was removed; give --background keep to keep it"]


def _with_rembg(image: Image.Image) -> Image.Image:
    try:
        from rembg import remove
    except ImportError as error:
        raise UserError(
            f"--background rembg requires rembg; run {INSTALL_REMBG} (Blender requires numpy 1; without Blender, omit "
            '"numpy<2")'
        ) from error
    cut: Image.Image = remove(image.convert("RGB"))
    return cut.convert("RGBA")
