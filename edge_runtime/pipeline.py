"""Chat messages to a request: find the media, render the prompt, encode, count the pads."""

from collections.abc import Sequence
from typing import Any

from contract.errors import InvalidInput, MediaError
from edge_runtime.chat_template import Message, render
from edge_runtime.encoder import Encoder
from edge_runtime.items import Item, frames_item, picture_item
from edge_runtime.media import Picture
from edge_runtime.prompt import grids, prompt_ids
from edge_runtime.request import Request


def _picture(part: dict[str, Any]) -> Picture | None:
    """The picture of a content part: transformers' `image`, `path`, `url`, or OpenAI's `image_url`."""
    value = part.get("image_url")
    if isinstance(value, dict):
        return value.get("url")
    if value is not None:
        return value  # type: ignore[no-any-return]
    return next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)


class Pipeline:
    """Everything between a question and the bytes that are sent."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def items(self, messages: list[Message]) -> list[Item]:
        """Pictures and videos of the messages in prompt order, ready for the tower.

        Raises:
            MediaError: one of them cannot be used.
        """
        manifest = self.encoder.bundle.manifest
        items = []
        for message in messages:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                kind = part.get("type")
                if kind in ("image", "image_url") or "image" in part:
                    if (source := _picture(part)) is None:
                        raise MediaError(
                            f"content part {sorted(part)} has no picture: give image, path, url or image_url"
                        )
                    items.append(picture_item(source, manifest.image, manifest.card))
                elif kind == "video" or "video" in part:
                    frames = part.get("video")
                    if not isinstance(frames, Sequence) or isinstance(frames, str | bytes):
                        raise MediaError(f"video is {type(frames).__name__}, a list of frames is expected")
                    items.append(frames_item(frames, manifest.video, manifest.card, part.get("sample_fps", 2.0)))
        return items

    def request(self, messages: list[Message], tools: list[Any] | None = None) -> Request:
        """Turn a conversation into a request.

        Args:
            messages: transformers' or OpenAI's form; pictures as path, URL of file or data, bytes, PIL or array;
                videos as {"type": "video", "video": [frames], "sample_fps": 2.0}.

        Raises:
            InvalidInput: the chat template refuses the messages, or they carry pad tokens of their own.
            MediaError: a picture or video cannot be used.
        """
        bundle = self.encoder.bundle
        if not messages:
            raise InvalidInput("messages is empty, at least one message is expected")
        items = self.items(messages)
        text = render(bundle.chat_template, messages, tools)
        input_ids = prompt_ids(text, items, bundle)
        embeddings = self.encoder.encode(items)
        return Request(
            input_ids,
            embeddings.image_embeds,
            embeddings.deepstack_embeds,
            grids(items, False),
            grids(items, True),
            bundle.manifest.card.encoder_fingerprint,
        )

    def ask(self, picture: Picture, question: str) -> Request:
        """One picture, one question."""
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        return self.request([{"role": "user", "content": content}])
