"""The endpoints that answer without tokens: one request to the server for each entry of a body, a few at a time."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import numpy as np

from contract.card import ModelCard
from contract.tasks import no_output
from edge_runtime.gateway.body import Held
from edge_runtime.gateway.chat import check_length, count_prompt
from edge_runtime.gateway.door import Door
from edge_runtime.gateway.entry import Entry
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.kinds import Kind
from edge_runtime.gateway.preparation import Preparation
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shares import Shares
from edge_runtime.gateway.triton import Client, Triton
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.prompts.chat_template import Message
from edge_runtime.vectors import Vectors

AT_ONCE = 4  # of one body: while one is in the tower, others are on the way to the server and back
NUM_PLACES, OF_ONE = 32, 8  # entries at once, of all bodies and of one caller's: another's single entry waits for few


class PooledRequest(Protocol):
    """What a reader makes of a body."""

    @property
    def task(self) -> str: ...
    @property
    def entries(self) -> tuple[Entry, ...]: ...
    @property
    def ignored(self) -> tuple[str, ...]: ...

    def check(self, width: int) -> None:
        """Check what depends on the width of the model's vectors.

        Raises:
            Failure: 400.
        """

    def chats(self) -> Sequence[list[Message] | tuple[int, ...]]:
        """What the model reads for each value of the answer."""

    def pieces(self, pooled: list[Vectors], num_tokens: int, model: str) -> Iterator[bytes]:
        """The answer as JSON, out of what the model gave for each chat, float32 (W,)."""


class Pooled:
    """Answers embeddings and ranks with a served model."""

    def __init__(
        self, card: ModelCard, client: Client, settings: Settings, door: Door, preparation: Preparation, triton: Triton
    ) -> None:
        self._card, self._client, self._settings, self._triton = card, client, settings, triton
        self._door, self._preparation = door, preparation
        self._shares = Shares(NUM_PLACES, OF_ONE)

    async def answer(self, kind: Kind, body: bytearray, held: Held, exchange: Exchange, caller: bytes) -> None:
        """Answer a request whose body has come; where one entry fails, the request does."""
        tasks: list[asyncio.Task[tuple[Vectors, int]]] = []
        try:
            request: PooledRequest = await self._door.parsed(kind, body, caller)
            exchange.ignored = request.ignored
            request.check(self._card.hidden_size)
            for entry in request.entries:
                await check_length(entry.num_characters, self._triton, entry.param)
            places = asyncio.Semaphore(AT_ONCE)
            tasks = [
                asyncio.create_task(self._one(chat, request.task, held, caller, places)) for chat in request.chats()
            ]
            found = await asyncio.gather(*tasks)
            pooled, counts = [one for one, _ in found], [count for _, count in found]
            name = self._settings.served_model_names[0]
            await exchange.send_pieces(request.pieces(pooled, sum(counts), name))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            held.release()

    async def _one(
        self,
        chat: list[Message] | tuple[int, ...],
        task: str,
        held: Held,
        caller: bytes,
        places: asyncio.Semaphore,
    ) -> tuple[Vectors, int]:
        """What the model gives for one chat, float32 (W,), and the number of tokens it read."""
        async with places, self._shares.of(caller):
            if isinstance(chat, tuple):
                prepared = await self._preparation.prompt(chat)
            else:
                prepared = await self._preparation.request(chat, caller=caller)
            request = replace(prepared.request, task=task)
            tokens = PromptTokens.of(request, self._card)
            metrics = self._door.metrics
            count_prompt(metrics, prepared, tokens)
            async with aclosing(self._client.stream(request)) as deltas:
                async for delta in deltas:
                    if delta.pooled:
                        metrics.items.labels("sent").inc(delta.num_uploaded)
                        metrics.upload_bytes.inc(delta.upload_bytes)
                        vector = np.array(delta.pooled, np.float32)
                        held.take(vector.nbytes)  # until the answer is out
                        return vector, tokens.total
        raise no_output(task)
