"""Pictures from wherever they come, as upright RGB.

Three choices are made here and nowhere else: EXIF orientation is applied, transparency is composited on white (as
qwen-vl-utils does; transformers drops the alpha channel), and a file that cannot be decoded whole is an error.
"""

import io
import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from contract.errors import MediaError
from edge_runtime.source import find, read

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

MAX_DECODED_PIXELS = 1 << 27  # 134 million: a bomb is refused before it is decoded


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_DECODED_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        image.load()
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{name} is no picture ({len(data)} bytes of an unknown format): send JPEG, PNG, WebP …"
        ) from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name} is too large: {error}; up to {MAX_DECODED_PIXELS} pixels are allowed") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise MediaError(f"{name} cannot be decoded: {error}; is the file cut short?") from error
    return image


def _open(source: Picture) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] not in (3, 4) or not source.size:
            raise MediaError(
                f"picture array is {source.dtype} {list(source.shape)}, uint8 [height, width, 3 or 4] is expected"
            )
        return Image.fromarray(source)
    found = find(source, "picture")
    if isinstance(found, bytes):
        return _decode(found, "data URL" if isinstance(source, str) else "picture")
    return _decode(read(found), str(found))


def load_picture(source: Picture) -> Image.Image:
    """An upright RGB picture.

    Args:
        source: a path, file:// or data: URL, encoded bytes, a PIL image, or a uint8 array (height, width, 3 or 4).

    Raises:
        MediaError: not a picture, cut short, too large, or of an unknown kind.
    """
    image = ImageOps.exif_transpose(_open(source))
    if image.width < 1 or image.height < 1:
        raise MediaError(f"picture is {image.width} x {image.height}")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")
