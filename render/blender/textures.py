"""Replace missing textures and scale down large ones before they are decoded. Runs inside Blender."""

from pathlib import Path
from typing import Any, Final

import bpy

from render.blender.scene import ObjectError
from render.model_files.errors import ModelError
from render.model_files.image_header import HEADER_BYTES, check_image_size
from render.model_files.references import find_file, is_inside

MAX_SIDE: Final = 4096  # pixels of a texture; the object itself is rendered at 256
_NO_ALPHA: Final = (8, 24, 48, 96)  # bits per pixel of images without alpha
_GRAY: Final = (0.8, 0.8, 0.8, 1.0)  # Blender's own base color
_BLACK: Final = (0.0, 0.0, 0.0, 1.0)
_DULL: Final = (1.0, 1.0, 0.0, 1.0)  # glTF's packed occlusion, roughness, metallic: not occluded, rough, not metallic


def sanitize_textures(folder: Path, root: Path | None = None, masks: bool = False) -> bool:
    """Make every texture of the open scene usable. Return whether any texture was missing.

    A texture that cannot be decoded is replaced by a plain color; Cycles would show it as magenta. A texture whose
    width or height is more than MAX_SIDE pixels is scaled down.

    Args:
        folder: Folder of the model file. An image whose path does not exist is searched for in this folder.
        root: Folder that must contain the images; other images count as missing and are not read. None: `folder`.
        masks: Whether to use the color of an opacity map as the opacity if the map has no alpha channel. Should be True
            for OBJ files.

    Raises ObjectError for an image with more than MAX_PIXELS.
    """
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree]
    nodes = [node for tree in (*trees, *bpy.data.node_groups) for node in tree.nodes if node.type == "TEX_IMAGE"]
    images = {node.image for node in nodes if node.image}
    try:
        readable = {image for image in images if _check(image, folder.resolve(), (root or folder).resolve())}
    except ModelError as error:
        raise ObjectError("import", type(error).__name__, str(error)) from error
    missing = [node for node in nodes if not (node.image in readable and _decodes(node.image))]
    for node in missing:
        _make_plain(node)
    for node in nodes if masks else ():
        if node not in missing:
            _use_mask(node)
    return bool(missing)


def _check(image: Any, folder: Path, root: Path) -> bool:
    """Return whether an image may be decoded, without decoding it. Raises ModelError when it has too many pixels."""
    if image.packed_file:
        header = image.packed_file.data
    elif image.source != "FILE":
        return True
    else:
        path = Path(bpy.path.abspath(image.filepath_raw))
        if not path.is_file():
            found = find_file(image.filepath_raw.removeprefix("//"), folder, root)
            if found is None:
                return False
            path = found
            image.filepath = str(path)
            image.reload()  # Blender remembers that it could not read the image
        if not is_inside(path, root):
            return False
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    check_image_size(image.name, header)
    return True


def _decodes(image: Any) -> bool:
    """Decode an image and scale it down if it is too large. Return whether it could be decoded."""
    if image.source not in ("FILE", "GENERATED"):  # a movie, an image sequence or tiles
        return False
    width, height = image.size  # reading the size decodes the image
    longest = max(width, height)
    if longest > MAX_SIDE:
        image.scale(max(1, width * MAX_SIDE // longest), max(1, height * MAX_SIDE // longest))
        image.pack()  # otherwise Blender would decode the original again
    return bool(longest)


def _use_mask(node: Any) -> None:
    """Use the color of an opacity map (`map_d` of MTL) as the opacity if the image has no alpha channel.

    Blender's OBJ importer uses the alpha of the image only. An image that also is the base color is not changed.
    """
    outputs = node.outputs
    if outputs["Color"].links or not outputs["Alpha"].links or node.image.depth not in _NO_ALPHA:
        return
    for link in list(outputs["Alpha"].links):
        socket = link.to_socket
        base = link.to_node.inputs.get("Base Color")
        if base is None or any(getattr(each.from_node, "image", None) == node.image for each in base.links):
            continue
        node.image.colorspace_settings.is_data = True
        node.id_data.links.new(outputs["Color"], socket)


def _make_plain(node: Any) -> None:
    """Replace the image of a node by a neutral color, depending on what the image is used for."""
    uses = _uses(node)
    if "NORMAL_MAP" in uses:  # an unconnected normal map is flat, without 8-bit rounding
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
    image.colorspace_settings.is_data = True  # no color conversion
    node.image = image


def _uses(node: Any) -> set[str]:
    """Return the types and the input names of the nodes that use an image's color, directly or indirectly."""
    names: set[str] = set()
    pending, visited = [node.outputs["Color"]], {node}
    while pending:
        for link in pending.pop().links:
            names |= {link.to_node.type, link.to_socket.name}
            if link.to_node not in visited:
                visited.add(link.to_node)
                pending += link.to_node.outputs
    return names
