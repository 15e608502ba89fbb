"""Chat messages to a request: find the media, render the prompt, encode what is new, count the pads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from contract.card import ModelCard
from contract.errors import InvalidInput, MediaError
from edge_runtime import families
from edge_runtime.items.item import Item
from edge_runtime.items.maker import PATIENT, Asker, ItemMaker, MakeItem
from edge_runtime.items.preparation import FramesRead
from edge_runtime.items.workers import DecodingLimits, Workers
from edge_runtime.media.access import MediaAccess
from edge_runtime.media.fetch import Fetcher
from edge_runtime.media.picture import Picture
from edge_runtime.prompts.chat_template import Message, render
from edge_runtime.prompts.content import MediaPart, check_keys, media_parts, num_pictures, plain
from edge_runtime.prompts.own_pads import guarded
from edge_runtime.prompts.prompt import prompt_ids, with_kept
from edge_runtime.request import Request
from edge_runtime.reuse.embedding_cache import EmbeddingCache
from edge_runtime.reuse.reusing_encoder import Encoded, PreparedItem, ReusingEncoder
from edge_runtime.row_rule import RowRule
from edge_runtime.tower.encoder import Encoder

DEVICE_MAX_PIXELS = 1 << 20


class Pipeline:
    """Everything between a question and the bytes that a client sends to the server.

    Args:
        encoder: the tower.
        cache: finds what the tower has encoded before; None encodes everything.
        max_pixels: the most pixels of a resized picture or video frame, where the bundle allows more: the tower's time
            and memory follow it. The default is 1024 x 1024, 1,024 embedding rows; None leaves it to the bundle.
        max_tiles: the most tiles of a picture, where the bundle's family cuts pictures into tiles: time and rows follow
            them. The pipeline refuses a picture of more. None allows the most that the checkpoint's processor makes.
        fetch: reads http and https URLs of pictures and videos; None refuses them.
        allowed_local_media_path: the folder in which files that messages name must lie, after the pipeline has followed
            links; None allows any file (the device itself writes the messages), "" none. Set it where messages come
            from others.
        progress: a function that gets the number of frames read so far and the number wanted, while a video decodes.
        rows: which rows of a video travel. "copy" does not send a row again that hardly differs from the last one sent
            at its place, "copy:0.1" says below which 1 - cosine, "equal" where they are the same; "all" sends every
            row; "drop:0.5" leaves half of a video's rows out of the prompt, which changes answers. Pictures travel
            whole.
        decoding: decode in separate processes within these limits, without progress; None decodes in this process and
            without limits. Set it where messages come from others.

    Raises:
        InvalidInput: max_pixels is below the bundle's smallest picture, max_tiles is below 1 or the bundle cuts no
            tiles, or rows is none of these.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        cache: EmbeddingCache | None = None,
        max_pixels: int | None = DEVICE_MAX_PIXELS,
        max_tiles: int | None = None,
        fetch: Fetcher | None = None,
        allowed_local_media_path: str | PathLike[str] | None = None,
        progress: FramesRead | None = None,
        rows: str = "copy",
        decoding: DecodingLimits | None = None,
    ) -> None:
        self.encoder = encoder
        self.access = MediaAccess(fetch, allowed_local_media_path)
        self._rows = ReusingEncoder(encoder, cache, RowRule.of(rows))
        manifest = encoder.bundle.manifest
        image = manifest.image
        if max_pixels is not None and max_pixels < image.min_pixels:
            raise InvalidInput(f"max_pixels is {max_pixels}, at least the bundle's {image.min_pixels} is expected")
        most = image.max_pixels if max_pixels is None else min(max_pixels, image.max_pixels)
        self.max_pixels = most  # the most pixels of a resized picture
        tiles = _most_tiles(manifest.card, max_tiles)
        how = replace(image, max_pixels=most)
        maker = ItemMaker(manifest.card, how, manifest.video, max_pixels, tiles, progress, encoder.sizes)
        self._make: MakeItem = maker if decoding is None else Workers(maker, decoding)

    def items(self, messages: list[Message], pictures: int | None = None, asker: Asker = PATIENT) -> list[Item]:
        """The pictures and videos of the messages in prompt order, ready for the tower.

        Args:
            pictures: how many pictures the whole conversation shows, where the messages are a part of it.
            asker: who waits for them; see `prepare`.

        Raises:
            MediaError: a source cannot be read, or a picture or video cannot be decoded.
        """
        return [self._made(part, mode, asker) for part, mode in self._parts(messages, pictures)]

    def _parts(self, messages: list[Message], pictures: int | None = None) -> Iterator[tuple[MediaPart, str]]:
        """Each picture and video, and how the family cuts a picture of these messages."""
        count = num_pictures(messages) if pictures is None else pictures
        mode = families.find(self.encoder.bundle.manifest.card.family).mode(count)
        return ((part, mode) for part in media_parts(messages, self.access))

    def prepare(self, messages: list[Message], asker: Asker = PATIENT) -> list[PreparedItem]:
        """Decode, resize and cut the pictures and videos of the messages, in prompt order; skip those with known rows.

        Args:
            asker: who waits for them; with `decoding`, the work ends when the asker leaves.

        Raises:
            MediaError: a source cannot be read, or a picture or video cannot be decoded.
        """
        return [self._prepared(part, mode, asker) for part, mode in self._parts(messages)]

    def _prepared(self, part: MediaPart, mode: str, asker: Asker) -> PreparedItem:
        name = self._rows.name(part.source, (part.options, mode))
        return self._rows.known(name) or PreparedItem(self._made(part, mode, asker), name)

    def _made(self, part: MediaPart, mode: str, asker: Asker) -> Item:
        try:
            return self._make(part.source, part.options, asker, mode)
        except MediaError as error:
            if part.name in str(error):
                raise
            raise MediaError(f"{part.name}: {error}") from error  # the maker sees bytes

    def encode(self, prepared: Sequence[PreparedItem]) -> Encoded:
        """The rows of what `prepare` made; the tower runs on those that the cache does not have."""
        return self._rows.encode(prepared)

    def request(
        self,
        messages: list[Message],
        tools: list[Any] | None = None,
        *,
        prepared: Sequence[PreparedItem] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        documents: list[Any] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> Request:
        """Turn a conversation into a request.

        Args:
            messages: transformers' or OpenAI's form; pictures as path, URL of file or data, bytes, PIL or array;
                videos as {"type": "video", "video": path, bytes, frames or folder, "fps": 2.0}, with any of
                VideoOptions' names, or OpenAI's video_url.
            tools: the functions that the model may call, as the chat template takes them.
            prepared: what `prepare` made of the same messages, where the caller has called it before.
            add_generation_prompt, continue_final_message, documents: as edge_runtime.prompts.chat_template.render.
            template_variables: what else the chat template reads, `enable_thinking` for example.

        Raises:
            InvalidInput: there are no messages, a key of one is unknown, or the chat template refuses them.
            MediaError: a source cannot be read, or a picture or video cannot be decoded.
            MissingExtra: a source is a video file, and PyAV is not installed.
        """
        bundle = self.encoder.bundle
        if not messages:
            raise InvalidInput("messages is empty, at least one message is expected")
        check_keys(messages, bundle.chat_template)
        encoded = self._rows.encode(self.prepare(messages) if prepared is None else prepared)
        marks = (*bundle.pad_tokens, *families.find(bundle.manifest.card.family).MARKS)
        (chat, tools), mark = guarded((plain(messages), tools), marks)
        text = render(
            bundle.chat_template,
            chat,
            tools,
            add_generation_prompt,
            documents=documents,
            continue_final_message=continue_final_message,
            special_tokens=bundle.manifest.special_tokens,
            variables=template_variables,
        )
        input_ids = with_kept(prompt_ids(text, encoded.items, bundle, mark), encoded.rows, bundle.manifest.card)
        return Request(
            input_ids, encoded.rows, bundle.manifest.card.encoder_fingerprint, encoded.num_encoded, ran=encoded.ran
        )

    def close(self) -> None:
        """End the processes of `decoding`; without it there is nothing to end."""
        if isinstance(self._make, Workers):
            self._make.close()

    def ask(self, picture: Picture, question: str) -> Request:
        """The request of one question about one picture."""
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        return self.request([{"role": "user", "content": content}])


def _most_tiles(card: ModelCard, asked: int | None) -> int | None:
    """The most tiles of a picture; None where the family cuts none."""
    if asked is not None and (card.tiles is None or asked < 1):
        wrong = "this bundle's family cuts no tiles: leave it out" if card.tiles is None else "at least 1 is expected"
        raise InvalidInput(f"max_tiles is {asked}, {wrong}")
    if card.tiles is None:
        return None
    return card.tiles.most_tiles if asked is None else asked
