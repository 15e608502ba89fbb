"""The name of an encoder: what must be equal for embeddings to mean the same to a language model.

Tower weights, graph version, preprocessing and prompt variant go in; precision does not, because an int8 bundle of the
same tower answers the same server.
"""

import hashlib
import json
from collections.abc import Iterable

from contract.preprocessing import ImageProcessing, VideoProcessing, facts
from contract.tiles import Tiles

GRAPH_VERSION = 1  # raise when the graph's outputs change their meaning


def encoder_fingerprint(
    tower: Iterable[tuple[str, str, tuple[int, ...], bytes | memoryview]],
    image: ImageProcessing,
    video: VideoProcessing,
    has_outer_video_wrapper: bool,
    tiles: Tiles | None = None,
) -> str:
    """Hash of an encoder, 32 hex digits.

    Args:
        tower: (name, dtype, shape, little-endian bytes) of every tensor of the source tower, as stored; any order.
    """
    tensors = sorted((name, dtype, list(shape), hashlib.sha256(data).hexdigest()) for name, dtype, shape, data in tower)
    values = {
        "graph_version": GRAPH_VERSION,
        "tower": tensors,
        "image": facts(image),
        "video": facts(video),
        "outer_video_wrapper": has_outer_video_wrapper,
    }
    if tiles is not None:
        values["tiles"] = tiles.facts()
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
