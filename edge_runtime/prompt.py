"""Prompt text and items to token ids: timestamps written before the frames of a video, pads repeated per embedding row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput
from contract.expansion import expand_pads
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item


def grids(items: Sequence[Item], is_video: bool) -> NDArray[np.int64]:
    """Grids of the pictures or of the videos, (k, 3), in prompt order."""
    chosen = [item.grid_thw for item in items if item.is_video == is_video]
    return np.array(chosen, np.int64).reshape(-1, 3)


def expand_videos(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """Write each video as `<0.2 seconds>` + one framed pad per temporal patch.

    transformers from 5.10 replaces only the pad and so leaves the template's own vision_start and vision_end around
    the video; before, it replaced all three. The bundle says which.
    """
    card = bundle.manifest.card
    pad, start, end = (
        bundle.token(token) for token in (card.video_token_id, card.vision_start_token_id, card.vision_end_token_id)
    )
    whole = pad if bundle.manifest.has_outer_video_wrapper else start + pad + end
    videos = [item for item in items if item.is_video]
    pieces = text.split(whole)
    if len(pieces) != len(videos) + 1:
        raise InvalidInput(f"the prompt has {len(pieces) - 1} video pads, {len(videos)} videos were given")
    expanded = pieces[0]
    for video, rest in zip(videos, pieces[1:], strict=True):
        expanded += "".join(f"<{second:.1f} seconds>{start}{pad}{end}" for second in video.timestamps) + rest
    return expanded


def prompt_ids(text: str, items: Sequence[Item], bundle: Bundle) -> NDArray[np.int64]:
    """Token ids, int64 (S,), equal to those of transformers' Qwen3VLProcessor.

    Args:
        text: what the chat template made, one pad per item.
        items: pictures and videos in prompt order.

    Raises:
        InvalidInput: the pads in the text are not those of the items.
    """
    expanded = expand_videos(text, items, bundle)
    ids = np.array(bundle.tokenizer.encode(expanded, add_special_tokens=False).ids, np.int64)
    return expand_pads(ids, grids(items, False), grids(items, True), bundle.manifest.card)
