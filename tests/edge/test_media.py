"""Pictures of every kind, and files that are none."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"not a picture", "no picture"),
        (b"", "no picture"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], "cut short"),
        (encoded(Image.effect_noise((64, 64), 50))[:900], "cut short"),
        ("/no/such/file.png", "cannot be read"),
        ("data:image/png;base64,@@@", "no base64"),
        ("data:image/png,abc", "base64"),
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
