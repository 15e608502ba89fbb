"""Pictures of every kind, and files that are none."""

import base64
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from contract.errors import MediaError
from edge_runtime.media.picture import load_picture


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def corner(color: str = "red") -> Image.Image:
    """Blue with one coloured pixel at the top left."""
    image = Image.new("RGB", (4, 2), "blue")
    image.putpixel((0, 0), {"red": (255, 0, 0), "green": (0, 255, 0)}[color])
    return image


def test_sources_agree(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(encoded(corner()))
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    expected = np.asarray(corner())
    for source in (path, str(path), path.as_uri(), path.read_bytes(), url, corner(), expected):
        np.testing.assert_array_equal(np.asarray(load_picture(source)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = (
        Image.new(mode, (5, 3))
        if mode == "I;16"
        else Image.new("L", (5, 3)).convert("RGB" if mode == "HSV" else "L").convert(mode)
    )
    assert load_picture(image).mode == "RGB"


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert np.asarray(load_picture(image)).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    turned = load_picture(encoded(corner(), "PNG", exif=exif.tobytes()))
    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == (255, 0, 0)


XRESOLUTION, YCBCR_POSITIONING, RESOLUTION_UNIT, IMAGE_WIDTH = 0x011A, 0x0213, 0x0128, 0x0100
ODD_TAGS = {  # tag, type and value as TIFF has them, of tags that Pillow cannot write back
    "resolution over zero": (XRESOLUTION, 10, struct.pack("<ii", -1, 0)),
    "resolution as text": (XRESOLUTION, 2, b"72\0\0"),
    "positioning as a fraction": (YCBCR_POSITIONING, 5, struct.pack("<II", 1, 1)),
    "unit as a float": (RESOLUTION_UNIT, 11, struct.pack("<f", 2.0)),
    "negative width": (IMAGE_WIDTH, 9, struct.pack("<i", -1)),
}


def exif_with(tag: int, kind: int, value: bytes, orientation: int) -> bytes:
    """A TIFF directory of an orientation and one more tag, values longer than four bytes behind it."""
    entries = sorted([(0x0112, 3, struct.pack("<HH", orientation, 0)), (tag, kind, value)])
    head, far, behind = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)), 8 + 2 + 12 * len(entries) + 4, b""
    for number, form, data in entries:
        count = len(data) if form == 2 else 1
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", far + len(behind))
        behind += data if len(data) > 4 else b""
        head += struct.pack("<HHI", number, form, count) + place
    return b"Exif\0\0" + head + bytes(4) + behind


@pytest.mark.parametrize("name", ODD_TAGS)
def test_the_orientation_counts_whatever_the_other_tags_say(name: str) -> None:
    """Pillow's own exif_transpose writes the EXIF back, and fails on what it cannot write."""
    image = Image.linear_gradient("L").resize((64, 40)).convert("RGB")
    turned = load_picture(encoded(image, "JPEG", exif=exif_with(*ODD_TAGS[name], orientation=6), quality=95))
    assert turned.size == (40, 64)
    np.testing.assert_allclose(np.asarray(turned), np.asarray(image.transpose(Image.Transpose.ROTATE_270)), atol=8)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corner(), "PNG", exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(load_picture(data)), np.asarray(expected))


def test_a_broken_exif_block_leaves_a_picture_as_it_lies() -> None:
    assert load_picture(encoded(corner(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (4, 2)


@pytest.mark.parametrize(
    "form",
    [
        "data:image/png;base64,{}",
        "DATA:image/png;BASE64,{}",
        "Data:image/PNG;charset=utf-8; base64 ,{}",
        "data:;base64,{}",
    ],
)
@pytest.mark.parametrize("body", ["plain", "lines", "tabs and spaces", "percent", "no padding"])
def test_a_data_url_is_read_as_browsers_read_it(form: str, body: str) -> None:
    text = base64.b64encode(encoded(corner())).decode()
    text = {
        "plain": text,
        "lines": "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n",
        "tabs and spaces": " \t" + "\f".join(text[at : at + 5] for at in range(0, len(text), 5)),
        "percent": "".join(f"%{ord(c):02X}" if c in "+/=" else c for c in text),
        "no padding": text.rstrip("="),
    }[body]
    np.testing.assert_array_equal(np.asarray(load_picture(form.format(text))), np.asarray(corner()))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"not a picture", "cannot be read: 13 bytes of an unknown format"),
        (b"", "cannot be read: 0 bytes"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], "cut short"),
        (encoded(Image.effect_noise((64, 64), 50))[:900], "cut short"),
        ("/no/such/file.png", "cannot be read"),
        ("data:image/png;base64,@@@", "the data of the picture is no base64"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,AAA\u00e4", "no base64"),
        ("data:image/png;base64,AAAAA", "no base64"),
        ("file:///tmp/a%00b.png", "no path"),
        ("/tmp/half\ud800.png", "no path"),
        ("file://[/a.png", "no URL"),
        ("A" * 5000, "no path"),
        ("ftp://host/picture.png", "not read here"),
        (np.zeros((4, 4), np.uint8), "uint8 \\[height, width, 3 or 4\\]"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_what_is_no_picture_is_said_so(source: object, says: str) -> None:
    with pytest.raises(MediaError, match=says):
        load_picture(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    header = encoded(Image.new("1", (side, side)))
    with pytest.raises(MediaError, match="too large"):
        load_picture(header)


def test_a_file_url_of_another_host_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert load_picture(f"file://localhost{tmp_path}/a.png").size == (40, 30)
    with pytest.raises(MediaError, match="names the host 'other'"):
        load_picture(f"file://other{tmp_path}/a.png")
