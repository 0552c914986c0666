"""Encode a textured mesh as USDZ: an uncompressed ZIP file of a USD layer in text form and a PNG texture.

The specification (https://openusd.org/release/spec_usdz.html) asks for a ZIP file without compression and encryption,
whose first file is the USD layer, and in which the data of every file begin at a multiple of 64 bytes. The layer is y
up (`distill.mesh.formats.to_y_up`), and its unit is the meter.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from distill.mesh.formats import ROUGHNESS, TexturedMesh, png, to_y_up

ALIGNMENT: Final = 64  # bytes
_LAYER: Final = "mesh.usda"
_TEXTURE: Final = "textures/mesh.png"
_PADDING_ID: Final = 0x1986  # of the extra field of the ZIP header, as in Pixar's writer
_LOCAL_HEADER: Final = 30  # bytes of a ZIP header without the file name and the extra field
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # so that equal meshes give equal files

_USDA: Final = """#usda 1.0
(
    defaultPrim = "Model"
    doc = "y up, the front faces +z, meters"
    metersPerUnit = 1
    upAxis = "Y"
)

def Xform "Model" (
    kind = "component"
)
{{
    def Mesh "Mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform bool doubleSided = 0
        float3[] extent = [{extent}]
        int[] faceVertexCounts = [{counts}]
        int[] faceVertexIndices = [{corners}]
        rel material:binding = </Model/Material>
        normal3f[] normals = [{normals}] (
            interpolation = "vertex"
        )
        point3f[] points = [{points}]
        texCoord2f[] primvars:st = [{uv}] (
            interpolation = "vertex"
        )
        uniform token subdivisionScheme = "none"
    }}

    def Material "Material"
    {{
        token outputs:surface.connect = </Model/Material/Surface.outputs:surface>

        def Shader "Surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </Model/Material/Texture.outputs:rgb>
            float inputs:metallic = 0
            float inputs:roughness = {roughness}
            token outputs:surface
        }}

        def Shader "Texture"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{texture}@
            token inputs:sourceColorSpace = "sRGB"
            float2 inputs:st.connect = </Model/Material/Coordinates.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}

        def Shader "Coordinates"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}
    }}
}}
"""


def usdz(textured: TexturedMesh) -> bytes:
    """Return the bytes of a USDZ file: one mesh with smooth normals and a UsdPreviewSurface material with a texture.

    Equal meshes give equal bytes.
    """
    return package({_LAYER: usda(textured), _TEXTURE: png(textured.texture)})


def usda(textured: TexturedMesh) -> bytes:
    """Return the bytes of the USD layer, which refers to the texture by its path in the package."""
    surface, charts = textured.surface, textured.charts
    points = to_y_up(surface.vertices)[charts.source]
    text = _USDA.format(
        extent=_tuples("({:.6f}, {:.6f}, {:.6f})", np.stack([points.min(0), points.max(0)])),
        counts=", ".join(["3"] * len(charts.faces)),
        corners=", ".join(map(str, charts.faces.ravel().tolist())),
        normals=_tuples("({:.4f}, {:.4f}, {:.4f})", to_y_up(textured.normals)[charts.source]),
        points=_tuples("({:.6f}, {:.6f}, {:.6f})", points),
        uv=_tuples("({:.6f}, {:.6f})", charts.uv),
        roughness=ROUGHNESS,
        texture=_TEXTURE,
    )
    return text.encode()


def package(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of an uncompressed ZIP file in which the data of each file begin at a multiple of ALIGNMENT.

    Args:
        files: Contents by ASCII path, in the order in which they are stored.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            info.extra = _padding(buffer.tell() + _LOCAL_HEADER + len(name.encode()))
            archive.writestr(info, data)
    return buffer.getvalue()


def _padding(position: int) -> bytes:
    """Return an extra field of the ZIP header, after which `position` bytes become a multiple of ALIGNMENT."""
    length = -(position + 4) % ALIGNMENT  # 4: identifier and length of the field
    return struct.pack("<HH", _PADDING_ID, length) + bytes(length)


def _tuples(pattern: str, values: NDArray[Any]) -> str:
    return ", ".join(pattern.format(*row) for row in values.tolist())
