"""The endpoints that answer with tokens: what becomes of a request behind the door.

The gateway sends the status with the first token, so it can still answer with an error's status where the server
refuses a request. A client that goes away ends its request: the gateway drops one that waits for the tower, and cancels
one that runs on the server.
"""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace

from contract.errors import ServerError
from contract.limits import Limits
from edge_runtime.gateway.answer_grammar import bound
from edge_runtime.gateway.body import Held
from edge_runtime.gateway.chat_request import ChatRequest
from edge_runtime.gateway.door import Door
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.kinds import Kind, Shape
from edge_runtime.gateway.messages import num_characters
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.preparation import Preparation, Prepared
from edge_runtime.gateway.reasoning import begins_thinking
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shares import Shares
from edge_runtime.gateway.triton import Client, Triton
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.items.jpeg import jpeg_bytes
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta

CHARACTERS_PER_TOKEN = 16  # no sensible text has more characters for each token
# How many requests with a grammar wait for their first token at once, of all clients and of one. The server tries 2
# grammars at once and lets 16 wait (serving.grammars.trials); without a share one client takes all of these.
NUM_GRAMMARS, GRAMMARS_OF_ONE = 16, 4
MAX_KEEPING = 4  # how many requests at once keep their pixels until their first token


class Chat:
    """Answers with tokens: it has the encoder and the connection to the server."""

    def __init__(
        self,
        pipeline: Pipeline,
        client: Client,
        settings: Settings,
        door: Door,
        preparation: Preparation,
        triton: Triton,
    ) -> None:
        self._settings, self._client, self._triton = settings, client, triton
        self._bundle = pipeline.encoder.bundle
        self._card = self._bundle.manifest.card
        self._preparation, self._door, self.metrics = preparation, door, door.metrics
        self._counters = ThreadPoolExecutor(1, "jpeg")
        self._grammars = Shares(NUM_GRAMMARS, GRAMMARS_OF_ONE)
        self._answers: Shares | None = None
        self._keeping = set[int]()  # the requests, by id, that keep their pixels

    def close(self) -> None:
        """End the thread."""
        self._counters.shutdown(wait=False, cancel_futures=True)

    async def answer(self, kind: Kind, body: bytearray, held: Held, exchange: Exchange, caller: bytes) -> None:
        """Answer a request whose body has come."""
        try:
            chat: ChatRequest = await self._door.parsed(kind, body, caller)
            exchange.ignored = chat.ignored
            chat = await self._within_limits(chat)
            prepared = await self._prepared(chat, caller)
            chat.messages.clear()  # the pictures are embeddings now
        finally:
            held.release()
        with self._few_keep_pixels(prepared):
            await self._answered(kind, chat, prepared, exchange, caller)

    async def _answered(
        self, kind: Kind, chat: ChatRequest, prepared: Prepared, exchange: Exchange, caller: bytes
    ) -> None:
        tokens = PromptTokens.of(prepared.request, self._card)
        if kind.shape is None:
            most = await self._triton.limit("max_prompt_tokens")
            return await exchange.send_json(kind.tokens(prepared.request.input_ids.tolist(), most))
        thinking = begins_thinking(prepared.request, self._bundle)
        shape = kind.shape(chat, self._settings.served_model_names[0], tokens, thinking)
        count_prompt(self.metrics, prepared, tokens)
        last, counting = None, None
        sampling = bound(chat.sampling, chat.tools, thinking, self._bundle.chat_template)
        async with (
            (await self._answer_places()).of(caller),
            AsyncExitStack() as turn,
            aclosing(self._client.stream(prepared.request, sampling)) as deltas,
        ):
            if sampling.structured_outputs is not None:
                await turn.enter_async_context(self._grammars.of(caller))
            async for delta in deltas:
                if last is None:
                    await turn.aclose()
                    self._count_first(delta, exchange)
                    counting = self._count_pictures(delta, prepared)
                last = delta
                self.metrics.completion_tokens.inc(len(delta.token_ids))
                await _pass_on(delta, chat, shape, exchange)
                if delta.finish_reason in ("stop", "length"):  # send the end before the stream closes, which takes time
                    await _end(chat, shape, exchange)
        if not exchange.is_complete:
            reason = last.finish_reason if last else ""
            raise ServerError(f"the server ended the answer with {reason!r}, stop or length is expected: ask again")
        if counting is not None:  # the request counts as running until then
            await counting

    async def _answer_places(self) -> Shares:
        """Places for answers on the server, of which one client leaves an eighth to others where nobody said a number."""
        active = await self._triton.limit("max_active") or Limits.max_active
        if self._answers is None:
            share = self._settings.max_answers_per_client or max(1, active - max(1, active // 8))
            self._answers = Shares(self._settings.max_concurrency, share)
        return self._answers

    async def _prepared(self, chat: ChatRequest, caller: bytes) -> Prepared:
        if chat.prompt is None:
            return await self._preparation.request(chat.messages, chat.tools, chat.template, caller)
        return await self._preparation.prompt(chat.prompt)

    async def _within_limits(self, chat: ChatRequest) -> ChatRequest:
        """Check the length of the text before anybody tokenises it, and replace max_tokens -1 by the server's limit."""
        text = chat.prompt if isinstance(chat.prompt, str) else ""
        await check_length(num_characters(chat.messages, chat.tools, chat.template) + len(text), self._triton)
        if not chat.fills_context:
            return chat
        most = await self._triton.limit("max_output_tokens") or Limits.max_output_tokens
        return replace(chat, sampling=replace(chat.sampling, max_tokens=most))

    def _count_first(self, delta: Delta, exchange: "Exchange") -> None:
        self.metrics.first_token_seconds.observe(time.perf_counter() - exchange.begun)
        self.metrics.items.labels("sent").inc(delta.num_uploaded)
        self.metrics.upload_bytes.inc(delta.upload_bytes)

    @contextmanager
    def _few_keep_pixels(self, prepared: Prepared) -> Iterator[None]:
        """Let few requests at once keep their pixels for the count of JPEG bytes; it does not count the others."""
        if len(self._keeping) >= MAX_KEEPING:
            prepared.items.clear()
        if prepared.items:
            self._keeping.add(id(prepared))
        try:
            yield
        finally:
            self._keeping.discard(id(prepared))

    def _count_pictures(self, delta: Delta, prepared: Prepared) -> asyncio.Future[None] | None:
        """Begin to compare an upload of pictures with their JPEG, in a thread: nobody's token waits for it."""
        items = list(prepared.items)
        prepared.items.clear()
        if not items or delta.num_uploaded != len(items) or any(item.timestamps for item in items):
            self._keeping.discard(id(prepared))
            return None

        def count() -> None:
            sizes = [jpeg_bytes(item, self._card) for item in items]
            if None not in sizes:
                self.metrics.picture_bytes.labels(delta.precision).inc(delta.upload_bytes)
                self.metrics.picture_bytes.labels("jpeg").inc(sum(size or 0 for size in sizes))
            self._keeping.discard(id(prepared))

        return asyncio.get_running_loop().run_in_executor(self._counters, count)


async def check_length(num_characters: int, triton: Triton, param: str = "messages") -> None:
    """Check the length of a text before anybody tokenises it.

    Raises:
        Failure: 400, it cannot fit the model's context.
    """
    tokens = await triton.limit("max_prompt_tokens") or Limits.max_prompt_tokens
    if num_characters > (most := tokens * CHARACTERS_PER_TOKEN):
        raise Failure(
            400,
            f"the request holds {num_characters} characters for the prompt, up to {most} are read for a context of {tokens} tokens: send less text",
            param=param, code="context_length_exceeded",
        )  # fmt: skip


def count_prompt(metrics: Metrics, prepared: Prepared, tokens: PromptTokens) -> None:
    """Count a prompt that is about to travel."""
    for kind, count in (("text", tokens.num_text), ("image", tokens.num_image), ("video", tokens.num_video)):
        metrics.prompt_tokens.labels(kind).inc(count)
    if num_items := len(prepared.request.items):
        metrics.items.labels("asked").inc(num_items)
        metrics.items.labels("encoded").inc(prepared.request.num_encoded)
        for runner in prepared.request.ran:
            metrics.runs.labels(runner).inc()
        metrics.encode_seconds.observe(prepared.encode_s)


async def _pass_on(delta: Delta, chat: ChatRequest, shape: Shape, exchange: Exchange) -> None:
    begun = shape.first() if chat.is_stream and not exchange.is_begun else []
    events = [*begun, *shape.add(delta)]
    if not chat.is_stream:
        return
    if not exchange.is_begun:  # send the status now
        await exchange.begin_events()
        await exchange.send_events(events)
    elif events:
        await exchange.send_events(events)


async def _end(chat: ChatRequest, shape: Shape, exchange: Exchange) -> None:
    if chat.is_stream:
        await exchange.send_events(shape.last(), is_end=True)
    else:
        await exchange.send_json(shape.whole())
