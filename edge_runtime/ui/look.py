"""A look at the embeddings: each level of a picture as a map of colours, beside the picture itself.

Rows that point the same way get the same colour: red, green and blue are the first three principal components, by
subspace iteration (Halko et al., "Finding structure with randomness", 2011, algorithm 4.4).
"""

import base64
import io
from collections.abc import Callable
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import EdgeVlmError
from edge_runtime.encoded_item import EncodedItem

NUM_STEPS = 6
SIDE = 240  # pixels of a map's longer side
MAX_ROWS = 16_384  # more rows would take seconds


def colours(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows (n, H) as uint8 colours (n, 3): three principal components, each from its 2nd to its 98th percentile."""
    centred = rows.astype(np.float32) - rows.mean(axis=0, dtype=np.float32)  # (n, H)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((rows.shape[1], 3)).astype(np.float32))[0]  # (H, 3)
    for _ in range(NUM_STEPS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    parts = centred @ basis  # (n, 3)
    low, high = np.percentile(parts, (2, 98), axis=0)
    scaled = (parts - low) / np.maximum(high - low, 1e-12)
    drawn: NDArray[np.uint8] = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return drawn


def maps(item: EncodedItem, merge_size: int) -> list[Image.Image]:
    """One map of the first frame for each level, the main embeddings first; none where the rows stand on no grid."""
    _, height, width = (side // merge_size for side in item.grid_thw)
    count = height * width
    if min(height, width) < 2 or not 3 < count <= MAX_ROWS or len(item.main) % count:
        return []
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    levels = [item.main, *item.deepstack]
    return [
        Image.fromarray(colours(level[:count]).reshape(height, width, 3)).resize(size, Image.Resampling.NEAREST)
        for level in levels
    ]


def look(item: EncodedItem, decoded: Callable[[], Image.Image], merge_size: int) -> str:
    """The picture and its maps as HTML; "" where there is no map.

    Args:
        decoded: gives the picture; this call asks it only where there is a map.
    """
    drawn = maps(item, merge_size)
    if not drawn:
        return ""
    names = ["what the language model reads", *(f"deepstack level {i}" for i in range(1, len(drawn)))]
    figures = [_figure(one, name) for one, name in zip(drawn, names, strict=True)]
    try:
        picture = decoded()
    except EdgeVlmError:  # the file is gone, or the decoders are busy
        pass
    else:
        figures.insert(0, _figure(picture.resize(drawn[0].size), "the picture, which stays here"))
    note = "Same colour: rows that point the same way (three principal components)."
    return f'<h2>What the server sees</h2><div class="look">{"".join(figures)}</div><p class="quiet">{note}</p>'


def _figure(picture: Image.Image, name: str) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}"><figcaption>{escape(name)}</figcaption></figure>'
