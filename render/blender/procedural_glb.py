"""Build a procedural object in Blender and export it as a GLB file."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray

from render.procedural.catalog import kind_of, object_rng
from render.procedural.glb_file import GlbPart, glb_bytes
from render.procedural.objects import teddybear, toys
from render.procedural.objects.animals import (
    birds,
    birds_and_fish,
    butterfly,
    cat,
    dinosaur,
    dog,
    hoofed,
    pig_and_elephant,
    rabbit,
    reptiles,
)
from render.procedural.objects.buildings import castle, house
from render.procedural.objects.clothing import (
    bags_and_umbrellas,
    crown,
    hats,
    shoes,
)
from render.procedural.objects.food import fruit, icecream, meals, sweets
from render.procedural.objects.home import (
    books,
    bottles,
    clocks,
    containers,
    furniture,
    gadgets,
    instruments,
    lanterns,
    piano,
    sofa,
    tableware,
    tools,
)
from render.procedural.objects.plants import flowers, houseplant, nature, trees
from render.procedural.objects.transport import (
    aircraft,
    cycles,
    propeller_aircraft,
    road_vehicles,
    ships,
    tank,
    tractor,
    trains,
    vehicles,
)
from render.procedural.primitives.color import to_linear
from render.procedural.primitives.mesh import TEXELS, Mesh, paint_texture, refined, triangulate
from render.procedural.primitives.part import ObjectPart
from render.procedural.primitives.style import styled

SHARP_ANGLE_RAD = 0.7

BUILDERS: Mapping[str, Callable[[np.random.Generator], list[ObjectPart]]] = {
    "cat": cat.cat,
    "dog": dog.dog,
    "rabbit": rabbit.rabbit,
    "duck": birds_and_fish.duck,
    "penguin": birds_and_fish.penguin,
    "fish": birds_and_fish.fish,
    "chair": furniture.chair,
    "table": furniture.table,
    "lamp": furniture.lamp,
    "bed": furniture.bed,
    "car": vehicles.car,
    "aeroplane": aircraft.aeroplane,
    "rocket": aircraft.rocket,
    "sailboat": vehicles.sailboat,
    "mug": tableware.mug,
    "teapot": tableware.teapot,
    "house": house.house,
    "castle": castle.castle,
    "robot": toys.robot,
    "snowman": toys.snowman,
    "tree": trees.tree,
    "mushroom": nature.mushroom,
    "cactus": nature.cactus,
    "flower": flowers.flower,
    "horse": hoofed.horse,
    "cow": hoofed.cow,
    "pig": pig_and_elephant.pig,
    "elephant": pig_and_elephant.elephant,
    "bird": birds.bird,
    "owl": birds.owl,
    "turtle": reptiles.turtle,
    "frog": reptiles.frog,
    "dinosaur": dinosaur.dinosaur,
    "teddybear": teddybear.teddybear,
    "butterfly": butterfly.butterfly,
    "apple": fruit.apple,
    "pear": fruit.pear,
    "banana": fruit.banana,
    "pineapple": fruit.pineapple,
    "pumpkin": fruit.pumpkin,
    "burger": meals.burger,
    "pizza": meals.pizza,
    "cake": sweets.cake,
    "donut": sweets.donut,
    "icecream": icecream.icecream,
    "plant": houseplant.plant,
    "bus": road_vehicles.bus,
    "truck": road_vehicles.truck,
    "tractor": tractor.tractor,
    "train": trains.train,
    "bicycle": cycles.bicycle,
    "motorcycle": cycles.motorcycle,
    "ship": ships.ship,
    "helicopter": propeller_aircraft.helicopter,
    "biplane": propeller_aircraft.biplane,
    "tank": tank.tank,
    "sofa": sofa.sofa,
    "shoe": shoes.shoe,
    "hat": hats.hat,
    "backpack": bags_and_umbrellas.backpack,
    "umbrella": bags_and_umbrellas.umbrella,
    "bottle": bottles.bottle,
    "vase": bottles.vase,
    "clock": clocks.clock,
    "lantern": lanterns.lantern,
    "book": books.book,
    "guitar": instruments.guitar,
    "drum": instruments.drum,
    "piano": piano.piano,
    "camera": gadgets.camera,
    "telephone": gadgets.telephone,
    "hammer": tools.hammer,
    "scissors": tools.scissors,
    "bucket": containers.bucket,
    "basket": containers.basket,
    "crown": crown.crown,
}


def export(index: int, seed: int, path: Path) -> None:
    """Write a procedural object to the GLB file `path`. In the file, y points up and the object's front faces +z.

    The file is written to a temporary name first, then renamed. Its bytes depend only on the arguments `index` and
    `seed`, on this code and on Blender's version.

    Args:
        index: Index of the object among all procedural objects of the shard set.
        seed: Seed of the shard set.
        path: Path of the new file.
    """
    rng = object_rng(index, seed)
    parts = styled(rng, BUILDERS[kind_of(index, seed)](rng))
    data = glb_bytes([_glb_part(item, f"{number:02d}_{item.name}") for number, item in enumerate(parts)])
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.glb")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _glb_part(item: ObjectPart, name: str) -> GlbPart:
    """Return a part as it is written to the file. Its base color is plain, or an image of the baked pattern."""
    base = item.paint.base
    surface, rest = refined(item.surface, item.rest) if callable(base) else (item.surface, item.rest)
    positions, corners, normals, uv = _shaded(triangulate(surface, rest), name, flat=item.flat)
    png = _png(paint_texture(rest, base)) if callable(base) else None
    red, green, blue = (1.0, 1.0, 1.0) if callable(base) else to_linear(base)
    color, metallic, roughness = (red, green, blue, 1.0), item.paint.metallic, item.paint.roughness
    values = np.array([*color, metallic, roughness], np.float32).tolist()
    return GlbPart(name, positions, corners, normals, uv, tuple(values[:4]), png, values[4], values[5])


def _shaded(
    mesh: Mesh, name: str, *, flat: bool
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Let Blender remove invalid faces and compute normals, which are smooth up to SHARP_ANGLE_RAD unless `flat`.

    Returns:
        A tuple: positions of the vertices [v, 3], and for every corner of a face its vertex [c], its normal [c, 3] and
        its texture coordinates [c, 2].
    """
    data = bpy.data.meshes.new(name)
    try:
        data.vertices.add(len(mesh.vertices))
        data.vertices.foreach_set("co", mesh.vertices.astype(np.float32).ravel())
        data.loops.add(mesh.triangles.size)
        data.loops.foreach_set("vertex_index", mesh.triangles.astype(np.int32).ravel())
        data.polygons.add(len(mesh.triangles))
        data.polygons.foreach_set("loop_start", np.arange(0, mesh.triangles.size, 3, dtype=np.int32))
        data.update(calc_edges=True)
        data.polygons.foreach_set("use_smooth", np.full(len(mesh.triangles), not flat))
        if not flat:
            data.set_sharp_from_angle(angle=SHARP_ANGLE_RAD)
        data.uv_layers.new(name="UVMap").data.foreach_set("uv", mesh.corners_uv.astype(np.float32).ravel())
        data.validate()
        total = len(data.loops)
        positions, normals, uv = (
            np.empty((n, k), np.float32) for n, k in ((len(data.vertices), 3), (total, 3), (total, 2))
        )
        corners = np.empty(total, np.int32)
        data.vertices.foreach_get("co", positions.ravel())
        data.loops.foreach_get("vertex_index", corners)
        data.corner_normals.foreach_get("vector", normals.ravel())
        data.uv_layers[0].uv.foreach_get("vector", uv.ravel())
        return positions, corners, normals, uv
    finally:
        bpy.data.meshes.remove(data)


def _png(texels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file that Blender writes of sRGB texels [TEXELS, TEXELS, 3], row 0 at the bottom.

    Pixels of an 8-bit image are in its own color space, so sRGB values need no conversion.
    """
    image = bpy.data.images.new("texture", TEXELS, TEXELS, alpha=False)
    try:
        rgba = np.ones((TEXELS, TEXELS, 4), dtype=np.float32)
        rgba[..., :3] = texels / np.float32(255)
        image.pixels.foreach_set(rgba.ravel())
        image.pack()
        return bytes(image.packed_file.data)
    finally:
        bpy.data.images.remove(image)
