"""Draw the passes of a view as 8-bit pictures to look at. `dataset.format.passes` describes the stored values."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.format.passes import PassName, to_srgb

_NEAREST: Final = 0.9  # gray of the nearest surface
_FARTHEST: Final = 0.15


def pass_picture(name: PassName, values: NDArray[Any], covered: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Return a picture of a pass: uint8 [h, w, 3], white in the background of all passes but the mask.

    depth: gray, the nearest surface light, the farthest dark. normal, camera-normal, position: red, green and blue for
    x, y and z, from -1 to 1. albedo: sRGB. material: green for roughness, blue for metallic. mask: white on black.

    Args:
        name: Name of the pass.
        values: Values of one view, as `dataset.format.passes.decode_pass` returns them.
        covered: Pixels [h, w] that show a surface. None: those with a value, which leaves out black albedo.
    """
    if name == "mask":
        return np.repeat(np.where(values, 255, 0).astype(np.uint8)[..., None], 3, -1)
    if name == "depth":
        filled = values > 0
        near, far = (values[filled].min(), values[filled].max()) if filled.any() else (0.0, 0.0)
        share = (values - near) / max(far - near, 1e-6)
        colors = np.repeat((_NEAREST + (_FARTHEST - _NEAREST) * share)[..., None], 3, -1)
    elif name in ("albedo", "material"):
        filled = (values > 0).any(-1)
        colors = to_srgb(values) if name == "albedo" else values
    else:
        filled = ~np.isnan(values).any(-1)
        colors = np.nan_to_num(values) / 2 + 0.5
    picture: NDArray[np.uint8] = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
    picture[~(filled if covered is None else covered)] = 255
    return picture
