"""Replace missing textures and scale down large ones before they are decoded. Runs inside Blender."""

from pathlib import Path
from typing import Any, Final

import bpy

from render.blender.scene import ObjectError
from render.model_files.errors import ModelError
from render.model_files.image_header import HEADER_BYTES, check_image_size
from render.model_files.obj import check_inside_folder

MAX_SIDE: Final = 4096  # pixels of a texture; the object itself is rendered at 256
_GRAY: Final = (0.8, 0.8, 0.8, 1.0)  # Blender's own base color
_BLACK: Final = (0.0, 0.0, 0.0, 1.0)
_DULL: Final = (1.0, 1.0, 0.0, 1.0)  # of glTF's packed data: not occluded, rough, not metallic


def sanitize_textures(folder: Path) -> bool:
    """Make every texture of the open scene usable; whether any was missing. `folder` holds the model file.

    One that cannot be decoded is replaced by a plain color (Cycles would show magenta); one with a side above MAX_SIDE
    is scaled down. Raises ObjectError for a file outside of `folder` and for more than MAX_PIXELS.
    """
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree]
    nodes = [node for tree in (*trees, *bpy.data.node_groups) for node in tree.nodes if node.type == "TEX_IMAGE"]
    try:
        for image in {node.image for node in nodes if node.image}:
            _check(image, folder.resolve())
    except ModelError as error:
        raise ObjectError("import", type(error).__name__, str(error)) from error
    missing = [node for node in nodes if not (node.image and _decodes(node.image))]
    for node in missing:
        _make_plain(node)
    return bool(missing)


def _check(image: Any, folder: Path) -> None:
    """Refuse a picture that lies outside or claims too many pixels. Nothing is decoded yet."""
    if image.packed_file:
        header = image.packed_file.data
    else:
        path = Path(bpy.path.abspath(image.filepath_raw))
        check_inside_folder(folder, str(path), "a material")
        if image.source != "FILE" or not path.is_file():
            return
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    check_image_size(image.name, header)


def _decodes(image: Any) -> bool:
    """Decode a picture, and scale it down if need be."""
    if image.source not in ("FILE", "GENERATED"):  # a film, or a row of tiles
        return False
    width, height = image.size  # asking decodes it
    longest = max(width, height)
    if longest > MAX_SIDE:
        image.scale(max(1, width * MAX_SIDE // longest), max(1, height * MAX_SIDE // longest))
        image.pack()  # else Blender would decode the large one again
    return bool(longest)


def _make_plain(node: Any) -> None:
    """Give a node the one color that says least, by where its picture would have gone."""
    uses = _uses(node)
    if "NORMAL_MAP" in uses:  # which is flat by itself, more exactly than 8 bits can say
        for link in list(node.outputs["Color"].links):
            node.id_data.links.remove(link)
        return
    if any("Emission" in use for use in uses):
        color = _BLACK
    elif node.image and node.image.colorspace_settings.is_data:
        color = _DULL
    else:
        color = _GRAY
    image = bpy.data.images.new("missing", 1, 1)
    image.generated_color = color
    image.colorspace_settings.is_data = True  # the color as it stands
    node.image = image


def _uses(node: Any) -> set[str]:
    """Types of the nodes that a picture's color reaches, and names of their inputs."""
    found: set[str] = set()
    waiting, met = [node.outputs["Color"]], {node}
    while waiting:
        for link in waiting.pop().links:
            found |= {link.to_node.type, link.to_socket.name}
            if link.to_node not in met:
                met.add(link.to_node)
                waiting += link.to_node.outputs
    return found
