"""glTF files with unusual materials, images and references."""

import io
import json
from pathlib import Path

from PIL import Image

from tests.support.cases.document import RED, Document, checker, cube, encoded, put, simple


def write_looks(folder: Path) -> None:
    _alpha(folder)
    _references(folder)
    _images(folder)
    _damaged_images(folder)
    _materials(folder)


def shown(path, material):
    """A cube with the material that a function of the document adds."""
    d = Document()
    d.node(mesh=d.mesh(cube(), material(d)))
    d.glb(path)


def _alpha(folder):
    half = checker((220, 30, 30, 255), (30, 60, 220, 0), mode="RGBA")
    shown(folder / "g12_alpha_zero_blend.glb", lambda d: d.plain(*RED, 0.0, alphaMode="BLEND"))
    shown(folder / "g13_alpha_zero_opaque.glb", lambda d: d.plain(*RED, 0.0))
    shown(folder / "g14_mask.glb", lambda d: d.textured(d.texture(half), alphaMode="MASK"))
    shown(folder / "g15_blend.glb", lambda d: d.textured(d.texture(half), alphaMode="BLEND"))
    shown(folder / "g16_texture_alpha_but_opaque.glb", lambda d: d.textured(d.texture(half)))


def _references(folder):
    d = Document()
    texture = d.add("textures", {"source": 0})
    d.node(mesh=d.mesh(cube(), d.textured(texture)))
    for name, image, place, uri, file in (
        ("g32_encoded", "tex%20files/wood%20%231.png", "tex files/wood #1.png", "bin%20a/b%20c.bin", "bin a/b c.bin"),
        ("g33_spaces", "tex files/wood.png", "tex files/wood.png", "data one.bin", "data one.bin"),
        ("g34_backslash", "tex\\wood.png", "tex/wood.png", "bin\\data.bin", "bin/data.bin"),
        ("g37_missing", "wood.png", None, "data.bin", "data.bin"),
        ("g39_file_url", "file:///C:/Users/me/wood.png", "wood.png", "data.bin", "data.bin"),
        ("g41_unicode", "h%C3%B6lz.png", "h\u00f6lz.png", "d\u00e4ta.bin", "d\u00e4ta.bin"),
        ("g42_case", "Wood.PNG", "wood.png", "data.bin", "data.bin"),
        ("g43_percent", "100%25.png", "100%.png", "data.bin", "data.bin"),
        ("g44_dot", "./wood.png", "wood.png", "./data.bin", "data.bin"),
    ):
        d.json["images"] = [{"uri": image}]
        d.gltf(folder / name / "model.gltf", uri, file)
        if place:
            put(folder / name / place, checker())
    simple(cube(), *RED).gltf(folder / "g45_bom.gltf", bom=True)
    simple(cube(), *RED).glb(folder / "w05_gltf_inside.gltf")
    simple(cube(), *RED).gltf(folder / "w06_json_inside.glb")
    old = {"asset": {"version": "1.0"}, "scene": "s", "scenes": {"s": {"nodes": []}}, "nodes": {}, "meshes": {}}
    put(folder / "g47_version_1.gltf", json.dumps(old))


def _images(folder):
    rgb = Image.open(io.BytesIO(checker()))
    for name, image, fmt, mime, options in (
        ("p01_jpeg", rgb, "JPEG", "jpeg", {}),
        ("p02_jpeg_progressive", rgb, "JPEG", "jpeg", {"progressive": True}),
        ("p03_jpeg_cmyk", rgb.convert("CMYK"), "JPEG", "jpeg", {}),
        ("p04_jpeg_gray", rgb.convert("L"), "JPEG", "jpeg", {}),
        ("p05_png_palette", rgb.convert("P"), "PNG", "png", {}),
        ("p06_png_gray_alpha", rgb.convert("LA"), "PNG", "png", {}),
        ("p07_png_16bit", rgb.convert("L").convert("I;16"), "PNG", "png", {}),
        ("p08_png_1bit", rgb.convert("1"), "PNG", "png", {}),
        ("p09_webp", rgb, "WEBP", "webp", {"lossless": True}),
        ("p10_png_called_jpeg", rgb, "PNG", "jpeg", {}),
        ("p11_webp_called_png", rgb, "WEBP", "png", {"lossless": True}),
        ("p12_bmp", rgb, "BMP", "bmp", {}),
        ("p13_gif", rgb, "GIF", "gif", {}),
        ("p14_tiff", rgb, "TIFF", "tiff", {}),
        ("p16_1x1", Image.new("RGB", (1, 1), (10, 200, 40)), "PNG", "png", {}),
        ("p17_7x3", rgb.resize((7, 3)), "PNG", "png", {}),
    ):
        d = Document()
        texture = d.texture(encoded(image, fmt, **options), f"image/{mime}")
        if name == "p09_webp":
            d.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
            d.json["extensionsUsed"] = d.json["extensionsRequired"] = ["EXT_texture_webp"]
        d.node(mesh=d.mesh(cube(), d.textured(texture)))
        d.glb(folder / f"{name}.glb")


def _damaged_images(folder):
    shown(folder / "p15_unreadable.glb", lambda d: d.textured(d.texture(b"\0\0\0 ftypavif" + bytes(90), "image/avif")))
    shown(folder / "p18_png_truncated.glb", lambda d: d.textured(d.texture(checker()[:60])))
    shown(folder / "p19_png_empty.glb", lambda d: d.textured(d.texture(b"")))
    cut = checker((1, 2, 3), n=64, size=256)[:-300]
    shown(folder / "p20_png_cut_end.glb", lambda d: d.textured(d.texture(cut)))


def _materials(folder):
    glossy = {"diffuseFactor": [0.1, 0.7, 0.1, 1], "specularFactor": [0, 0, 0], "glossinessFactor": 0.2}
    for name, extension in (
        ("m01_transmission", {"KHR_materials_transmission": {"transmissionFactor": 1.0}}),
        ("m02_unlit", {"KHR_materials_unlit": {}}),
        ("m03_specgloss", {"KHR_materials_pbrSpecularGlossiness": glossy}),
        ("m04_unknown", {"ACME_paint": {"shade": 1}}),
    ):
        d = Document()
        d.node(mesh=d.mesh(cube(), d.plain(0.7, 0.2, 0.2, extensions=extension)))
        d.json["extensionsUsed"] = list(extension)
        d.glb(folder / f"{name}.glb")
        if name in ("m01_transmission", "m03_specgloss"):
            d.json["extensionsRequired"] = list(extension)
            d.glb(folder / f"{name}_required.glb")
    metal = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1]}}
    shown(folder / "m05_default_metal.glb", lambda d: d.add("materials", metal))
    shown(folder / "m06_emissive_on_black.glb", lambda d: d.plain(0, 0, 0, emissiveFactor=[1, 0.2, 0]))
    strong = {"KHR_materials_emissive_strength": {"emissiveStrength": 50}}
    d = Document()
    d.node(mesh=d.mesh(cube(), d.plain(0, 0, 0, emissiveFactor=[1, 1, 1], extensions=strong)))
    d.json["extensionsUsed"] = list(strong)
    d.glb(folder / "m07_emissive_strong.glb")
