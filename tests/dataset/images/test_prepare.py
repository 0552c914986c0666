import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.images import decode
from dataset.images.prepare import (
    OBJECT_FILL,
    composite_white,
    contact_sheet,
    decode_webp,
    encode_webp,
    prepare_image,
)


def disc(width: int, height: int, centre: tuple[int, int], radius: int) -> Image.Image:
    """A red disc on transparent black."""
    y, x = np.mgrid[:height, :width]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    return Image.fromarray((inside[..., None] * np.array([255, 0, 0, 255])).astype(np.uint8))


def box_of(alpha: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_webp_keeps_every_byte_even_under_zero_alpha() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (17, 23, 4), dtype=np.uint8)
    rgba[:5, :, 3] = 0
    data = encode_webp(rgba)
    assert (decode_webp(data, "x") == rgba).all()
    assert encode_webp(rgba) == data


def test_an_image_opaque_everywhere_keeps_its_alpha() -> None:
    rgba = np.full((8, 8, 4), 255, np.uint8)
    assert (decode_webp(encode_webp(rgba), "x") == rgba).all()


@pytest.mark.parametrize("bad", [b"", b"RIFF", b"hello" * 50])
def test_decode_names_the_place_of_damage(bad: bytes) -> None:
    with pytest.raises(UserError, match=r"shard-7/car\.fixed_00"):
        decode_webp(bad, "shard-7/car.fixed_00")


def test_decode_refuses_other_formats() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), "red").save(buffer, "PNG")
    with pytest.raises(UserError, match="here: "):
        decode_webp(buffer.getvalue(), "here")


def test_encode_refuses_what_would_be_wrong_pixels() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_webp(np.zeros((4, 4, 3), np.uint8))


def test_composite_white_known_values() -> None:
    rgba = np.array([[255, 0, 0, 255], [10, 20, 30, 0], [0, 0, 0, 51]], np.uint8)
    assert np.allclose(composite_white(rgba), np.array([[1, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]))


def test_object_is_centred_and_fills_the_documented_fraction() -> None:
    for picture in (disc(300, 200, (60, 50), 40), disc(64, 500, (30, 400), 25)):
        prepared = prepare_image(picture, 128)
        left, top, right, bottom = box_of(prepared.rgba[..., 3] > 127)
        assert abs((right - left) / 128 - OBJECT_FILL) < 0.02
        assert abs((left + right) / 2 - 64) <= 1
        assert abs((top + bottom) / 2 - 64) <= 1
        assert prepared.notices == ()


def test_the_result_does_not_depend_on_where_the_object_stood() -> None:
    one = prepare_image(disc(200, 200, (60, 60), 40), 64)
    other = prepare_image(disc(400, 300, (310, 200), 40), 64)
    assert (one.rgba == other.rgba).all()


def test_resizing_leaves_no_dark_fringe_and_pure_white_outside() -> None:
    rgb = prepare_image(disc(400, 400, (200, 200), 150), 64).rgb
    assert rgb.dtype == np.float32
    assert rgb[..., 0].min() > 0.995  # red is full in the object and in white: any mixture of both has it
    assert (rgb[0] == 1).all()
    assert rgb[32, 32].tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [32, 200])
def test_colour_hidden_under_zero_alpha_never_shows(size: int) -> None:
    """Both ways of downscaling: directly, and after the box reduction of a much larger image."""
    picture = np.array(disc(700, 700, (350, 350), 300))
    hidden = np.where(picture[..., 3:] == 0, np.array([0, 255, 0, 0], np.uint8), picture)
    clean, dirty = (prepare_image(Image.fromarray(pixels), size).rgb for pixels in (picture, hidden))
    assert np.abs(clean - dirty).max() < 0.005


def test_downscaling_matches_a_naive_area_average() -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(np.kron(coarse, np.ones((64, 64, 1), np.uint8)))
    rgb = prepare_image(picture, 128).rgb
    assert np.allclose(rgb[8::16, 8::16], coarse / 255, atol=0.01)


def test_faint_stray_pixels_do_not_move_the_crop() -> None:
    picture = disc(200, 200, (100, 100), 40)
    picture.putpixel((0, 0), (0, 0, 0, 5))
    assert np.abs(prepare_image(picture, 64).rgb - prepare_image(disc(200, 200, (100, 100), 40), 64).rgb).max() == 0


def test_without_alpha_the_whole_image_is_used_and_announced() -> None:
    prepared = prepare_image(Image.new("RGB", (80, 40), (0, 0, 255)), 64)
    assert any("--background rembg" in notice for notice in prepared.notices)
    assert prepared.rgb[32, 32].tolist() == [0, 0, 1]
    assert prepared.rgb[2, 32].tolist() == [1, 1, 1]
    assert prepared.rgb[32, 1, 2] == 1
    assert prepared.rgb[32, 1, 0] < 0.01


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_mode_shows_the_same_grey(mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((40, 40), 128 * 257, np.uint16))
    else:
        level = 255 if mode == "1" else 128
        picture = (
            Image.new("L", (40, 40), level).convert("RGB" if mode in ("YCbCr", "HSV", "CMYK") else mode).convert(mode)
        )
    assert picture.mode == mode
    expected = 1.0 if mode == "1" else 128 / 255
    assert np.allclose(prepare_image(picture, 32).rgb[16, 16], expected, atol=0.012)


def test_a_palette_with_transparency_is_cut_out(tmp_path: Path) -> None:
    picture = Image.new("P", (60, 60), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.paste(1, (20, 20, 40, 40))
    picture.save(tmp_path / "p.png", transparency=0)
    prepared = prepare_image(tmp_path / "p.png", 64)
    assert prepared.notices == ()
    assert prepared.rgb[32, 32].tolist() == [1, 0, 0]
    assert prepared.rgb[0, 0].tolist() == [1, 1, 1]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((255, 0, 0), (0, 0, 64, 32))  # red on top as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees clockwise: red belongs on the right
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    rgb = prepare_image(tmp_path / "turned.jpg", 64).rgb
    assert rgb[32, 56, 1] < 0.1
    assert rgb[32, 8, 1] > 0.9


def test_the_first_frame_of_an_animation_is_used_and_announced(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    prepared = prepare_image(tmp_path / "a.gif", 32)
    assert any("animated" in notice for notice in prepared.notices)
    assert prepared.rgb[16, 16].tolist() == [1, 0, 0]


def bad_files(folder: Path) -> dict[str, Path]:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    contents = {
        "empty.png": b"",
        "text.png": b"this is not a picture",
        "truncated.png": whole.getvalue()[: len(whole.getvalue()) // 2],
        "bomb.png": whole.getvalue()[:16] + header + whole.getvalue()[29:],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    Image.new("RGBA", (64, 64)).save(folder / "transparent.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.fromarray(np.zeros((16, 16), np.float32)).save(folder / "float.tiff")
    names = [*contents, "transparent.png", "dot.png", "float.tiff", "missing.png", "."]
    return {name: folder / name for name in names}


def test_every_unusable_file_is_one_line_naming_it(tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(UserError) as caught:
            prepare_image(path, 64)
        assert str(path) in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_pixels_are_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(decode, "LARGEST_PIXELS", 1000)  # 1600 pixels: Pillow would only warn
    with pytest.raises(UserError, match="scale the image down"):
        prepare_image(tmp_path / "big.png", 32)
    with pytest.raises(UserError, match="scale the image down"):
        prepare_image(Image.new("RGB", (40, 40)), 32)


@pytest.mark.parametrize("white", [255, 246])
def test_on_a_white_background_the_object_is_framed_as_a_cut_out(white: int) -> None:
    picture = Image.new("RGB", (300, 200), (white, white, white))
    picture.paste((200, 0, 0), (30, 40, 110, 80))
    prepared = prepare_image(picture, 128)
    left, top, right, bottom = box_of(prepared.rgb[..., 1] < 0.5)
    assert abs((right - left) / 128 - OBJECT_FILL) < 0.02
    assert abs((bottom - top) / 128 - OBJECT_FILL / 2) < 0.02
    assert abs(left + right - 128) <= 2
    assert abs(top + bottom - 128) <= 2
    assert prepared.notices == ()
    assert (
        prepared.framing
        == "the part that is not white, 80x40 pixels, is centered; the longest side fills 78% of 128 pixels"
    )


def test_white_outside_becomes_transparent_and_white_inside_stays() -> None:
    picture = Image.new("RGB", (300, 300), (250, 250, 250))
    picture.paste((200, 0, 0), (50, 50, 250, 250))
    picture.paste((255, 255, 255), (110, 110, 190, 190))
    prepared = prepare_image(picture, 128)
    alpha = prepared.rgba[..., 3]
    assert alpha[64, 64] == 255
    assert abs((alpha > 127).mean() - OBJECT_FILL**2) < 0.02  # the whole square, its white middle too
    assert (prepared.rgb[alpha == 0] == 1).all()  # where it was 250


def test_an_object_that_leaves_the_white_image_is_used_whole() -> None:
    picture = Image.new("RGB", (60, 60), "white")
    picture.paste((200, 0, 0), (30, 20, 60, 50))
    prepared = prepare_image(picture, 64, background="keep")
    assert any("the whole image is used" in notice for notice in prepared.notices)
    assert prepared.framing.startswith("the whole image, 60x60 pixels")
    assert prepared.rgb[32, 63, 1] < 0.1  # the edge is still the edge


def test_a_blurred_object_is_announced() -> None:
    assert any("enlarged to 100" in notice for notice in prepare_image(disc(60, 60, (30, 30), 15), 128).notices)


def test_remove_background_without_rembg_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="pip install"):
        prepare_image(Image.new("RGB", (64, 64), "blue"), 64, background="rembg")


def test_remove_background_of_a_cut_out_keeps_its_alpha() -> None:
    picture = disc(100, 100, (50, 50), 30)
    prepared = prepare_image(picture, 64, background="rembg")
    assert (prepared.rgba == prepare_image(picture, 64).rgba).all()
    assert any("already transparent" in notice for notice in prepared.notices)


def test_contact_sheet_places_images_row_by_row_on_white() -> None:
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0] = red[..., 3] = 255
    clear, grey = np.zeros((8, 8, 4), np.uint8), np.full((8, 8, 3), 0.5, np.float32)
    sheet = np.asarray(contact_sheet([red, clear, grey], 2, gap=2))
    assert sheet.shape == (22, 22, 3)
    assert sheet[6, 6].tolist() == [255, 0, 0]
    assert sheet[6, 16].tolist() == [255, 255, 255]
    assert sheet[16, 6].tolist() == [128, 128, 128]


def test_contact_sheet_captions_add_a_band() -> None:
    tiles = [np.zeros((16, 64, 3), np.uint8)] * 2
    sheet = np.asarray(contact_sheet(tiles, 1, captions=["one", "two"]))
    assert sheet.shape == (2 * (16 + 14 + 2) + 2, 68, 3)
    assert sheet[2:16].min() < 128  # the text
    with pytest.raises(ValueError, match="same size"):
        contact_sheet([tiles[0], np.zeros((8, 8, 3), np.uint8)], 1)
