"""Pictures from wherever they come, as upright RGB.

This module alone decides how a file becomes pixels. It turns a picture as the EXIF tag Orientation says; other tags may
be broken. It makes transparent pixels white, as qwen-vl-utils does and as transformers does with PIL images (its own
loader of paths and URLs drops the alpha channel instead). It scales 16-bit grey; Pillow's own conversion cuts it off at
255. It takes the first frame of several. A file that Pillow cannot decode whole is an error.
"""

import io
import os
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from contract.errors import MediaError
from edge_runtime.media.access import ANY_FILE

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

MAX_DECODED_PIXELS = 1 << 27  # 134 million: this module refuses a decompression bomb before it decodes it
TURNS: dict[object, Image.Transpose] = {  # by the value of the EXIF tag Orientation; rotations count anticlockwise
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# For EPS Pillow runs Ghostscript, a small BLP file takes seconds of Python, FPX and MIC depend on whether another package
# is there (and FPX had CVE-2026-112398), the others have no reader of Pillow's own.
NOT_READ = {"EPS", "BLP", "FPX", "MIC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
MAGIC = {  # files that people send by mistake
    b"PK": "a ZIP archive or office document",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc": "a 7-Zip archive",
    b"%PDF": "a PDF document",
    b"%!PS": "PostScript, which is not rendered",
    b"\xc5\xd0\xd3\xc6": "PostScript, which is not rendered",
    b"ftyp": "a video or HEIF file",
    b"\x1aE\xdf": "a Matroska or WebM video",
    b"<!DOCTYPE html": "an HTML page",
    b"<html": "an HTML page",
}


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{name} cannot be read: {len(data)} bytes of {_kind(data)}; send JPEG, PNG or WebP"
        ) from error
    except Exception as error:
        raise _unreadable(name, error) from error
    return _opened(image, name)


def _opened(image: Image.Image, name: str) -> Image.Image:
    """An image, perhaps of a file not decoded yet, as upright RGB."""
    if image.width < 1 or image.height < 1:
        raise MediaError(f"{name} is {image.width} x {image.height}, a picture of at least one pixel is expected")
    if image.width * image.height > MAX_DECODED_PIXELS:
        raise _unreadable(name, Image.DecompressionBombError(f"{image.width} x {image.height} pixels"))
    try:
        image.load()
        return rgb(image)
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> MediaError:
    """The MediaError for an error of Pillow; a broken file leads Pillow's readers to errors of any type."""
    if isinstance(error, Image.DecompressionBombError):
        return MediaError(f"{name} is too large: {error}; up to {MAX_DECODED_PIXELS} pixels are allowed")
    return MediaError(f"{name} cannot be decoded: {error or type(error).__name__}; is the file cut short or damaged?")


@cache
def _formats() -> tuple[str, ...]:
    """What Pillow reads, without the formats it hands to other programs or to handlers that nobody installed."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_READ)


def _kind(data: bytes) -> str:
    """What a file that is no picture is, as far as its first bytes tell."""
    start = data[:512].lstrip()
    known = (kind for magic, kind in MAGIC.items() if start.startswith(magic) or magic in start[:8])
    return "an SVG drawing, which is not rendered" if b"<svg" in start else next(known, "an unknown format")


def _orientation(image: Image.Image) -> object:
    """The value of the EXIF tag; None where there is no EXIF, or it cannot be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser raises errors of any type
        return None


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise MediaError(
            f"picture array is {array.dtype} {list(array.shape)}, uint8 [height, width, 3 or 4] is expected"
        )
    return Image.fromarray(array)


def rgb(image: Image.Image) -> Image.Image:
    """A decoded image upright, without transparency, as RGB."""
    if (turn := TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # I;16, or I (32 bits): Pillow opens 16-bit TIFF and PGM so
        deep = np.asarray(image)
        if image.mode != "I" or 255 < deep.max() < 1 << 16:
            image = Image.fromarray((deep.clip(0) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def load_picture(source: Picture) -> Image.Image:
    """An upright RGB picture.

    Args:
        source: encoded bytes, a PIL image, or a uint8 array (height, width, 3 or 4); also a path, file:// or data: URL.

    Raises:
        MediaError: the source is no picture, is cut short, is too large, or has a type that is not listed above.
    """
    if isinstance(source, np.ndarray):
        return rgb(_from_array(source))
    if isinstance(source, Image.Image):
        return _opened(source, "picture")
    if isinstance(source, bytes):
        return _decode(source, "picture")
    if isinstance(source, str | os.PathLike):
        name = "data URL" if isinstance(source, str) and source[:5].lower() == "data:" else os.fspath(source)
        return _decode(ANY_FILE(source, "picture"), name)
    raise MediaError(f"picture is {type(source).__name__}, a path, a URL, bytes, a PIL image or an array is expected")
