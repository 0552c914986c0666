"""Create materials for colors that Blender imports without a material. Runs inside Blender."""

from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np

_GRAY: Final = 0.02  # largest difference between the channels of a gray


def color_by_vertex(beside_gray: bool) -> None:
    """Show the vertex colors of meshes that have no material, as in PLY scans and some OBJ files.

    OBJ and FBX exporters write a plain gray material by default. If `beside_gray` is True, vertex colors also replace
    such gray materials, unless the vertex colors are all white or all black. Materials with a color or an image are not
    changed.
    """
    replaced: dict[tuple[str, str], Any] = {}
    for obj in bpy.context.scene.objects:
        if obj.type != "MESH" or not obj.data.color_attributes:
            continue
        attribute = obj.data.color_attributes[0]
        if not any(slot.material for slot in obj.material_slots):
            material = bpy.data.materials.new("vertex colors")
            material.use_nodes = True
            _link_colors(material, attribute.name)
            obj.data.materials.clear()
            obj.data.materials.append(material)
        elif beside_gray and _tells_something(attribute):
            for slot in obj.material_slots:
                if slot.material is None or not _is_plain_gray(slot.material):
                    continue
                key = (slot.material.name, attribute.name)
                if key not in replaced:
                    replaced[key] = slot.material.copy()
                    _link_colors(replaced[key], attribute.name)
                slot.material = replaced[key]


def draws_images() -> bool:
    """Return whether any rendered face of the open scene has texture coordinates and a material that uses an image."""
    for obj in bpy.context.scene.objects:
        if obj.type != "MESH":  # texture coordinates of curves and surfaces are not examined
            if not obj.hide_render and any(slot.material and _uses_image(slot.material) for slot in obj.material_slots):
                return True
            continue
        if obj.hide_render or not obj.data.uv_layers or not len(obj.data.polygons):
            continue
        slots = np.empty(len(obj.data.polygons), np.int32)
        obj.data.polygons.foreach_get("material_index", slots)
        used = np.minimum(np.unique(slots), len(obj.material_slots) - 1)
        if any(_uses_image(obj.material_slots[i].material) for i in used.tolist() if i >= 0):
            return True
    return False


def _uses_image(material: Any) -> bool:
    """Return whether an image affects the surface of a material."""
    if not (material and material.node_tree):
        return False
    output = material.node_tree.get_output_node("CYCLES") or material.node_tree.get_output_node("ALL")
    pending, visited = [output] if output else [], set()
    while pending:
        node = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        if node.type == "TEX_IMAGE":
            return True
        pending += [link.from_node for socket in node.inputs for link in socket.links]
    return False


def show_texture(path: Path) -> None:
    """Give all meshes of the open scene a material that shows the image file at `path`."""
    material = bpy.data.materials.new("texture")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = bpy.data.images.load(str(path))
    material.node_tree.links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    for mesh in bpy.data.meshes:
        mesh.materials.clear()
        mesh.materials.append(material)


def _link_colors(material: Any, layer: str) -> None:
    nodes = material.node_tree.nodes
    attribute = nodes.new("ShaderNodeVertexColor")
    attribute.layer_name = layer
    material.node_tree.links.new(attribute.outputs["Color"], _surface(material).inputs["Base Color"])


def _surface(material: Any) -> Any:
    """Return the Principled BSDF node of a material, or None."""
    nodes = material.node_tree.nodes if material.node_tree else ()
    return next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)


def _is_plain_gray(material: Any) -> bool:
    surface = _surface(material)
    color = surface.inputs["Base Color"] if surface else None
    if color is None or color.is_linked:
        return False
    channels = list(color.default_value)[:3]
    return bool(max(channels) - min(channels) <= _GRAY)


def _tells_something(attribute: Any) -> bool:
    """Return whether the colors [n, 4] of an attribute are neither all white nor all black."""
    values = np.empty(len(attribute.data) * 4, np.float32)
    attribute.data.foreach_get("color", values)
    colors = values.reshape(-1, 4)[:, :3]
    return bool((colors < 1 - _GRAY).any() and (colors > _GRAY).any())
