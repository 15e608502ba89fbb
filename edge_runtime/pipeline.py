"""Chat messages to a request: find the media, render the prompt, encode, count the pads."""

from dataclasses import replace
from typing import Any

from contract.errors import InvalidInput
from edge_runtime.chat_template import Message, render
from edge_runtime.content import media_parts, plain
from edge_runtime.encoder import Encoder
from edge_runtime.fetch import Fetcher
from edge_runtime.items import Item, Progress, picture_item, video_item
from edge_runtime.media import Picture
from edge_runtime.prompt import grids, prompt_ids
from edge_runtime.request import Request

DEVICE_MAX_PIXELS = 1 << 20


class Pipeline:
    """Everything between a question and the bytes that are sent.

    Args:
        max_pixels: most pixels of a picture or video frame after resizing, where the bundle allows more: the tower's
            time and memory follow it. The default is 1024 x 1024, 1,024 embedding rows; None leaves it to the bundle.
        fetch: reads http and https URLs of pictures and videos; None refuses them.
        progress: called with the number of frames read and the number wanted while a video file is decoded.

    Raises:
        InvalidInput: max_pixels is below the bundle's smallest picture.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_pixels: int | None = DEVICE_MAX_PIXELS,
        fetch: Fetcher | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.encoder, self._fetch, self._progress = encoder, fetch, progress
        image, self._max_pixels = encoder.bundle.manifest.image, max_pixels
        if max_pixels is not None and max_pixels < image.min_pixels:
            raise InvalidInput(f"max_pixels is {max_pixels}, at least the bundle's {image.min_pixels} is expected")
        most = image.max_pixels if max_pixels is None else min(max_pixels, image.max_pixels)
        self._image = replace(image, max_pixels=most)

    def items(self, messages: list[Message]) -> list[Item]:
        """Pictures and videos of the messages in prompt order, ready for the tower.

        Raises:
            MediaError: one of them cannot be used.
        """
        manifest = self.encoder.bundle.manifest
        return [
            picture_item(part.source, self._image, manifest.card)
            if part.options is None
            else video_item(part.source, manifest.video, manifest.card, part.options, self._max_pixels, self._progress)
            for part in media_parts(messages, self._fetch)
        ]

    def request(self, messages: list[Message], tools: list[Any] | None = None) -> Request:
        """Turn a conversation into a request.

        Args:
            messages: transformers' or OpenAI's form; pictures as path, URL of file or data, bytes, PIL or array;
                videos as {"type": "video", "video": path, bytes, frames or folder, "fps": 2.0}, with any of
                VideoOptions' names, or OpenAI's video_url.

        Raises:
            InvalidInput: the chat template refuses the messages, or they carry pad tokens of their own.
            MediaError: a picture or video cannot be used.
            MissingExtra: a video file, and PyAV is not installed.
        """
        bundle = self.encoder.bundle
        if not messages:
            raise InvalidInput("messages is empty, at least one message is expected")
        items = self.items(messages)
        text = render(bundle.chat_template, plain(messages), tools)
        input_ids = prompt_ids(text, items, bundle)
        embeddings = self.encoder.encode(items)
        return Request(
            input_ids,
            embeddings.image_embeds,
            embeddings.deepstack_embeds,
            grids(items, False),
            grids(items, True),
            bundle.manifest.card.encoder_fingerprint,
            embeddings.num_encoded,
        )

    def ask(self, picture: Picture, question: str) -> Request:
        """One picture, one question."""
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        return self.request([{"role": "user", "content": content}])
