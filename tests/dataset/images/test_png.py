import numpy as np
import pytest

from dataset.errors import UserError
from dataset.images.png import decode_png, encode_png


def random_pixels(dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1, 3)])
def test_pixels_survive_and_equal_pixels_give_equal_bytes(dtype, shape):
    pixels = random_pixels(dtype, shape)
    data = encode_png(pixels)
    decoded = decode_png(data, "a.png")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)
    assert encode_png(pixels.copy()) == data


def test_another_reader_sees_the_same_rgb16(tmp_path):
    bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
    pixels = random_pixels(np.uint16, (6, 4, 3))
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(pixels))
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    values = np.empty(6 * 4 * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    np.testing.assert_allclose(values.reshape(6, 4, 4)[::-1, :, :3], pixels / 65535, atol=1e-6)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 4), np.uint16), np.zeros((2, 2)), np.zeros(3, np.uint16)])
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match=r"give uint8 or uint16"):
        encode_png(pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_damage_is_an_error_that_names_the_file(dtype):
    data = encode_png(random_pixels(dtype, (8, 8, 3)))
    for broken in (b"", data[:20], data[: len(data) // 2], data[:60] + bytes([data[60] ^ 255]) + data[61:], b"no PNG"):
        with pytest.raises(UserError, match=r"^a\.png: not a readable PNG"):
            decode_png(broken, "a.png")


def test_a_size_that_the_pixels_do_not_have_is_an_error():
    """The header promises more pixels than there are: they are not allocated."""
    import struct
    import zlib

    data = encode_png(random_pixels(np.uint16, (8, 8, 3)))
    header = struct.pack(">II", 2**20, 2**20) + data[24:29]
    lying = data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
    with pytest.raises(UserError, match=r"bytes of pixels"):
        decode_png(lying, "a.png")
