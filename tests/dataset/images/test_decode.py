"""Image files of all kinds are read correctly or refused with a one-line error."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from dataset.images import decode
from dataset.images.decode import WORKING_SIDE, image_files, image_size, read_image
from dataset.images.prepare import OBJECT_FILL, prepare_image
from tests.support.paths import ROOT


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red above, blue below."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste((0, 0, 255), (0, height // 2, width, height))
    return picture.convert(mode)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, str(path))
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.png", b"", r"empty.png is an empty file (0 bytes); save the image again"),
        ("letter.png", b"dear friend, this is no picture", "unknown format"),
        ("page.jpg", b"<html><body>404</body></html>", "PNG, JPEG or WebP"),
    ],
)
def test_what_is_no_image(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert says in refusal(tmp_path / name)


def test_the_size_is_read_from_the_header(tmp_path):
    halves(40, 20).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    assert image_size(tmp_path / "half.png", "half") == (40, 20)
    (tmp_path / "none.png").write_text("no image")
    with pytest.raises(UserError, match="the name cannot be read as an image"):
        image_size(tmp_path / "none.png", "the name")


def test_a_folder_and_nothing(tmp_path):
    assert "is a folder; give the paths of images in this folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nothing.png")
    assert "not a regular file" in refusal(Path("/dev/zero"))  # reading it would never end


@pytest.mark.parametrize("url", ["https://example.org/a.png", "s3://bucket/a%20b.png", "file:///tmp/a.png"])
def test_a_url_is_refused_as_a_url(url):
    with pytest.raises(UserError, match="is a URL; download the image") as caught:
        read_image(Path(url), str(Path(url)))
    assert str(caught.value).startswith(f"{url.replace(':///', '://')} is a URL")


def test_a_file_whose_path_looks_like_a_url_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("https:").mkdir()
    halves(20, 20).save("https:/a.png")
    assert read_image(Path("https:/a.png"), "https:/a.png")[0].size == (20, 20)


def test_a_folder_stands_for_its_image_files(tmp_path):
    folder, single = tmp_path / "photos", tmp_path / "single.tga"
    (folder / "deeper.png").mkdir(parents=True)
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "c d.webp"):
        (folder / name).touch()
    assert image_files([single, folder]) == (single, folder / "a.jpeg", folder / "b.PNG", folder / "c d.webp")
    with pytest.raises(UserError, match=r"deeper\.png is a folder without image files"):
        image_files([folder / "deeper.png"])


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_that_was_cut_off(tmp_path, kind, share):
    whole, path = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    Image.effect_noise((200, 200), 80).convert("RGB").save(whole)
    data = whole.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "save the image again" in refusal(path)


def test_one_pixel_and_one_pixel_of_object(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert "1x1 pixels, but both sides must have at least 8" in refusal(tmp_path / "dot.png")
    speck = Image.new("RGBA", (100, 100))
    speck.putpixel((40, 50), (255, 0, 0, 255))
    with pytest.raises(UserError, match="the object is only 1x1 pixels"):
        prepare_image(speck, 64)


def test_an_animated_webp_shows_its_first_frame_and_says_so(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    rgba, notices = read_image(tmp_path / "a.webp", "a.webp")
    assert rgba.getpixel((16, 16)) == (255, 0, 0, 255)
    assert ["the first one is used" in notice for notice in notices] == [True]


def test_cmyk_as_printers_send_it(tmp_path):
    halves(40, 40, "CMYK").save(tmp_path / "print.jpg", quality=100)
    rgba, notices = read_image(tmp_path / "print.jpg", "print.jpg")
    assert np.abs(np.asarray(rgba, np.int16) - np.asarray(halves(40, 40, "RGBA"), np.int16)).max() < 8
    assert notices == []


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    rgba, _ = read_image(tmp_path / "grey.png", "grey.png")
    assert np.abs(np.asarray(rgba)[..., 0] * 257.0 - ramp).max() <= 129


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("width", [48, WORKING_SIDE + 104])
def test_every_exif_orientation_ends_upright(tmp_path, orientation, width):
    """Red is at the top and blue at the bottom for any camera orientation, also for a large JPEG."""
    shape = (width, width // 2)
    stored = {
        **{1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
        **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90},
        **{7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270},
    }[orientation]
    picture = halves(*shape) if stored is None else halves(*shape).transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    rgba, _ = read_image(tmp_path / "photo.jpg", "photo.jpg")
    assert rgba.width == 2 * rgba.height
    for share, colour in ((0.2, (255, 0, 0)), (0.8, (0, 0, 255))):
        seen = rgba.getpixel((rgba.width // 3, int(share * rgba.height)))
        assert np.abs(np.subtract(seen[:3], colour)).max() < 6


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "RGBA", "1", "I;16"])
def test_a_large_image_is_read_as_the_mean_of_its_boxes(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(decode, "WORKING_SIDE", 32)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 500)  # several strips, whose last one is not whole
    rng = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (70, 90), dtype=np.uint16))
        whole = np.rint(np.asarray(picture) / 257.0)[..., None] * [1, 1, 1, 0] + [0, 0, 0, 255]
    else:
        picture = Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).convert(mode)
        whole = np.asarray(picture.convert("RGBA"), np.float64)
    picture.save(tmp_path / "large.png")
    rgba, notices = read_image(tmp_path / "large.png", "large.png")
    assert rgba.size == (30, 24)
    boxes = whole[:69].reshape(23, 3, 30, 3, 4).mean((1, 3))
    assert np.abs(np.asarray(rgba)[:23] - boxes).max() <= 1
    assert notices == ["large.png is large, 90x70; it was reduced to 30x24"]


def test_colours_under_zero_alpha_do_not_show_in_a_reduced_image(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "WORKING_SIDE", 32)
    pixels = np.zeros((96, 96, 4), np.uint8)
    pixels[..., 1] = 255  # green, all transparent
    pixels[31:64, 31:64] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    rgba = np.asarray(read_image(tmp_path / "cut.png", "cut.png")[0])
    assert (rgba[rgba[..., 3] > 0][:, :3] == [255, 0, 0]).all()


def test_beyond_the_limit_an_image_is_refused_by_its_header_without_eating_memory(tmp_path):
    """Runs in a new process to measure its peak memory, on a valid single-color PNG of 1.6 gigapixels."""
    write_flat_png(tmp_path / "huge.png", 40_000)
    command = (
        "import resource, sys; from pathlib import Path; from dataset.images.prepare import prepare_image\n"
        "from dataset.errors import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: prepare_image(Path(sys.argv[1]), 64)\n"
        "except UserError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, tmp_path / "huge.png"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, grown_mb = done.stdout.splitlines()
    assert "more than 500,000,000 pixels (22,360 per side); first scale the image down" in said
    assert int(grown_mb) < 50


def write_flat_png(path: Path, side: int) -> None:
    """A white square of one bit per pixel, which compresses to a small file."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row, packed = b"\0" + b"\xff" * (-(-side // 8)), zlib.compressobj(1)
    body = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_twenty_thousand_pixels_a_side_are_read(tmp_path, kind):
    picture = Image.new("RGB", (20_000, 20_000), "white")
    picture.paste((200, 30, 30), (5_000, 8_000, 15_000, 12_000))
    picture.save(tmp_path / f"poster.{kind}")
    del picture
    started = time.monotonic()
    prepared = prepare_image(tmp_path / f"poster.{kind}", 256)
    print(
        f"{kind}: {time.monotonic() - started:.1f} s", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, "MiB"
    )
    assert any("is large, 20000x20000" in notice for notice in prepared.notices)
    coloured = np.flatnonzero((prepared.rgb[128] < 0.9).any(-1))
    assert abs(len(coloured) / 256 - OBJECT_FILL) < 0.02


def test_the_limit_of_pillow_itself_is_left_as_it_was(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png", "a.png")
    refusal(tmp_path)
    assert before == Image.MAX_IMAGE_PIXELS


def test_what_pillow_warns_of_is_told(tmp_path):
    """A JPEG with damaged EXIF may be rotated, so a notice is given."""
    exif = Image.Exif()
    exif[0x0112] = 6
    halves(32, 32).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 14
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\xff\x7f" + data[at + 2 :])
    _, notices = read_image(tmp_path / "a.jpg", "a.jpg")
    assert any("EXIF" in notice for notice in notices)
