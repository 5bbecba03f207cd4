"""Reading images, labels, depth and cameras: exact values, and one error for whatever is wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pytest_overfit.two_view.pair import exr_depth, readers
from pytest_overfit.two_view.pair.readers import read_depth, read_image, read_labels
from tests.two_view.pair.reader_files import COLOUR, DEPTH, GREY, error_of, saved
from tests.two_view.pair.support import COMPRESSIONS, image_bytes, png_with_header, write_depth

# --- images and labels


def test_image_is_rgb(tmp_path: Path) -> None:
    """A PNG comes back exactly as RGB, a grey JPEG as three equal channels."""
    path = saved(tmp_path / "a.jpg", image_bytes(COLOUR, "PNG"))
    assert (read_image(path) == COLOUR).all()
    grey = read_image(saved(tmp_path / "b.jpg", image_bytes(GREY, "JPEG")))
    assert grey.shape == (30, 40, 3)
    assert (grey[..., 0] == grey[..., 2]).all()


def test_image_keeps_its_stored_orientation(tmp_path: Path) -> None:
    """EXIF rotation is not applied: depth and camera belong to the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", image_bytes(COLOUR, "JPEG", exif=exif))
    assert read_image(path).shape == (30, 40, 3)


def test_labels_grey_or_three_equal_channels(tmp_path: Path) -> None:
    """Grey labels and three equal channels read alike; unequal channels are named by the first pixel."""
    assert (read_labels(saved(tmp_path / "a.png", image_bytes(GREY, "PNG"))) == GREY).all()
    three = np.stack([GREY] * 3, axis=-1)
    assert (read_labels(saved(tmp_path / "b.png", image_bytes(three, "PNG"))) == GREY).all()
    three[7, 5] = (1, 2, 3)
    path = saved(tmp_path / "c.png", image_bytes(three, "PNG"))
    assert error_of(read_labels, path) == "pixel (5, 7) is (1, 2, 3)\n  allowed: grey, or three equal channels"


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_huge_header_is_refused_before_decoding(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 100 bytes that claims 100k x 100k pixels is refused by its header: nothing is decoded."""
    path = saved(tmp_path / "a.png", png_with_header(100_000, 100_000))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert error_of(read, path) == f"100000 x 100000 pixels\n  allowed: at most {64 * 2**20} pixels"


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_size_bound_is_ours_and_not_pillows(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own global bound neither warns nor refuses: 64 megapixels are allowed here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(saved(tmp_path / "a.png", image_bytes(GREY, "PNG"))).shape[:2] == (30, 40)


def test_damaged_images(tmp_path: Path) -> None:
    """Truncated, foreign and missing images are one error each."""
    jpeg = image_bytes(COLOUR, "JPEG")
    cut = error_of(read_image, saved(tmp_path / "cut.jpg", jpeg[:600]))
    assert cut.startswith("cannot be decoded (")
    assert cut.endswith(")\n  allowed: an intact JPEG or PNG file")
    gif = error_of(read_image, saved(tmp_path / "a.gif", image_bytes(GREY, "GIF")))
    assert gif == "starts with b'GIF87a(\\x00'\n  allowed: a JPEG or PNG file"
    assert error_of(read_image, saved(tmp_path / "empty.jpg", b"")) == "starts with b''\n  allowed: a JPEG or PNG file"
    assert error_of(read_image, tmp_path / "none.jpg") == "no such file"
    assert "a directory" in error_of(read_image, tmp_path)


def test_other_colour_modes(tmp_path: Path) -> None:
    """A palette or an alpha channel is refused by name."""
    alpha = np.dstack([COLOUR, GREY])
    path = saved(tmp_path / "a.png", image_bytes(alpha, "PNG"))
    assert error_of(read_image, path) == "colour mode RGBA\n  allowed: RGB or L or CMYK"
    assert error_of(read_labels, path) == "colour mode RGBA\n  allowed: L or RGB"


def test_jpeg_of_endless_scans(tmp_path: Path) -> None:
    """A progressive JPEG that repeats one scan hundreds of times is refused before it is decoded."""
    jpeg = image_bytes(COLOUR, "JPEG", progressive=True)
    at = jpeg.rindex(b"\xff\xda")
    path = saved(tmp_path / "a.jpg", jpeg[:at] + jpeg[at:-2] * 300 + jpeg[-2:])
    assert error_of(read_image, path).endswith(" JPEG scans\n  allowed: at most 64")
    assert read_image(saved(tmp_path / "b.jpg", jpeg)).shape == (30, 40, 3)


def test_file_over_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than the bound is not read."""
    path = saved(tmp_path / "a.png", image_bytes(GREY, "PNG"))
    monkeypatch.setattr(readers, "MAX_IMAGE_BYTES", 100)
    assert error_of(read_image, path) == f"{path.stat().st_size} bytes\n  allowed: at most 100 bytes"
    depth = write_depth(tmp_path / "a.exr", DEPTH)
    monkeypatch.setattr(exr_depth, "MAX_FILE_BYTES", 100)
    assert error_of(read_depth, depth) == f"{depth.stat().st_size} bytes\n  allowed: at most 100 bytes"


# --- depth


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_depth_is_exact(compression: str, dtype: Any, tmp_path: Path) -> None:
    """Every lossless compression gives the depth back to the bit, half is widened; the lossy ones come close."""
    expected = DEPTH.astype(dtype)
    depth = read_depth(write_depth(tmp_path / "a.exr", expected, compression=compression))
    assert depth.dtype == np.float32
    exact = compression in ("NO", "RLE", "ZIPS", "ZIP", "PIZ") or (
        dtype is np.float32 and compression.startswith("B44")
    )
    assert (depth == expected).all() if exact else np.abs(depth - expected).max() < 2


def test_depth_of_the_channel_y_or_the_first(tmp_path: Path) -> None:
    """ "Y" wins over other channels; without it the first in the file's order counts."""
    import OpenEXR

    for names, first in ((("A", "Y", "Z"), "Y"), (("R", "B", "G"), "B")):
        channels = {name: np.full((4, 6), at + 1, np.float32) for at, name in enumerate(names)}
        path = tmp_path / f"{first}.exr"
        with OpenEXR.File({"type": OpenEXR.scanlineimage}, channels) as file:
            file.write(str(path))
        assert (read_depth(path) == names.index(first) + 1).all()


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-0.25, "negative")]
)
def test_impossible_depths(value: float, kind: str, tmp_path: Path) -> None:
    """NaN, infinite and negative depths are counted, and the first is located."""
    depth = DEPTH.copy()
    depth[3, 7] = depth[5, 1] = value
    path = write_depth(tmp_path / "a.exr", depth)
    assert error_of(read_depth, path) == (
        f"2 of 1200 depths are {kind}, the first at column 7, row 3\n  allowed: finite metres, 0 = invalid"
    )


def _patched(tmp_path: Path, old: bytes, new: bytes) -> Path:
    data = write_depth(tmp_path / "a.exr", DEPTH, compression="NO").read_bytes()
    assert data.count(old) == 1
    return saved(tmp_path / "a.exr", data.replace(old, new))


def _window(name: str, *values: int) -> bytes:
    return name.encode() + b"\0box2i\0" + struct.pack("<5i", 16, *values)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0, 0, 99_999, 99_999), "dataWindow of 100000 x 100000 pixels at (0, 0)"),
        ((0, 0, 2**31 - 1, 2**31 - 1), "dataWindow of 2147483648 x 2147483648 pixels at (0, 0)"),
        ((-(2**31), 0, 2**31 - 1, 0), "dataWindow of 4294967296 x 1 pixels at (-2147483648, 0)"),
        ((5, 0, 4, 29), "dataWindow of 0 x 30 pixels at (5, 0)"),
        ((2**30, 0, 2**30 + 39, 29), "dataWindow of 40 x 30 pixels at (1073741824, 0)"),
    ],
)
def test_huge_data_window(values: tuple[int, ...], found: str, tmp_path: Path) -> None:
    """A data window beyond 64 megapixels, or of no pixels, is refused before OpenEXR sees the file."""
    path = _patched(tmp_path, _window("dataWindow", 0, 0, 39, 29), _window("dataWindow", *values))
    assert error_of(read_depth, path) == f"{found}\n  allowed: 1 to {64 * 2**20} pixels"


def test_many_channels_of_a_large_window(tmp_path: Path) -> None:
    """Channels count too: 50 megapixels of three float channels are more than is ever decoded."""
    import OpenEXR

    channels = {name: np.zeros((30, 40), np.float32) for name in "BGR"}
    path = tmp_path / "a.exr"
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))
    old, new = _window("dataWindow", 0, 0, 39, 29), _window("dataWindow", 0, 0, 9999, 4999)
    # the library groups B, G and R into one array; the header still lists three channels
    saved(path, path.read_bytes().replace(old, new))
    assert error_of(read_depth, path) == "10000 x 5000 pixels of 3 channels\n  allowed: 268435456 bytes"


def test_damaged_depth_headers(tmp_path: Path) -> None:
    """Foreign, tiled, truncated and subsampled files are refused by what their headers say."""
    whole = write_depth(tmp_path / "a.exr", DEPTH, compression="NO").read_bytes()
    text = error_of(read_depth, saved(tmp_path / "a.exr", image_bytes(GREY, "PNG")))
    assert text == "starts with b'\\x89PNG'\n  allowed: an OpenEXR file"
    assert "the header is damaged" in error_of(read_depth, saved(tmp_path / "a.exr", b""))
    assert error_of(read_depth, tmp_path / "none.exr") == "no such file"
    tiled = saved(tmp_path / "a.exr", whole[:5] + b"\x02" + whole[6:])
    assert error_of(read_depth, tiled) == "EXR version and flags 0x202\n  allowed: version 2, one part of scan lines"
    cut = saved(tmp_path / "a.exr", whole[:-10])
    assert error_of(read_depth, cut) == "chunk 29 claims 160 bytes for 160 bytes of pixels\n  allowed: a complete file"
    y = b"Y\0" + struct.pack("<iiii", 2, 0, 1, 1)
    path = _patched(tmp_path, y, b"Y\0" + struct.pack("<iiii", 2, 0, 2, 1))
    assert "channel 'Y' has pixel type 2 and sampling 2 x 1" in error_of(read_depth, path)
    path = _patched(tmp_path, y, b"Y\0" + struct.pack("<iiii", 0, 0, 1, 1))
    assert "channel 'Y' has pixel type 0" in error_of(read_depth, path)
    path = _patched(tmp_path, b"compression\0compression\0\1\0\0\0\0", b"compression\0compression\0\1\0\0\0\x63")
    assert error_of(read_depth, path) == "compression 99\n  allowed: 0 to 9"


def test_damaged_depth_pixels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A chunk that does not unpack is one error, and what the library says of it is in it and nowhere else."""
    data = bytearray(write_depth(tmp_path / "a.exr", DEPTH, compression="ZIP").read_bytes())
    data[-60:-20] = b"\xaa" * 40
    path = saved(tmp_path / "a.exr", bytes(data))
    said = error_of(read_depth, path)
    assert said.startswith("cannot be decoded (its compressed pixels are damaged; a.exr: ")
    assert said.endswith("\n  allowed: an intact EXR file")
    assert capfd.readouterr() == ("", "")


# --- cameras
