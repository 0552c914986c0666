"""Write a copy of a glTF file without the data that Blender's importer cannot read or must not read."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from dataset.format.outcomes import Flag
from render.model_files.references import is_inside

MISSING_URI: Final = "isotropic3d-missing"  # replaces the URI of an image that must not be opened
_LOOKS: Final = ("materials", "textures", "images", "samplers")  # lists whose extensions concern materials only
_BASISU: Final = "KHR_texture_basisu"
_VISIBILITY: Final = "KHR_node_visibility"
_IMPORTED: Final = frozenset(  # extensions that Blender's importer supports; it rejects files that require others
    (
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_lights_punctual",
        "KHR_materials_unlit",
        "KHR_texture_transform",
        "KHR_materials_clearcoat",
        "KHR_mesh_quantization",
        "EXT_mesh_gpu_instancing",
        "KHR_draco_mesh_compression",
        "KHR_materials_variants",
        "KHR_materials_emissive_strength",
        "KHR_materials_transmission",
        "KHR_materials_specular",
        "KHR_materials_sheen",
        "KHR_materials_ior",
        "KHR_animation_pointer",
        "KHR_materials_volume",
        "EXT_texture_webp",
        "KHR_materials_anisotropy",
    )
)


def local_path(uri: str, folder: Path, root: Path) -> Path | None:
    """Return the path of the file that a URI in a glTF file refers to.

    Args:
        uri: The URI, which must not be a data URI.
        folder: Folder of the glTF file.
        root: Folder that the referenced file must be in.

    Returns:
        The path, or None if the URI is an absolute path, an address on the web or a path outside of `root`.

    Raises OSError or ValueError when the URI is not a valid path.
    """
    target = unquote(uri).replace("\\", "/")
    if urlsplit(target).scheme or target.startswith("/"):
        return None
    return folder / target if is_inside(folder / target, root) else None


def simplify(document: dict[str, Any], path: Path, root: Path, animations: bool) -> tuple[bool, tuple[Flag, ...]]:
    """Remove the data of a glTF document that Blender's importer cannot read or must not read.

    Args:
        document: The JSON document. It is changed.
        path: Path of the glTF file. URIs of images are relative to the folder of this file.
        root: Folder that must contain all image files. The URI of an image elsewhere is replaced by MISSING_URI.
        animations: Whether the animations are kept.

    Returns:
        A pair: whether the document was changed, and the object's quality flags. The only possible flag is
        unsupported-extension: Blender renders the object without a material extension that the file requires.
    """
    flags: tuple[Flag, ...] = ("unsupported-extension",) if _drop_extensions(document) else ()
    changed = _drop_hidden_nodes(document) or bool(flags)
    for image in document.get("images", []):
        uri = image.get("uri")
        if uri is not None and not uri.startswith("data:") and local_path(uri, path.parent.resolve(), root) is None:
            image["uri"], changed = MISSING_URI, True
    for primitive in (p for mesh in document.get("meshes", []) for p in mesh["primitives"]):
        draco = primitive.get("extensions", {}).get("KHR_draco_mesh_compression", {})
        for attributes in (primitive["attributes"], draco.get("attributes", {})):
            for name in [name for name in attributes if name.startswith("_")]:
                del attributes[name]
                changed = True
    if not animations and document.pop("animations", None):
        changed = True
    return changed, flags


def write_copy(document: dict[str, Any], binary: memoryview, path: Path, folder: Path) -> Path:
    """Write a glTF document and its binary chunk to a new GLB file in `folder`. Return the path of the new file.

    In the new file, references to other files are absolute paths.

    Args:
        document: The JSON document. Its URIs are changed.
        binary: The binary chunk, empty if there is none.
        path: Path of the original glTF file. URIs are relative to the folder of this file.
        folder: Existing folder for the new file.
    """
    origin = path.parent.resolve()
    for entry in (*document.get("buffers", []), *document.get("images", [])):
        uri = entry.get("uri")
        if uri is not None and uri != MISSING_URI and not uri.startswith("data:"):
            entry["uri"] = quote(os.fsencode(origin / unquote(uri).replace("\\", "/")))
    text = json.dumps(document).encode()
    target = folder / f"{path.stem}.glb"
    text += b" " * (-len(text) % 4)
    padding = bytes(-len(binary) % 4)
    chunk = struct.pack("<II", len(binary) + len(padding), 0x004E4942) if len(binary) else b""
    length = 12 + 8 + len(text) + len(chunk) + len(binary) + len(padding)
    with target.open("wb") as file:
        file.write(struct.pack("<4sIIII", b"glTF", 2, length, len(text), 0x4E4F534A))
        for part in (text, chunk, binary, padding):
            file.write(part)
    return target


def _drop_extensions(document: dict[str, Any]) -> bool:
    """Make unsupported material extensions optional. Return whether there was one."""
    required = document.get("extensionsRequired", [])
    dropped = [name for name in required if name not in _IMPORTED and _concerns_looks(document, name)]
    if not dropped:
        return False
    document["extensionsRequired"] = [name for name in required if name not in dropped]
    if not document["extensionsRequired"]:
        del document["extensionsRequired"]
    for texture in document.get("textures", []):
        source = texture.get("extensions", {}).get(_BASISU, {}).get("source")
        if source is not None:
            texture.setdefault("source", source)
    return True


def _drop_hidden_nodes(document: dict[str, Any]) -> bool:
    """Remove the meshes of nodes hidden by KHR_node_visibility and of their descendants. Return whether there was one.

    Blender's importer does not know this extension and would draw such nodes.
    """
    if _VISIBILITY not in document.get("extensionsUsed", []):
        return False
    for key in ("extensionsUsed", "extensionsRequired"):
        document[key] = [name for name in document.get(key, []) if name != _VISIBILITY]
        if not document[key]:
            del document[key]
    nodes = document.get("nodes", [])
    pending = [
        index
        for index, node in enumerate(nodes)
        if node.get("extensions", {}).get(_VISIBILITY, {}).get("visible") is False
    ]
    hidden: set[int] = set()
    while pending:
        index = pending.pop()
        if index not in hidden:
            hidden.add(index)
            pending += nodes[index].get("children", [])
    for node in (nodes[index] for index in hidden):
        for name in ("mesh", "skin"):
            node.pop(name, None)
        node.get("extensions", {}).pop("EXT_mesh_gpu_instancing", None)
    return True


def _concerns_looks(document: dict[str, Any], extension: str) -> bool:
    """Return whether only the materials, textures and images of a document use the extension."""
    looks = any(extension in names for key in _LOOKS for names in _extensions(document.get(key, [])))
    rest = [value for key, value in document.items() if key not in _LOOKS]
    return looks and not any(extension in names for names in _extensions(rest))


def _extensions(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every `extensions` object inside a JSON value."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            if isinstance(each.get("extensions"), dict):
                yield each["extensions"]
            pending += each.values()
        elif isinstance(each, list):
            pending += each
