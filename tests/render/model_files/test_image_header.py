import io

import numpy as np
import pytest
from PIL import Image

from render.model_files.image_header import image_size

SIZE = (37, 21)


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, SIZE, 128).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "png": encoded("PNG"),
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "jpeg with a profile": encoded("JPEG", icc_profile=bytes(200_000)),
    "webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "webp with alpha": encoded("WEBP", mode="RGBA", exif=b"Exif\0\0" + bytes(20)),
    "bmp": encoded("BMP"),
    "tga": encoded("TGA"),
    "packed tga": encoded("TGA", compression="tga_rle"),
}


@pytest.mark.parametrize("name", FILES)
def test_sizes_are_those_that_a_decoder_finds(name):
    assert image_size(FILES[name]) == SIZE


@pytest.mark.parametrize("name", FILES)
def test_a_cut_header_is_unknown_and_never_wrong(name):
    for length in range(min(len(FILES[name]), 400)):
        assert image_size(FILES[name][:length]) in (None, SIZE)


def test_fill_bytes_before_a_marker_are_skipped():
    jpeg = FILES["jpeg"]
    assert image_size(jpeg[:2] + b"\xff\xff\xff" + jpeg[2:]) == SIZE


def test_a_claim_is_read_without_its_pixels():
    header = FILES["png"][:16] + (30_000).to_bytes(4, "big") + (40_000).to_bytes(4, "big")
    assert image_size(header) == (30_000, 40_000)


def test_noise_is_unknown():
    rng = np.random.default_rng(0)
    for prefix in (b"", b"\xff\xd8\xff", b"RIFF", b"\x89PNG\r\n\x1a\n", b"BM", b"plain text, no picture"):
        for length in (0, 5, 300):
            image_size(prefix + rng.bytes(length))
    assert image_size(b"plain text, no picture") is None
