"""The name of an encoder: what must be equal for embeddings to mean the same to a language model.

The hash covers tower weights, graph version, preprocessing and prompt variant. It leaves out the precision, because the
same server takes the rows of an int8 bundle and of an fp32 bundle of one tower.
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
        tower: (name, dtype, shape, little-endian bytes) of every tensor of the tower as the checkpoint stores it, in
            any order.
        image, video: how the checkpoint's processors prepare pictures and videos.
        has_outer_video_wrapper: vision_start and vision_end stand around all frames of a video, not around each.
        tiles: the rule of the tiles; None where rows stand on grids.
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
