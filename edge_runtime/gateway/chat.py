"""POST /v1/chat/completions: one request from its first byte to its last, whoever leaves in between.

The status is sent with the first token, so what the server refuses still has a status of its own. A caller who goes away
ends the request wherever it is: waiting for the tower it is dropped, on the server it is cancelled.
"""

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from contract.errors import ServerError
from contract.limits import Limits
from edge_runtime.gateway.body import Bodies, Held
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.chat_request import ChatRequest, parse
from edge_runtime.gateway.completion import Completion, PromptTokens
from edge_runtime.gateway.failures import LOG, RETRY_AFTER_S, Failure, failure_of
from edge_runtime.gateway.messages import num_characters
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.preparation import Preparation, Prepared
from edge_runtime.gateway.reasoning import begins_thinking
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.triton import Client, Triton
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta

CHARACTERS_PER_TOKEN = 16  # text that needs more of them is no text
NUM_PARSERS = 2  # threads
GONE = 499  # nginx's number for a caller who went away; never sent
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the pieces
]


MAX_LOGGED = 256
_LOGGED = set[str]()


class Chat:
    """The endpoint, an ASGI application."""

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        self._num_running += 1
        try:
            await self._serve(Request(scope, receive), exchange)
        except ClientDisconnect:
            exchange.status = GONE
        except asyncio.CancelledError:  # the gateway is stopping
            exchange.status = GONE
            raise
        except Exception as error:
            await exchange.fail(failure_of(error))
        finally:
            self._num_running -= 1
            self.metrics.requests.labels(str(exchange.status)).inc()
            self.metrics.request_seconds.observe(time.perf_counter() - exchange.begun)

    async def _serve(self, request: Request, exchange: "Exchange") -> None:
        caller = self._callers.key(request)
        if self._num_running > self._settings.max_concurrency:
            raise Failure(
                503,
                f"{self._settings.max_concurrency} requests are under way, which is the most (--max-concurrency)",
                code="overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # also keeps pages of other origins out: this type makes a browser ask first
            raise Failure(415, "content-type must be application/json")
        self._callers.count(caller)
        body, held = await self._bodies.read(exchange.scope, exchange.receive, caller)
        work = asyncio.create_task(self._answer(body, held, exchange))
        gone = asyncio.create_task(exchange.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if exchange.is_complete:  # the end of an answer looks like a caller who left
                await work
            if not work.done():
                raise ClientDisconnect
            work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _answer(self, body: bytearray, held: Held, exchange: "Exchange") -> None:
        try:
            chat = await asyncio.get_running_loop().run_in_executor(self._parsers, parse, body, self._settings)
            body.clear()
            exchange.ignored = chat.ignored
            chat = await self._within_limits(chat)
            prepared = await self.preparation.request(chat.messages, chat.tools, chat.template)
            chat.messages.clear()  # the pictures are embeddings now
        finally:
            held.release()
        tokens = PromptTokens.of(prepared.request, self._card)
        thinking = begins_thinking(prepared.request, self._bundle)
        completion = Completion(chat, self._settings.served_model_names[0], tokens, thinking)
        self._count(prepared, tokens)
        last = None
        async with aclosing(self._client.stream(prepared.request, chat.sampling)) as deltas:
            async for delta in deltas:
                if last is None:
                    self._count_first(delta, exchange)
                last = delta
                self.metrics.completion_tokens.inc(len(delta.token_ids))
                await _pass_on(delta, chat, completion, exchange)
                if delta.finish_reason in ("stop", "length"):  # said before the stream is closed, which takes time
                    await _end(chat, completion, exchange)
        if not exchange.is_complete:
            raise ServerError(f"the server ended the answer with {last.finish_reason if last else 'nothing'!r}")

    async def _within_limits(self, chat: ChatRequest) -> ChatRequest:
        """Judge the text before it is tokenised, and let max_tokens -1 be what the server gives."""
        tokens = await self._triton.limit("max_prompt_tokens") or Limits.max_prompt_tokens
        if (count := num_characters(chat.messages)) > (most := tokens * CHARACTERS_PER_TOKEN):
            raise Failure(
                400, f"messages hold {count} characters, up to {most} are read for a context of {tokens} tokens",
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

    def _count_first(self, delta: Delta, exchange: "Exchange") -> None:
        self.metrics.first_token_seconds.observe(time.perf_counter() - exchange.begun)
        self.metrics.items.labels("sent").inc(delta.num_uploaded)
        self.metrics.upload_bytes.inc(delta.upload_bytes)


class Exchange:
    """One request and its answer on the wire."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.begun, self.status = time.perf_counter(), 200
        self.ignored: tuple[str, ...] = ()
        self.is_begun = self.is_complete = False

    async def gone(self) -> None:
        """Wait until the caller goes away. Only after the body has been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def begin_events(self) -> None:
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS + self._headers()})

    async def send_events(self, *values: dict[str, Any], is_end: bool = False) -> None:
        """Server-sent events, in one write."""
        lines = b"".join(b"data: " + _json(value) + b"\n\n" for value in values)
        if is_end:
            lines += b"data: [DONE]\n\n"
            self.is_complete = True
        await self._send({"type": "http.response.body", "body": lines, "more_body": not is_end})

    async def send_json(self, value: dict[str, Any]) -> None:
        self.is_begun = self.is_complete = True
        response = JSONResponse(value)
        response.raw_headers += self._headers()
        await response(self.scope, self.receive, self._send)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Names the fields that were not read; the log names each once."""
        if not self.ignored:
            return []
        names = [re.sub(r"[^\w.-]", "?", name[:64], flags=re.ASCII) for name in self.ignored[:16]]
        for name in names:
            if name not in _LOGGED and len(_LOGGED) < MAX_LOGGED:
                _LOGGED.add(name)
                LOG.warning("field %r is not known here and was ignored (--strict refuses such requests)", name)
        return [(b"x-ignored-fields", ", ".join(names).encode())]

    async def fail(self, failure: Failure) -> None:
        """An error answer, or an error event where the answer has begun."""
        self.status = failure.status
        if self.is_complete:  # nothing more can be said
            return
        if self.is_begun:
            await self.send_events(failure.body(), is_end=True)
        else:
            self.is_begun = True
            await failure.response()(self.scope, self.receive, self._send)


async def _pass_on(delta: Delta, chat: ChatRequest, completion: Completion, exchange: Exchange) -> None:
    chunk = completion.add(delta)
    if chat.is_stream and not exchange.is_begun:
        await exchange.begin_events()
        chunks = [completion.first()] if chunk is None else [completion.first(), chunk]
        await exchange.send_events(*chunks)
    elif chunk is not None:
        await exchange.send_events(chunk)


async def _end(chat: ChatRequest, completion: Completion, exchange: Exchange) -> None:
    if chat.is_stream:
        await exchange.send_events(*completion.last(), is_end=True)
    else:
        await exchange.send_json(completion.whole())


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
