"""Replace materials by ones that show the base color without light, to render passes. Runs inside Blender.

Each material's closures are translated: a closure that reflects, transmits or emits light has a color, a roughness, a
metallic value and an opacity; a transparent closure has the opacity 0. Mix and Add nodes mix and add them. A surface is
drawn if its opacity is at least 0.5.
"""

from dataclasses import dataclass
from typing import Any, Final

import bpy

MATERIAL_AOV: Final = "material"
_OPACITY: Final = 0.5  # of a surface from which on it is drawn
_GRAY: Final = 0.8  # the color that Cycles gives to faces without a material
_DEPTH: Final = 32  # of nested Mix and Add nodes

Value = Any  # a node's output socket, or a constant: a number or a tuple (red, green, blue)


@dataclass(frozen=True)
class Look:
    """The values of a closure, each an output socket or a constant."""

    color: Value
    roughness: Value
    metallic: Value
    opacity: Value


_CLEAR: Final = Look((0.0, 0.0, 0.0), 0.0, 0.0, 0.0)


def show_base_colors() -> None:
    """Replace the surfaces of all materials of the open scene. The AOV of each surface is (1, roughness, metallic)."""
    for obj in bpy.context.scene.objects:
        slots = getattr(obj, "material_slots", ())
        if obj.type in ("MESH", "CURVE", "SURFACE", "FONT", "META") and not any(slot.material for slot in slots):
            obj.data.materials.append(_plain())
        for slot in slots:
            if slot.material is None:
                slot.material = _plain()
    for material in bpy.data.materials:
        if material.use_nodes and material.node_tree:
            _replace(material.node_tree)
        else:
            color = tuple(material.diffuse_color[:3])
            material.use_nodes = True
            material.node_tree.nodes.clear()
            output = material.node_tree.nodes.new("ShaderNodeOutputMaterial")
            _finish(material.node_tree, output, Look(color, 1.0, 0.0, 1.0))


def _plain() -> Any:
    name = "without material"
    if name in bpy.data.materials:
        return bpy.data.materials[name]
    material = bpy.data.materials.new(name)
    material.diffuse_color = (_GRAY, _GRAY, _GRAY, 1.0)
    return material


def _replace(tree: Any) -> None:
    output = tree.get_output_node("CYCLES") or tree.get_output_node("ALL")
    if output is None:
        output = tree.nodes.new("ShaderNodeOutputMaterial")
    surface = output.inputs["Surface"]
    look = _look(tree, surface.links[0].from_node, _DEPTH) if surface.links else _CLEAR
    for link in list(output.inputs["Volume"].links):
        tree.links.remove(link)
    _finish(tree, output, look)


def _finish(tree: Any, output: Any, look: Look) -> None:
    """Draw a surface of the given look: its color as emitted light, and its values in the AOV."""
    nodes, links = tree.nodes, tree.links
    drawn = _math(tree, "GREATER_THAN", look.opacity, _OPACITY - 1e-4)
    emission, clear, mix = (nodes.new(f"ShaderNode{name}") for name in ("Emission", "BsdfTransparent", "MixShader"))
    _connect(tree, look.color, emission.inputs["Color"])
    _connect(tree, drawn, mix.inputs["Fac"])
    links.new(clear.outputs[0], mix.inputs[1])
    links.new(emission.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
    combine, aov = nodes.new("ShaderNodeCombineColor"), nodes.new("ShaderNodeOutputAOV")
    aov.aov_name = MATERIAL_AOV
    for value, socket in zip((1.0, look.roughness, look.metallic), combine.inputs, strict=True):
        _connect(tree, _math(tree, "MULTIPLY", value, drawn), socket)
    links.new(combine.outputs[0], aov.inputs["Color"])


def _look(tree: Any, node: Any, depth: int) -> Look:
    """Return the look of the closure that a node outputs."""
    if depth == 0 or node.type in ("BSDF_TRANSPARENT", "HOLDOUT"):
        return _CLEAR
    if node.type == "MIX_SHADER":
        first, second = (_input_look(tree, node.inputs[place], depth) for place in (1, 2))
        return _mix(tree, _value(node.inputs["Fac"]), first, second)
    if node.type == "ADD_SHADER":
        first, second = (_input_look(tree, socket, depth) for socket in node.inputs)
        return _add(tree, first, second)
    if node.type == "REROUTE":
        return _input_look(tree, node.inputs[0], depth)
    inputs = node.inputs
    color = next((_value(inputs[name]) for name in ("Base Color", "Color") if name in inputs), (_GRAY,) * 3)
    roughness = _value(inputs["Roughness"]) if "Roughness" in inputs else 1.0
    metallic = _value(inputs["Metallic"]) if "Metallic" in inputs else 0.0
    opacity = _value(inputs["Alpha"]) if "Alpha" in inputs else 1.0
    return Look(color, roughness, metallic, opacity)


def _input_look(tree: Any, socket: Any, depth: int) -> Look:
    return _look(tree, socket.links[0].from_node, depth - 1) if socket.links else _CLEAR


def _mix(tree: Any, factor: Value, first: Look, second: Look) -> Look:
    """Return the look of a Mix Shader node. The values of both closures are weighted by their opacities."""
    left = _math(tree, "MULTIPLY", _math(tree, "SUBTRACT", 1.0, factor), first.opacity)
    right = _math(tree, "MULTIPLY", factor, second.opacity)
    return _weighted(tree, (left, right), first, second, _math(tree, "ADD", left, right))


def _add(tree: Any, first: Look, second: Look) -> Look:
    """Return the look of an Add Shader node, which is as opaque as its more opaque closure."""
    opacity = _math(tree, "MAXIMUM", first.opacity, second.opacity)
    return _weighted(tree, (first.opacity, second.opacity), first, second, opacity)


def _weighted(tree: Any, weights: tuple[Value, Value], first: Look, second: Look, opacity: Value) -> Look:
    total = _math(tree, "MAXIMUM", _math(tree, "ADD", *weights), 1e-6)
    share = _math(tree, "DIVIDE", weights[1], total)
    node = tree.nodes.new("ShaderNodeMix")
    node.data_type, node.clamp_factor = "RGBA", True
    _connect(tree, share, node.inputs[0])
    _connect(tree, first.color, node.inputs[6])  # the color inputs of a Mix node have the numbers 6 and 7
    _connect(tree, second.color, node.inputs[7])
    numbers = [
        _math(tree, "ADD", one, _math(tree, "MULTIPLY", share, _math(tree, "SUBTRACT", other, one)))
        for one, other in ((first.roughness, second.roughness), (first.metallic, second.metallic))
    ]
    return Look(node.outputs[2], numbers[0], numbers[1], opacity)


def _value(socket: Any) -> Value:
    """Return the output socket that an input is linked to, or the input's constant."""
    if socket.links:
        return socket.links[0].from_socket
    value = socket.default_value
    return tuple(value[:3]) if hasattr(value, "__len__") else float(value)


def _math(tree: Any, operation: str, first: Value, second: Value) -> Value:
    node = tree.nodes.new("ShaderNodeMath")
    node.operation = operation
    _connect(tree, first, node.inputs[0])
    _connect(tree, second, node.inputs[1])
    return node.outputs[0]


def _connect(tree: Any, value: Value, socket: Any) -> None:
    if isinstance(value, tuple):
        socket.default_value = (*value, 1.0)
    elif isinstance(value, int | float):
        socket.default_value = value
    else:
        tree.links.new(value, socket)
