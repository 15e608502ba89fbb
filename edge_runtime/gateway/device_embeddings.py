"""/v1/embeddings on the device alone, with the bundle of an embedding model that has a text tower."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette

from contract.errors import InvalidInput, MediaError, Unavailable
from edge_runtime.embedder import Embedder
from edge_runtime.gateway.about import About
from edge_runtime.gateway.body import Held
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.door import Door, Endpoint
from edge_runtime.gateway.embeddings import EmbeddingsRequest, read_embeddings
from edge_runtime.gateway.entry import Entry
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.kinds import Kind
from edge_runtime.gateway.media_reader import MediaReader
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shell import application
from edge_runtime.items.leaving import LeavingAsker
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.workers import DecodingLimits, Workers
from edge_runtime.media.access import MediaAccess

NUM_ENCODERS, NUM_DECODERS = 2, 4  # threads; a decoder waits for a process
AT_ONCE = NUM_ENCODERS + 2  # entries of one request: the next are decoded while these are in the tower
MAX_CHARACTERS = 1 << 16  # of one text: no tower of texts takes so many


class DeviceEmbeddings:
    """Embeds texts and pictures with the towers of one bundle.

    Attributes:
        num_waiting: requests that wait for a tower or are in it.
    """

    def __init__(self, embedder: Embedder, access: MediaAccess, settings: Settings, decoding: DecodingLimits) -> None:
        self._embedder, self._settings, self.num_waiting = embedder, settings, 0
        self._reader = MediaReader(access, settings.max_body_bytes)
        self._make = Workers(embedder.maker, decoding)
        self._decoders = ThreadPoolExecutor(NUM_DECODERS, "decoder")
        self._encoders = ThreadPoolExecutor(NUM_ENCODERS, "encoder")

    async def answer(self, door: Door, kind: Kind, body: bytearray, exchange: Exchange, caller: bytes) -> None:
        """Answer a request whose body has come; where one entry fails, the request does."""
        request: EmbeddingsRequest = await door.parsed(kind, body, caller)
        exchange.ignored = request.ignored
        request.check(self._embedder.manifest.width)
        if request.instruction is not None:
            raise Failure(400, "instruction is not for this model: leave it out", param="instruction")
        for entry in request.entries:
            _check(entry)
        if self.num_waiting >= self._settings.max_waiting:
            raise Unavailable(f"{self.num_waiting} requests wait for the encoder, which is the most (--max-waiting)")
        self.num_waiting += 1
        asker, begun = LeavingAsker(caller), time.perf_counter()
        places = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(self._one(entry, asker, places)) for entry in request.entries]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            asker.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.num_waiting -= 1
        door.metrics.encode_seconds.observe(time.perf_counter() - begun)
        count = sum(number for _, number in found)
        door.metrics.prompt_tokens.labels("text").inc(count)
        pooled = [vector for vector, _ in found]
        name = self._settings.served_model_names[0]
        await exchange.send_pieces(request.pieces(pooled, count, name))

    async def _one(
        self, entry: Entry, asker: LeavingAsker, places: asyncio.Semaphore
    ) -> tuple[NDArray[np.float32], int]:
        """The vector (W,) of an entry, and the number of its tokens, 0 for a picture."""
        async with places:
            return await self._vector(entry, asker)

    async def _vector(self, entry: Entry, asker: LeavingAsker) -> tuple[NDArray[np.float32], int]:
        loop, (part,) = asyncio.get_running_loop(), entry.parts
        if part["type"] == "text":
            texts = [part["text"]]
            try:
                vectors = await loop.run_in_executor(self._encoders, self._embedder.texts, texts)
            except InvalidInput as error:
                raise Failure(400, str(error).replace("texts[0]", entry.param), param=entry.param) from error
            return vectors[0], self._embedder.num_tokens(part["text"])
        options = PictureOptions(**{name: value for name, value in part.items() if name not in ("type", "image")})
        await self._reader.read([part])
        try:
            item = await loop.run_in_executor(self._decoders, self._make, part["image"], options, asker)
        except MediaError as error:
            raise Failure(400, str(error), param=entry.param, code="invalid_media") from error
        return (await loop.run_in_executor(self._encoders, self._embedder.encode, [item]))[0], 0

    def close(self) -> None:
        """End the threads and processes."""
        self._reader.close()
        for pool in (self._decoders, self._encoders):
            pool.shutdown(wait=False, cancel_futures=True)
        self._make.close()


def _check(entry: Entry) -> None:
    """Refuse what has no vector of its own here: ids, conversations, videos, and a text with a picture."""
    kinds = [part["type"] for part in entry.parts]
    if kinds not in (["text"], ["image"]):
        said = "messages" if entry.messages else "token ids" if entry.ids else " and ".join(kinds)
        raise Failure(400, f"{entry.param} is {said}: this model embeds one text or one picture", param=entry.param)
    if entry.num_characters > MAX_CHARACTERS:
        raise Failure(
            400, f"{entry.param} has {entry.num_characters} characters, {MAX_CHARACTERS} are allowed: shorten it",
            param=entry.param,
        )  # fmt: skip


@dataclass(frozen=True)
class Towers:
    """The towers in the place of a server (about.Server)."""

    max_text_tokens: int

    async def problem(self) -> str:
        return ""

    async def limit(self, name: str) -> int | None:
        return self.max_text_tokens if name == "max_prompt_tokens" else None


def create_embedder_app(
    embedder: Embedder, access: MediaAccess, settings: Settings, decoding: DecodingLimits
) -> Starlette:
    """The application of a gateway without a server behind it.

    Args:
        access: decides which URLs and files it may read.
        settings: what the gateway allows.
        decoding: limits of the processes that decode pictures.
    """
    callers, embeddings = Callers(settings), DeviceEmbeddings(embedder, access, settings, decoding)
    door = Door(settings, callers, lambda: embeddings.num_waiting)

    async def answer(kind: Kind, body: bytearray, held: Held, exchange: Exchange, caller: bytes) -> None:
        try:
            await embeddings.answer(door, kind, body, exchange, caller)
        finally:
            held.release()

    async def close() -> None:
        embeddings.close()

    endpoints = {"/v1/embeddings": Endpoint(door, Kind(read_embeddings, None), answer)}
    about = About(settings, callers, door.metrics, Towers(embedder.manifest.max_text_tokens))
    return application(settings, door, about, endpoints, close)
