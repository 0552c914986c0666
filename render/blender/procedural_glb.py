"""Build a procedural object in Blender and export it as a GLB file."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray

from render.blender.empty_file import open_empty_file
from render.procedural.catalog import kind_of, object_rng
from render.procedural.objects import buildings, teddybear, toys
from render.procedural.objects.animals import (
    birds,
    birds_and_fish,
    butterfly,
    cat,
    dinosaur,
    dog_and_rabbit,
    hoofed,
    pig_and_elephant,
    reptiles,
)
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
from render.procedural.objects.plants import houseplant, nature
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
from render.procedural.primitives.mesh import TEXELS, paint_texture, refined, triangulate
from render.procedural.primitives.part import ObjectPart, Paint
from render.procedural.primitives.style import styled
from render.procedural.primitives.surface import SurfaceGrid

SHARP_ANGLE_RAD = 0.7
WARNINGS_AND_ERRORS = 1

BUILDERS: Mapping[str, Callable[[np.random.Generator], list[ObjectPart]]] = {
    "cat": cat.cat,
    "dog": dog_and_rabbit.dog,
    "rabbit": dog_and_rabbit.rabbit,
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
    "house": buildings.house,
    "castle": buildings.castle,
    "robot": toys.robot,
    "snowman": toys.snowman,
    "tree": nature.tree,
    "mushroom": nature.mushroom,
    "cactus": nature.cactus,
    "flower": nature.flower,
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
    `seed`, on this code and on Blender's version. The function clears Blender's current scene.

    Args:
        index: Index of the object among all procedural objects of the shard set.
        seed: Seed of the shard set.
        path: Path of the new file.
    """
    rng = object_rng(index, seed)
    parts = styled(rng, BUILDERS[kind_of(index, seed)](rng))
    open_empty_file()
    for number, item in enumerate(parts):
        _add(item, f"{number:02d}_{item.name}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.glb")
    try:
        _write_glb(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_glb(path: Path) -> None:
    before = bpy.app.debug_value
    bpy.app.debug_value = WARNINGS_AND_ERRORS  # the only switch that limits the exporter's log
    try:
        bpy.ops.export_scene.gltf(
            filepath=str(path),
            export_format="GLB",
            export_yup=True,
            export_animations=False,
            export_cameras=False,
            export_lights=False,
        )
    finally:
        bpy.app.debug_value = before


def _add(item: ObjectPart, name: str) -> None:
    """Add the part to the scene as a mesh object with its own material."""
    surface, rest = refined(item.surface, item.rest) if callable(item.paint.base) else (item.surface, item.rest)
    mesh = triangulate(surface, rest)
    data = bpy.data.meshes.new(name)
    data.from_pydata(mesh.vertices.tolist(), [], mesh.triangles.tolist())
    data.polygons.foreach_set("use_smooth", np.full(len(mesh.triangles), not item.flat))
    if not item.flat:
        data.set_sharp_from_angle(angle=SHARP_ANGLE_RAD)
    layer = data.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", mesh.corners_uv.astype(np.float32).ravel())
    data.materials.append(_material(item.paint, rest, name))
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, data))


def _material(paint: Paint, rest: SurfaceGrid, name: str) -> bpy.types.Material:
    """Return a Principled BSDF material whose base color is plain, or a texture with the baked pattern."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = paint.roughness
    shader.inputs["Metallic"].default_value = paint.metallic
    if callable(paint.base):
        texture = material.node_tree.nodes.new("ShaderNodeTexImage")
        texture.image = _image(paint_texture(rest, paint.base), name)
        material.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    else:
        shader.inputs["Base Color"].default_value = (*to_linear(paint.base), 1.0)
    return material


def _image(texels: NDArray[np.uint8], name: str) -> bpy.types.Image:
    """Return a packed 8-bit image of sRGB texels [TEXELS, TEXELS, 3], row 0 at the bottom.

    Pixels of an 8-bit image are in its own color space, so sRGB values need no conversion.
    """
    image = bpy.data.images.new(name, TEXELS, TEXELS, alpha=False)
    rgba = np.ones((TEXELS, TEXELS, 4), dtype=np.float32)
    rgba[..., :3] = texels / np.float32(255)
    image.pixels.foreach_set(rgba.ravel())
    image.pack()
    return image
