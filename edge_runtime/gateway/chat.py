"""The endpoints that answer: one request from its first byte to its last, also when its client leaves in between.

The gateway sends the status with the first token, so it can still answer with an error's status where the server
refuses a request. A client that goes away ends its request: the gateway drops one that waits for the tower, and cancels
one that runs on the server.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from contract.errors import ServerError, shown
from contract.limits import Limits
from edge_runtime.gateway.answer_grammar import bound
from edge_runtime.gateway.body import Bodies, Held
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.chat_request import ChatRequest, parse
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.failures import RETRY_AFTER_S, Failure, failure_of
from edge_runtime.gateway.kinds import Kind, Shape
from edge_runtime.gateway.messages import num_characters
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.preparation import Preparation, Prepared
from edge_runtime.gateway.reasoning import begins_thinking
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.triton import Client, Triton
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta

CHARACTERS_PER_TOKEN = 16  # no sensible text has more characters for each token
NUM_PARSERS = 2  # how many threads parse bodies
GONE = 499  # nginx's number for a client that went away; the gateway counts it and never sends it


class Chat:
    """What the endpoints share: threads, limits, metrics, the encoder and the connection to the server."""

    def __init__(
        self, pipeline: Pipeline, client: Client, settings: Settings, callers: Callers, triton: Triton
    ) -> None:
        self._settings, self._callers, self._client, self._triton = settings, callers, client, triton
        self._bundle = pipeline.encoder.bundle
        self._card = self._bundle.manifest.card
        self.preparation = Preparation(pipeline, settings)
        self._bodies, self._num_running = Bodies(settings), 0
        self._parsers = ThreadPoolExecutor(NUM_PARSERS, "body")
        self.metrics = Metrics(
            lambda: self._num_running, lambda: self.preparation.num_waiting, lambda: self._bodies.num_bytes
        )

    def close(self) -> None:
        """End the threads."""
        self.preparation.close()
        self._parsers.shutdown(wait=False, cancel_futures=True)

    async def serve(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an endpoint."""
        exchange = Exchange(kind, scope, receive, send)
        self._num_running += 1
        try:
            await self._serve(kind, Request(scope, receive), exchange)
        except ClientDisconnect:
            exchange.status = GONE
        except asyncio.CancelledError:  # the gateway stops
            exchange.status = GONE
            raise
        except Exception as error:
            await exchange.fail(failure_of(error))
        finally:
            self._num_running -= 1
            self.metrics.requests.labels(str(exchange.status)).inc()
            self.metrics.request_seconds.observe(time.perf_counter() - exchange.begun)

    async def _serve(self, kind: Kind, request: Request, exchange: Exchange) -> None:
        caller = self._callers.key(request)
        if self._num_running > self._settings.max_concurrency:
            raise Failure(
                503,
                f"{self._settings.max_concurrency} requests are under way, which is the most (--max-concurrency): try again later",
                code="overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # this also keeps pages of other origins out: with this type a browser asks first
            got = request.headers.get("content-type", "")
            raise Failure(415, f"content-type is {shown(got)}, application/json is expected")
        self._callers.count(caller)
        body, held = await self._bodies.read(exchange.scope, exchange.receive, caller)
        work = asyncio.create_task(self._answer(kind, body, held, exchange, caller))
        gone = asyncio.create_task(exchange.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if exchange.is_complete:  # the end of an answer looks like a client that left
                await work
            if not work.done():
                raise ClientDisconnect
            work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _answer(self, kind: Kind, body: bytearray, held: Held, exchange: Exchange, caller: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            chat = await loop.run_in_executor(self._parsers, parse, body, self._settings, kind.read)
            body.clear()
            exchange.ignored = chat.ignored
            chat = await self._within_limits(chat)
            prepared = await self._prepared(chat, caller)
            chat.messages.clear()  # the pictures are embeddings now
        finally:
            held.release()
        tokens = PromptTokens.of(prepared.request, self._card)
        if kind.shape is None:
            return await exchange.send_json(await self._tokens(prepared))
        thinking = begins_thinking(prepared.request, self._bundle)
        shape = kind.shape(chat, self._settings.served_model_names[0], tokens, thinking)
        self._count(prepared, tokens)
        last = None
        sampling = bound(chat.sampling, chat.tools, thinking, self._bundle.chat_template)
        async with aclosing(self._client.stream(prepared.request, sampling)) as deltas:
            async for delta in deltas:
                if last is None:
                    self._count_first(delta, exchange, prepared)
                last = delta
                self.metrics.completion_tokens.inc(len(delta.token_ids))
                await _pass_on(delta, chat, shape, exchange)
                if delta.finish_reason in ("stop", "length"):  # send the end before the stream closes, which takes time
                    await _end(chat, shape, exchange)
        if not exchange.is_complete:
            reason = last.finish_reason if last else ""
            raise ServerError(f"the server ended the answer with {reason!r}, stop or length is expected: ask again")

    async def _prepared(self, chat: ChatRequest, caller: bytes) -> Prepared:
        if chat.prompt is None:
            return await self.preparation.request(chat.messages, chat.tools, chat.template, caller)
        return await self.preparation.prompt(chat.prompt)

    async def _tokens(self, prepared: Prepared) -> dict[str, Any]:
        """vLLM's answer to /tokenize."""
        ids = prepared.request.input_ids.tolist()
        return {"count": len(ids), "max_model_len": await self._triton.limit("max_prompt_tokens"), "tokens": ids}

    async def _within_limits(self, chat: ChatRequest) -> ChatRequest:
        """Check the length of the text before anybody tokenises it, and replace max_tokens -1 by the server's limit."""
        tokens = await self._triton.limit("max_prompt_tokens") or Limits.max_prompt_tokens
        text = chat.prompt if isinstance(chat.prompt, str) else ""
        if (count := num_characters(chat.messages) + len(text)) > (most := tokens * CHARACTERS_PER_TOKEN):
            raise Failure(
                400,
                f"messages hold {count} characters, up to {most} are read for a context of {tokens} tokens: send less text",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        if not chat.fills_context:
            return chat
        most = await self._triton.limit("max_output_tokens") or Limits.max_output_tokens
        return replace(chat, sampling=replace(chat.sampling, max_tokens=most))

    def _count(self, prepared: Prepared, tokens: PromptTokens) -> None:
        for kind, count in (("text", tokens.num_text), ("image", tokens.num_image), ("video", tokens.num_video)):
            self.metrics.prompt_tokens.labels(kind).inc(count)
        if num_items := len(prepared.request.items):
            self.metrics.items.labels("asked").inc(num_items)
            self.metrics.items.labels("encoded").inc(prepared.request.num_encoded)
            self.metrics.encode_seconds.observe(prepared.encode_s)

    def _count_first(self, delta: Delta, exchange: "Exchange", prepared: Prepared) -> None:
        self.metrics.first_token_seconds.observe(time.perf_counter() - exchange.begun)
        self.metrics.items.labels("sent").inc(delta.num_uploaded)
        self.metrics.upload_bytes.inc(delta.upload_bytes)
        if prepared.jpeg_bytes and delta.num_uploaded == len(prepared.request.items):
            self.metrics.picture_bytes.labels(delta.precision).inc(delta.upload_bytes)
            self.metrics.picture_bytes.labels("jpeg").inc(prepared.jpeg_bytes)


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


class Endpoint:
    """One endpoint, an ASGI application."""

    def __init__(self, chat: Chat, kind: Kind) -> None:
        self._chat, self._kind = chat, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._chat.serve(self._kind, scope, receive, send)
