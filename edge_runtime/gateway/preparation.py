"""Messages to encoded requests, off the event loop.

Four kinds of work have their own threads, so none waits for another. Readers read URLs and files, and wait for others.
Decoders decode, in processes that end when the client leaves. Encoders run the tower, which takes the cores: few at a
time, behind a queue of known length. Writers prepare requests that are text alone. One client holds at most half of the
decoders, and no client fills the queue for another. While one picture goes through the tower the answers to others
stream on. Where requests show the same picture at the same time, the gateway encodes one after the other, so that the
second finds the rows of the first: each picture goes through the tower once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from contract.errors import MediaError, Unavailable
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.media_reader import MediaReader
from edge_runtime.gateway.messages import Link, media
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shares import Shares
from edge_runtime.items.item import Item
from edge_runtime.items.leaving import LeavingAsker
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.prompts.tokens import token_ids
from edge_runtime.request import Request

NUM_ENCODERS, NUM_WRITERS = 2, 2  # how many threads each pool has
NUM_PREPARED = 4  # how many requests at once decode their pictures, or wait for the tower with decoded ones
T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A request for the server.

    Attributes:
        request: the prompt and the rows.
        encode_s: seconds that the device took to decode and encode; 0 without pictures and videos.
        items: its pictures and videos, with their pixels where no cache gave the rows.
    """

    request: Request
    encode_s: float = 0.0
    items: list[Item] = field(default_factory=list)


class Preparation:
    """Turns messages into requests.

    Attributes:
        num_waiting: requests that wait for the tower or are in it.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.num_waiting = 0
        self._pipeline, self._settings = pipeline, settings
        self._reader = MediaReader(pipeline.access, settings.max_body_bytes)
        self._encoders = ThreadPoolExecutor(NUM_ENCODERS, "encoder")
        self._writers = ThreadPoolExecutor(NUM_WRITERS, "prompt")
        self._decoders = ThreadPoolExecutor(NUM_PREPARED, "decoder")
        self._shares = Shares(NUM_PREPARED, NUM_PREPARED // 2)
        self._waiting: Counter[bytes] = Counter()
        self._busy: dict[Any, asyncio.Event] = {}  # what the tower encodes now, by name

    def close(self) -> None:
        """End the threads; they drop work that has not begun."""
        self._reader.close()
        for pool in (self._decoders, self._encoders, self._writers):
            pool.shutdown(wait=False, cancel_futures=True)
        self._pipeline.close()

    async def request(
        self,
        messages: list[Message],
        tools: list[Any] | None = None,
        template: dict[str, Any] | None = None,
        caller: bytes = b"",
    ) -> Prepared:
        """Read the media, encode them and tokenise the prompt.

        Args:
            messages: as read_messages makes them; this call replaces each Link by what the link leads to.
            tools: the functions that the model may call.
            template: variables for the chat template.
            caller: the name of the client; one client holds at most half of the decoders.

        Raises:
            Failure: 400, a picture or video cannot be read or encoded.
            InvalidInput: the chat template refuses the messages.
            Unavailable: too many requests wait.
        """
        parts = list(media(messages))
        write = partial(self._pipeline.request, messages, tools)
        if template:
            write = partial(write, template_variables=template)
        if not parts:
            return Prepared(await self._in(self._writers, write))
        most = self._settings.max_waiting
        # a client that has less than half of them waiting finds room beside one that filled the queue
        if self.num_waiting >= (most if self._waiting[caller] >= max(1, most // 2) else 2 * most):
            raise Unavailable(
                f"{self.num_waiting} requests wait for the encoder, which is the most (--max-waiting): try again later"
            )
        self.num_waiting += 1
        self._waiting[caller] += 1
        asker = LeavingAsker(caller)
        links = [part[part["type"]] for part in parts]
        try:
            await self._reader.read(parts)
            return await self._encoded(messages, write, frozenset(map(_name, parts)), asker)
        except MediaError as error:  # the error does not say which of several it means
            raise Failure(400, str(error), param=_param(links), code="invalid_media") from error
        finally:
            asker.leave()  # ends the decoding for a client that went away
            self.num_waiting -= 1
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]

    async def prompt(self, prompt: str | tuple[int, ...]) -> Prepared:
        """The request of a prompt without template and pictures: text, which this call tokenises, or token ids."""
        return Prepared(await self._in(self._writers, partial(self._plain, prompt)))

    def _plain(self, prompt: str | tuple[int, ...]) -> Request:
        bundle = self._pipeline.encoder.bundle
        ids = list(prompt) if isinstance(prompt, tuple) else token_ids(bundle.tokenizer, prompt)
        return Request(np.array(ids, np.int64), (), bundle.manifest.card.encoder_fingerprint)

    async def _encoded(
        self, messages: list[Message], write: Callable[..., Request], names: frozenset[Any], asker: LeavingAsker
    ) -> Prepared:
        while waiting := [self._busy[name] for name in names if name in self._busy]:
            await waiting[0].wait()
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        self._busy |= dict.fromkeys(names, done)
        is_encoding = False

        def release() -> None:
            for name in names:
                del self._busy[name]
            done.set()

        try:
            async with self._shares.of(asker.caller):
                begun = time.perf_counter()
                prepared = await self._in(self._decoders, partial(self._pipeline.prepare, messages, asker))

                def encode() -> Prepared:
                    request = write(prepared=prepared)
                    return Prepared(request, time.perf_counter() - begun, [one.item for one in prepared])

                future = self._encoders.submit(encode)
                is_encoding = True
                # the client may be gone while the thread still works: only the thread's end releases the names
                future.add_done_callback(lambda _: _later(loop, release))
                return await asyncio.wrap_future(future)
        finally:
            if not is_encoding:
                release()

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _later(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # somebody has closed the loop meanwhile
        loop.call_soon_threadsafe(work)


def _param(links: list[Link | list[Link]]) -> str:
    """Where the one picture or video stands in the body; `messages` where there are several."""
    first = links[0][0] if isinstance(links[0], list) else links[0]
    return first.param if len(links) == 1 else "messages"


def _name(part: dict[str, Any]) -> tuple[Any, ...]:
    """The name of what a part shows: its options and its source. Parts of equal names have equal embeddings."""
    source = part[part["type"]]
    source = tuple(source) if isinstance(source, list) else source
    return tuple(sorted((key, repr(value)) for key, value in part.items() if value is not part[part["type"]])), source
