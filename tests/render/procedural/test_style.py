"""The four styles of procedural objects: what they change, and that they keep parts closed and objects in place."""

from collections import Counter

import numpy as np
import pytest

from render.procedural.catalog import generator
from render.procedural.objects.animals import dog
from render.procedural.objects.buildings import castle
from render.procedural.objects.home import tableware
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.mesh import paint_texture, triangulate
from render.procedural.primitives.part import ObjectPart, Paint, bounds, part
from render.procedural.primitives.style import SHARES, STYLES, style_of, styled
from render.procedural.primitives.surface import box, ellipsoid

BUILDERS = (dog.dog, castle.castle, tableware.mug)


def colored(base: tuple[float, float, float] | pt.Pattern, roughness: float = 0.6) -> ObjectPart:
    return part("ball", ellipsoid((0, 0, 0), (1.0, 1.0, 1.0), 40, 30), Paint(base, roughness))


def mean_color(item: ObjectPart) -> np.ndarray:
    base = item.paint.base
    return np.asarray(paint_texture(item.rest, base if callable(base) else pt.solid(base)).mean(axis=(0, 1)) / 255)


def test_styles_come_in_their_shares() -> None:
    rng = generator("styles")
    counts = Counter(style_of(rng) for _ in range(4000))
    assert [counts[name] / 4000 for name in STYLES] == pytest.approx(SHARES, abs=0.03)


def test_the_smooth_style_changes_nothing() -> None:
    parts = dog.dog(generator("dog"))
    assert styled(generator(0), parts, "smooth") == parts


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("builder", BUILDERS)
def test_a_style_keeps_place_and_number_of_parts(style: str, builder) -> None:
    parts = builder(generator("x"))
    result = styled(generator(style), parts, style)
    assert [item.name for item in result] == [item.name for item in parts]
    size = np.ptp(bounds(parts), axis=0).max()
    assert np.abs(np.subtract(bounds(result), bounds(parts))).max() < 0.1 * size


def test_a_low_polygon_part_is_flat_shaded_and_has_few_faces() -> None:
    (ball,) = styled(generator(1), [colored((0.5, 0.2, 0.2))], "low-polygon")
    assert ball.flat
    assert len(triangulate(ball.surface, ball.rest).triangles) < 400
    assert ball.surface.shape == ball.rest.shape


def test_a_low_polygon_box_keeps_its_corners() -> None:
    (cube,) = styled(generator(2), [part("box", box((0, 0, 0), (1.0, 1.0, 1.0), 0.02), (0.5, 0.5, 0.5))], "low-polygon")
    corners = np.abs(cube.surface.reshape(-1, 3)).min(axis=1)
    assert corners.max() > 0.47


def test_a_toy_is_more_saturated_and_glossy() -> None:
    original = colored((0.6, 0.4, 0.3))
    (toy,) = styled(generator(3), [original], "toy")
    assert np.ptp(mean_color(toy)) > 1.2 * np.ptp(mean_color(original))
    assert toy.paint.roughness < 0.35


def test_a_realistic_object_is_muted_and_mottled() -> None:
    original = colored((0.9, 0.2, 0.2))
    (ball,) = styled(generator(4), [original], "realistic")
    assert np.ptp(mean_color(ball)) < np.ptp(mean_color(original))
    assert callable(ball.paint.base)
    assert paint_texture(ball.rest, ball.paint.base).std(axis=(0, 1)).max() > 2
    assert ball.paint.roughness > original.paint.roughness


def test_small_parts_and_glossy_parts_stay_plain_in_a_realistic_object() -> None:
    eye = part("eye", ellipsoid((0, 0, 0), (0.03, 0.03, 0.03)), Paint((0.1, 0.1, 0.1), 0.15))
    _, result = styled(generator(5), [colored((0.5, 0.5, 0.5)), eye], "realistic")
    assert not callable(result.paint.base)
    assert result.paint.roughness == eye.paint.roughness
