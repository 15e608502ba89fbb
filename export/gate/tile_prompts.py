"""The gate of a tile family's prompts: it compares the token ids of conversations with those of transformers' processor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from contract.errors import ParityError
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.items.preparation import frames_item, picture_item
from edge_runtime.prompts.chat_template import Message, render
from edge_runtime.prompts.content import num_pictures, plain
from edge_runtime.prompts.prompt import prompt_ids
from export.gate.processor import NOTHING, drawn
from export.gate.reference import token_ids

CLIP_FPS = 2.0  # the rate of frames where a message does not say how fast they follow


def conversations(with_videos: bool) -> Iterator[tuple[str, list[Message]]]:
    """Conversations without a picture, with one, with several, over several turns, and `with_videos` with videos."""

    def part(seed: int, height: int, width: int) -> Message:
        return {"type": "image", "image": Image.fromarray(drawn(seed, height, width))}

    def clip(count: int, height: int, width: int) -> Message:
        return {"type": "video", "video": [Image.fromarray(drawn(seed, height, width)) for seed in range(count)]}

    def say(role: str, *content: Message | str) -> Message:
        return {"role": role, "content": [c if isinstance(c, dict) else {"type": "text", "text": c} for c in content]}

    yield "text", [say("user", " Hello,  world ")]
    yield "one picture", [say("user", part(1, 60, 60), "What is it?")]
    yield "a wide picture behind the text", [say("user", "Look: ", part(2, 100, 700))]
    yield "two pictures", [say("user", part(3, 60, 200), " and ", part(4, 333, 100), "Which?")]
    yield "two turns", [say("user", part(5, 437, 300), "What?"), say("assistant", "A star."), say("user", "Sure?")]
    yield "a picture a turn", [say("user", part(6, 90, 90), "A?"), say("assistant", "1"), say("user", part(7, 50, 160))]
    if with_videos:
        yield "a video", [say("user", clip(3, 60, 90), "What happens?")]
        yield "a picture and a video", [say("user", part(8, 77, 160), "then", clip(2, 60, 60), "?")]
        yield "two videos", [say("user", clip(2, 60, 90), clip(2, 40, 50), "Which?")]


def tile_prompts(reference: Any, bundle: Bundle, with_videos: bool) -> Iterator[None]:
    """Compare the token ids of one conversation after another.

    Args:
        reference: transformers' processor.
        bundle: the bundle that the export is about to publish.
        with_videos: the family takes videos.

    Raises:
        ParityError: a prompt differs; the message names the conversation.
    """
    manifest = bundle.manifest
    mode_of = families.find(manifest.card.family).mode
    for name, messages in conversations(with_videos):
        parts = [part for message in messages for part in message["content"] if part["type"] != "text"]
        mode = mode_of(num_pictures(messages))
        items = [
            picture_item(part["image"], manifest.image, manifest.card, mode=mode)
            if part["type"] == "image"
            else frames_item(part["video"], manifest.video, manifest.card)
            for part in parts
        ]
        text = render(bundle.chat_template, plain(messages), None, special_tokens=manifest.special_tokens)
        ours = prompt_ids(text, items, bundle).tolist()
        original = token_ids(reference, text, **_media(parts))
        if ours != original:
            raise ParityError(
                f"the prompt of {name!r} differs from transformers': {len(ours)} tokens {ours[:12]} here, {len(original)} "
                f"tokens {original[:12]} there. {NOTHING}"
            )
        yield


def _media(parts: list[Message]) -> dict[str, Any]:
    """The arguments of transformers' processor for the pictures and videos of one conversation."""
    pictures = [part["image"] for part in parts if part["type"] == "image"]
    videos = [np.stack([np.asarray(frame) for frame in part["video"]]) for part in parts if part["type"] == "video"]
    given: dict[str, Any] = {"images": [pictures]} if pictures else {}
    if videos:
        metadata = [
            {"fps": CLIP_FPS, "total_num_frames": len(video), "frames_indices": list(range(len(video)))}
            for video in videos
        ]
        given |= {"videos": [videos], "do_sample_frames": False, "video_metadata": [metadata]}
    return given
