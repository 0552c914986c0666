"""The three preview images of a view agree with each other and with the field."""

from dataclasses import replace

import numpy as np
import torch

from distill.output.preview import view_distance, view_renderer
from distill.output.turntable import ring
from distill.sds.checkpoint import new_distillation
from distill.sds.schedule import PRESETS

SETTINGS = replace(PRESETS["tiny"], march=replace(PRESETS["tiny"].march, samples_per_ray=48))
SIDE = 32


def blob() -> tuple[np.ndarray, ...]:
    """Render a new field, with a dense blob, from the front and from the back."""
    settings = replace(SETTINGS, nerf=replace(SETTINGS.nerf, blob_density=60.0))
    state = new_distillation(settings, "cpu")
    state.occupancy.update(0, state.field.density, 0)
    with torch.no_grad():  # a smooth ball: nothing of the grid
        state.field.density_mlp.output.weight.zero_()
    return view_renderer(state.field, state.occupancy, settings, SIDE)(ring(2, 0.0, view_distance(settings)))


def test_images_are_on_white_and_within_range() -> None:
    look = blob()
    assert [picture.shape for picture in look.panels] == [(2, SIDE, SIDE, 3)] * 3
    assert look.alpha[:, SIDE // 2, SIDE // 2].min() > 0.99
    assert look.alpha[:, 0, 0].max() < 1e-3
    for picture in look.panels:
        np.testing.assert_allclose(picture[:, 0, 0], 1.0, atol=1e-3)
        assert picture.min() > -1e-5
        assert picture.max() < 1 + 1e-5


def test_normals_are_the_worlds() -> None:
    """The front camera is at -y, so the normal at the center is -y; at the back it is +y."""
    front, back = blob().normals[:, SIDE // 2, SIDE // 2]
    np.testing.assert_allclose(front, [0.5, 0.0, 0.5], atol=0.1)
    np.testing.assert_allclose(back, [0.5, 1.0, 0.5], atol=0.1)


def test_the_white_body_is_gray_and_lit_from_the_upper_left_of_every_camera() -> None:
    look = blob()
    for body, alpha in zip(look.textureless, look.alpha, strict=True):
        np.testing.assert_allclose(body, body[..., :1].repeat(3, -1), atol=1e-6)
        ys, xs = np.nonzero(alpha > 0.95)
        middle, inside = SIDE // 2, (ys.max() - ys.min()) // 3
        above, below = body[middle - inside, middle, 0], body[middle + inside, middle, 0]
        left, right = body[middle, middle - inside, 0], body[middle, middle + inside, 0]
        assert above > below + 0.2
        assert left > right + 0.2
        assert body[ys, xs].max() < 0.95  # darker than the background: its outline shows
        assert body[ys, xs].min() > 0.2  # and not black
