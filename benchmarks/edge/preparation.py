"""What a picture costs before the tower: decode, resize to 512 x 512 and cut into patches, on one core."""

import io
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.encode import seconds
from edge_runtime.bundle import Bundle
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import picture_item

SIDE, ROUNDS = 512, 30
SOURCES = (512, 1024)  # pixels a side; the larger one is resized


def photograph(side: int) -> bytes:
    """A JPEG of quality 90 with detail on every scale, as pictures have it."""
    rng, values = np.random.default_rng(4), np.zeros((side, side, 3))
    for cells in (4, 16, 64, 256):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        values += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC)) / cells**0.5
    picture, data = Image.fromarray((255 * values / values.max()).astype(np.uint8)), io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return data.getvalue()


def measure(folder: Path, encode_ms: float) -> list[dict[str, Any]]:
    """Per source: kilobytes, ms (median), and its share of `encode_ms`, for the bundle in `folder`."""
    manifest, rows = Bundle.load(folder).manifest, []
    options = PictureOptions(resized_height=SIDE, resized_width=SIDE)
    for source in SOURCES:
        data = photograph(source)

        def prepare(data: bytes = data) -> object:
            return picture_item(data, manifest.image, manifest.card, options)

        prepare()
        ms = 1e3 * median(seconds(prepare) for _ in range(ROUNDS))
        rows.append(
            {"side": source, "kb": round(len(data) / 1e3, 1), "ms": round(ms, 2), "share": round(ms / encode_ms, 4)}
        )
    return rows
