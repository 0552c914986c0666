"""OBJ, FBX, PLY and STL files with unusual contents, and files that are no models."""

import struct
from pathlib import Path

from tests.support.cases.document import checker, cube, put

POSITIONS, COORDINATES, INDICES = cube()
HALVES = [(1, 0, 0) if p[1] > 0 else (0, 0, 1) for p in POSITIONS]  # red above, blue below
TRIANGLES = [INDICES[k : k + 3] for k in range(0, 36, 3)]


def write_other_formats(folder: Path) -> None:
    _obj(folder)
    _obj_texts(folder)
    _fbx(folder)
    _ply(folder)
    _stl(folder)
    _not_models(folder)


def obj_cube(shift=0.0, uv=True, colors=None):
    lines = [
        "v " + " ".join(f"{x + shift:.6f}" for x in p) + (" " + " ".join(map(str, colors[i])) if colors else "")
        for i, p in enumerate(POSITIONS)
    ]
    lines += [f"vt {u} {1 - v}" for u, v in COORDINATES]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" if uv else f"{i + 1}" for i in t) for t in TRIANGLES]
    return "\n".join(lines) + "\n"


HEAD = "mtllib m.mtl\nusemtl paint\n"
PAINT = "newmtl paint\nKd 0.8 0.1 0.1\n"
WOOD = "newmtl paint\nKd 1 1 1\nmap_Kd "
COLORED = obj_cube(colors=HALVES, uv=False)


def _obj(folder):
    """Files with `HEAD` and a material file `m.mtl`."""
    for name, text, material, files in (
        ("o02_windows_path_beside", obj_cube(), WOOD + "C:\\Users\\me\\Desktop\\wood.png", ["wood.png"]),
        ("o03_windows_path_gone", obj_cube(), WOOD + "C:\\Users\\me\\Desktop\\wood.png", []),
        ("o04_unix_path_gone", obj_cube(), WOOD + "/home/me/wood.png", []),
        ("o05_backslash", obj_cube(), WOOD + "tex\\wood.png", ["tex/wood.png"]),
        ("o06_case_differs", obj_cube(), WOOD + "WOOD.PNG", ["wood.png"]),
        ("o08_options", obj_cube(), WOOD + "-s 2 2 1 -o 0.5 0 0 wood.png", ["wood.png"]),
        ("o15_far", obj_cube(1e6), PAINT, []),
        ("o16_d_zero", obj_cube(), PAINT + "d 0\n", []),
        ("o17_tr_one", obj_cube(), PAINT + "Tr 1\n", []),
        ("o18_d_one_tr_one", obj_cube(), PAINT + "d 1\nTr 1.000000\n", []),
        ("o19_kd_black_texture", obj_cube(), "newmtl paint\nKd 0 0 0\nmap_Kd wood.png\n", ["wood.png"]),
        ("o26_illum_glass", obj_cube(), PAINT + "d 0.1\nillum 4\nNi 1.5\n", []),
        ("o27_map_d", obj_cube(), WOOD + "wood.png\nmap_d mask.png\n", ["wood.png"]),
        ("o28_dds", obj_cube(), WOOD + "wood.dds\n", []),
        ("o29_tga", obj_cube(), WOOD + "wood.tga\n", []),
    ):
        put(folder / name / f"{name}.obj", HEAD + text)
        put(folder / name / "m.mtl", material)
        for file in files:
            put(folder / name / file, checker())
    put(folder / "o27_map_d" / "mask.png", checker((255,) * 3, (0,) * 3))
    put(folder / "o28_dds" / "wood.dds", checker((220, 30, 30, 255), (30, 60, 220, 255), mode="RGBA", fmt="DDS"))
    put(folder / "o29_tga" / "wood.tga", checker(fmt="TGA"))


def _obj_texts(folder):
    """Files whose text, or whose reference to a material file, is unusual."""
    spaces = {"my paint.mtl": WOOD + "my wood.png\n", "my wood.png": checker()}
    wood = {"m.mtl": WOOD.replace("\n", "\r\n") + "wood.png\r\n", "wood.png": checker()}
    for name, text, files in (
        ("o07_spaces", "mtllib my paint.mtl\nusemtl paint\n" + obj_cube(), spaces),
        ("o09_vertex_colors", COLORED, {}),
        ("o11_vertex_colors_missing_mtl", HEAD + COLORED, {}),
        ("o12_lines", "v 0 0 0\nv 1 0 0\nv 1 1 0\nl 1 2 3\n", {}),
        ("o13_points", "v 0 0 0\nv 1 0 0\nv 1 1 0\np 1 2 3\n", {}),
        ("o14_vertices_only", "v 0 0 0\nv 1 0 0\nv 1 1 0\n", {}),
        ("o21_crlf", (HEAD + obj_cube()).replace("\n", "\r\n"), wood),
        ("o23_mtl_by_name", obj_cube(), {"o23_mtl_by_name.mtl": PAINT}),
        ("o24_comma_numbers", obj_cube().replace(".", ","), {}),
        ("o25_utf16", ("\ufeff" + obj_cube()).encode("utf-16-le"), {}),
        ("o31_tabs", (HEAD + obj_cube()).replace(" ", "\t"), {"m.mtl": PAINT.replace(" ", "\t")}),
        ("o32_usemtl_before_mtllib", "usemtl paint\nmtllib m.mtl\n" + obj_cube(), {"m.mtl": PAINT}),
    ):
        put(folder / name / f"{name}.obj", text)
        for file, data in files.items():
            put(folder / name / file, data)
    put(folder / "o41_scanned/meshes/model.obj", "mtllib model.mtl\nusemtl paint\n" + obj_cube())
    put(folder / "o41_scanned/meshes/model.mtl", WOOD + "texture.png\n")
    put(folder / "o41_scanned/materials/textures/texture.png", checker())
    faces = "".join(f"f {a + 1} {b + 1} {c + 1}\nf {c + 1} {b + 1} {a + 1}\n" for a, b, c in TRIANGLES)
    put(folder / "d7_reversed.obj", "".join(f"v {x} {y} {z}\n" for x, y, z in POSITIONS) + faces)


FBX = """; FBX 7.4.0 project file
FBXHeaderExtension:  {
	FBXHeaderVersion: 1003
	FBXVersion: 7400
}
GlobalSettings:  {
	Version: 1000
	Properties70:  {
		P: "UpAxis", "int", "Integer", "",UP
		P: "UpAxisSign", "int", "Integer", "",1
		P: "FrontAxis", "int", "Integer", "",2
		P: "FrontAxisSign", "int", "Integer", "",1
		P: "CoordAxis", "int", "Integer", "",0
		P: "CoordAxisSign", "int", "Integer", "",1
		P: "UnitScaleFactor", "double", "Number", "",1
	}
}
Objects:  {
	Geometry: 2, "Geometry::g", "Mesh" {
		Vertices: *72 {
			a: VERTICES
		}
		PolygonVertexIndex: *36 {
			a: POLYGONS
		}
		LayerElementUV: 0 {
			Name: "UVMap"
			MappingInformationType: "ByPolygonVertex"
			ReferenceInformationType: "IndexToDirect"
			UV: *48 {
				a: COORDINATES
			}
			UVIndex: *36 {
				a: INDICES
			}
		}
		LayerElementMaterial: 0 {
			MappingInformationType: "AllSame"
			ReferenceInformationType: "IndexToDirect"
			Materials: *1 {
				a: 0
			}
		}
		Layer: 0 {
			LayerElement:  {
				Type: "LayerElementUV"
				TypedIndex: 0
			}
			LayerElement:  {
				Type: "LayerElementMaterial"
				TypedIndex: 0
			}
		}
	}
	Model: 3, "Model::cube", "Mesh" {
		Version: 232
	}
	Material: 4, "Material::paint", "" {
		ShadingModel: "phong"
		Properties70:  {
			P: "DiffuseColor", "Color", "", "A",0.8,0.8,0.8
		}
	}TEXTURE
}
Connections:  {
	C: "OO",3,0
	C: "OO",2,3
	C: "OO",4,3LINKS
}
"""
FBX_TEXTURE = """
	Texture: 5, "Texture::t", "" {
		Type: "TextureVideoClip"
		TextureName: "Texture::t"
		FileName: "ABSOLUTE"
		RelativeFilename: "RELATIVE"
	}
	Video: 6, "Video::v", "Clip" {
		Type: "Clip"
		FileName: "ABSOLUTE"
		RelativeFilename: "RELATIVE"
	}"""


def fbx(absolute=None, relative="", up=1):
    """A cube of 1 m in text form, whose image has two names."""
    polygons = [value for a, b, c in TRIANGLES for value in (a, b, -c - 1)]
    texture = FBX_TEXTURE.replace("ABSOLUTE", absolute).replace("RELATIVE", relative) if absolute else ""
    links = '\n\tC: "OP",5,4, "DiffuseColor"\n\tC: "OO",6,5' if absolute else ""
    text = FBX.replace("UP", str(up), 1).replace("TEXTURE", texture).replace("LINKS", links)
    for key, values in (
        ("VERTICES", [f"{100 * x:g}" for p in POSITIONS for x in p]),
        ("POLYGONS", map(str, polygons)),
        ("COORDINATES", [f"{x:g}" for u, v in COORDINATES for x in (u, 1 - v)]),
        ("INDICES", map(str, INDICES)),
    ):
        text = text.replace(key, ",".join(values))
    return text


def _fbx(folder):
    away = "C:\\Users\\me\\Desktop\\chair\\wood.png"
    for name, absolute, relative, place in (
        ("f01_absolute_beside", away, "wood.png", "wood.png"),
        ("f03_relative_backslash", away, "textures\\wood.png", "textures/wood.png"),
        ("f04_fbm", away, "f04_fbm.fbm\\wood.png", "f04_fbm.fbm/wood.png"),
        ("f05_gone", away, "wood.png", None),
        ("f06_relative_up_but_beside", away, "..\\..\\textures\\wood.png", "wood.png"),
        ("f07_case", away, "WOOD.PNG", "wood.png"),
        ("f08_only_in_textures", away, away, "textures/wood.png"),
        ("f09_unix_beside", "/home/me/wood.png", "/home/me/wood.png", "wood.png"),
    ):
        put(folder / name / f"{name}.fbx", fbx(absolute, relative))
        if place:
            put(folder / name / place, checker())
    put(folder / "f11_plain.fbx", fbx())
    put(folder / "f13_z_up.fbx", fbx(up=2))


XYZ = "property float x\nproperty float y\nproperty float z\n"
RGB = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
LIST = "property list uchar int vertex_indices\n"
FACES = "".join(f"3 {a} {b} {c}\n" for a, b, c in TRIANGLES)


def ply(vertex, rows, fmt="ascii", *, face=LIST, faces=FACES, comments="", extra=""):
    number = len(faces.splitlines())
    head = (
        f"ply\nformat {fmt} 1.0\n{comments}element vertex 24\n{vertex}element face {number}\n{face}{extra}end_header\n"
    )
    return head + rows + faces


def rows(color=lambda c: " ".join(str(255 * x) for x in c)):
    """Vertices with colors; a function formats each color."""
    return "".join(f"{p[0]} {p[1]} {p[2]} {color(c)}\n" for p, c in zip(POSITIONS, HALVES, strict=True))


def _ply(folder):
    colored = rows()
    quads = "".join(f"4 {4 * k} {4 * k + 1} {4 * k + 2} {4 * k + 3}\n" for k in range(6))
    wedges = "".join(
        f"3 {a} {b} {c} 6 " + " ".join(f"{COORDINATES[i][0]} {1 - COORDINATES[i][1]}" for i in (a, b, c)) + "\n"
        for a, b, c in TRIANGLES
    )
    texcoord, wood = LIST + "property list uchar float texcoord\n", "comment TextureFile wood.png\n"
    with_more = FACES.replace("\n", " 1 0.5\n")
    put(folder / "y01_ascii_rgb.ply", ply(XYZ + RGB, colored))
    for name, order, fmt in (("y02_le_rgb", "<", "binary_little_endian"), ("y03_be_rgb", ">", "binary_big_endian")):
        body = b"".join(
            struct.pack(order + "3f3B", *p, *(255 * x for x in c)) for p, c in zip(POSITIONS, HALVES, strict=True)
        )
        body += b"".join(struct.pack(order + "B3i", 3, *t) for t in TRIANGLES)
        head = ply(XYZ + RGB, "", fmt).removesuffix(FACES).encode()
        put(folder / f"{name}.ply", head + body)
    alpha = XYZ + RGB + "property uchar alpha\n"
    put(folder / "y04_rgba.ply", ply(alpha, colored.replace("\n", " 255\n")))
    put(folder / "y05_alpha_zero.ply", ply(alpha, colored.replace("\n", " 0\n")))
    put(folder / "y06_float_rgb.ply", ply(XYZ + RGB.replace("uchar", "float"), rows(lambda c: " ".join(map(str, c)))))
    put(folder / "y07_double_xyz.ply", ply(XYZ.replace("float", "double") + RGB, colored))
    put(folder / "y08_vertex_index.ply", ply(XYZ + RGB, colored, face=LIST.replace("indices", "index")))
    put(folder / "y10_points.ply", ply(XYZ + RGB, colored, faces=""))
    put(folder / "y12_wedges/y12_wedges.ply", ply(XYZ, rows(lambda c: ""), face=texcoord, faces=wedges, comments=wood))
    put(folder / "y12_wedges/wood.png", checker())
    camera = "element camera 1\nproperty float view_px\n"
    put(folder / "y14_camera_element.ply", ply(XYZ + RGB, colored, extra=camera) + "0.5\n")
    put(folder / "y15_crlf.ply", ply(XYZ + RGB, colored).replace("\n", "\r\n"))
    put(folder / "y16_quads.ply", ply(XYZ + RGB, colored, faces=quads))
    strips = ply(XYZ + RGB, colored, face="property list int int vertex_indices\n", faces="8 0 1 3 2 -1 4 5 6\n")
    put(folder / "y17_tristrips.ply", strips.replace("element face", "element tristrips"))
    wide = rows(lambda c: " ".join(str(65535 * x) for x in c))
    put(folder / "y20_ushort_rgb.ply", ply(XYZ + RGB.replace("uchar", "ushort"), wide))
    splats = XYZ + "".join(f"property float f_dc_{i}\n" for i in range(3)) + "property float opacity\n"
    body = b"".join(struct.pack("<7f", *p, 0.5, 0.2, 0.1, 1) for p in POSITIONS)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex 24\n{splats}end_header\n"
    put(folder / "y21_splats.ply", head.encode() + body)
    more = LIST + "property uchar flags\nproperty float quality\n"
    put(folder / "y22_extra_face_property.ply", ply(XYZ + RGB, colored, face=more, faces=with_more))


def facet(triangle):
    corners = "".join("vertex {} {} {}\n".format(*(25.4 * x for x in POSITIONS[i])) for i in triangle)
    return f"facet normal 0 0 0\nouter loop\n{corners}endloop\nendfacet\n"


def _stl(folder):
    text = "".join(map(facet, TRIANGLES))
    half = "".join(map(facet, TRIANGLES[:6]))
    corners = [[x for i in t for x in POSITIONS[i]] for t in TRIANGLES]
    data, red = (b"".join(struct.pack("<12fH", 0, 0, 0, *c, color) for c in corners) for color in (0, 0x1F))
    nan = data[:12] + struct.pack("<f", float("nan")) + data[16:]
    put(folder / "s01_ascii_inch.stl", f"solid part\n{text}endsolid part\n")
    put(folder / "s06_ascii_no_end.stl", f"solid part\n{text}")
    put(
        folder / "s07_ascii_two_solids.stl",
        f"solid a\n{half}endsolid a\nsolid b\n{text.removeprefix(half)}endsolid b\n",
    )
    for name, head, count, body in (
        ("s02_binary", b"", 12, data),
        ("s03_binary_solid", b"solid made by a program", 12, data),
        ("s04_binary_count_zero", b"", 0, data),
        ("s05_binary_count_large", b"", 4_000_000_000, data),
        ("s09_color", b"COLOR=\xff\x00\x00\xff", 12, red),
        ("s10_nan", b"", 12, nan),
    ):
        put(folder / f"{name}.stl", head.ljust(80, b"\0") + struct.pack("<I", count) + body)


def _not_models(folder):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234567\n"
    page = "<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
    for suffix in ("glb", "gltf", "obj", "fbx", "ply", "stl"):
        put(folder / f"w01_lfs_pointer.{suffix}", pointer)
        put(folder / f"w02_html.{suffix}", page)
        put(folder / f"w03_empty.{suffix}", b"")
        put(folder / f"w04_random.{suffix}", bytes((i * 7919 + i * i * 31) % 256 for i in range(4000)))
    put(folder / "w07_obj_called_stl.stl", obj_cube())
    put(folder / "w08_stl_called_obj.obj", "solid part\n" + "".join(map(facet, TRIANGLES)) + "endsolid part\n")
    put(folder / "w09_zip.glb", b"PK\x03\x04" + bytes(100))
