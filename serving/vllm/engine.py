"""The engine that scales out: vLLM behind the same protocol as the transformers engine.

vLLM batches, schedules and caches. Here stand the queue before it, so that a full server says so, the way in and out,
and what its failures mean to a client.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from vllm.exceptions import VLLMClientError
from vllm.v1.engine.exceptions import EngineDeadError

from contract.errors import DeadlineExceeded, EdgeVlmError, InvalidInput, ServerError, Unavailable
from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from serving.checkpoint import end_ids
from serving.engine import Delta, Stats
from serving.tokenizer import load_tokenizer
from serving.vllm.adapters import adapter, adapters
from serving.vllm.answer import Answer
from serving.vllm.arguments import engine_arguments
from serving.vllm.capacity import kv_bytes_per_token
from serving.vllm.host import Host
from serving.vllm.prompt import engine_input
from serving.vllm.request import Request, Send, sampling_params
from serving.vllm.tensors import check_tensors

log = logging.getLogger(__name__)
_DIED = "the engine died and is being restarted: try again"


class VllmEngine:
    """An `Engine` over vLLM. Owns its processes and one thread; `close` ends them."""

    def __init__(self, folder: Path, host: Host, limits: Limits) -> None:
        self._host, self._limits = host, limits
        self._card, self._tokenizer = read_language_card(folder), load_tokenizer(folder)
        facts = host.llm.vllm_config
        model, cache = facts.model_config, facts.cache_config
        self._end_ids, self._dtype = end_ids(folder, model.hf_config), model.dtype
        self._max_tokens = model.max_model_len
        self._adapters = adapters(facts.lora_config.default_mm_loras if facts.lora_config else None)
        value_bytes = 1 if cache.cache_dtype.startswith("fp8") else self._dtype.itemsize
        text_config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
        self._kv_bytes_per_token = kv_bytes_per_token(text_config, value_bytes)
        # never more than vLLM runs at once (engine_args.json may say less), so that who waits, waits in front of it
        max_active = facts.scheduler_config.max_num_seqs * facts.parallel_config.data_parallel_size
        self._slots = asyncio.Semaphore(min(limits.max_active, max_active))
        self._lock, self._ids = threading.Lock(), count()
        pool = (cache.num_gpu_blocks or 0) * cache.block_size * self._kv_bytes_per_token
        self._stats = Stats(max_kv_bytes=pool)
        self._requests: set[Request] = set()
        self._is_closing = False

    @classmethod
    def load(
        cls,
        folder: Path,
        limits: Limits,
        dtype: str = "auto",
        num_threads: int | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> "VllmEngine":
        """Start vLLM over a language checkpoint; arguments are those of an engine_args.json.

        Raises:
            BundleError: the folder is no language checkpoint, or tensors are missing from it.
            InvalidInput: an argument is none of vLLM's, or the server's own.
            ServerError: vLLM did not start.
        """
        check_tensors(folder)
        host = Host(engine_arguments(folder, limits, dtype, arguments or {}), num_threads)
        try:
            engine = cls(folder, host, limits)
            asyncio.run(engine._warm_up())
        except BaseException:
            host.close()
            raise
        return engine

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        deltas: asyncio.Queue[Delta | EdgeVlmError] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def send(item: Delta | EdgeVlmError) -> None:
            if not loop.is_closed():  # else the reader has left without a word
                loop.call_soon_threadsafe(deltas.put_nowait, item)

        with self._lock:
            self._check_room()
        request = await asyncio.to_thread(self._request, prompt, sampling, send)
        with self._lock:
            self._check_room()
            self._requests.add(request)
        running = self._host.submit(self._run(request))
        is_ended = False
        try:
            while not is_ended:
                item = await deltas.get()
                is_ended = isinstance(item, EdgeVlmError) or item.finish_reason is not None
                if isinstance(item, EdgeVlmError):
                    raise item
                yield item
        finally:
            running.cancel()
            with self._lock:
                self._requests.discard(request)
                self._count(num_cancelled=int(not is_ended))

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        with self._lock:
            # an answer may have been read to its end while its slot is still being freed
            return replace(self._stats, num_waiting=max(0, len(self._requests) - self._stats.num_active))

    def is_dead(self) -> bool:
        """See `Engine.is_dead`."""
        return self._host.is_dead() and not self._is_closing

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._is_closing = True
            requests = list(self._requests)
        for request in requests:
            request.send(Unavailable("the engine is shutting down"))
        self._host.close()

    def _check_room(self) -> None:
        if self._is_closing:
            raise Unavailable("the engine is shutting down")
        if self._host.is_dead():
            raise Unavailable(_DIED)
        running, room = len(self._requests), self._limits.max_active + self._limits.max_waiting
        if running >= room:
            raise Unavailable(f"{running} requests are running or waiting, {room} are allowed: try again later")

    def _request(self, prompt: Prompt, sampling: Sampling, send: Send) -> Request:
        """What vLLM needs of a request; packs and hashes, so not in an event loop."""
        num_tokens = prompt.input_ids.size
        if not sampling.max_tokens:
            raise InvalidInput("max_tokens is 0, an engine answers with at least 1 token")
        max_tokens = min(sampling.max_tokens, max(1, self._card.max_position_embeddings - num_tokens))
        if num_tokens + max_tokens > self._max_tokens:
            raise InvalidInput(
                f"the request needs {num_tokens} tokens and up to {max_tokens} more, this server has room for "
                f"{self._max_tokens}: send smaller pictures, less text, or a smaller max_tokens"
            )
        ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self._end_ids)
        return Request(
            engine_input(prompt, self._card, self._dtype),
            adapter(self._adapters, prompt),
            sampling_params(sampling, max_tokens, ends),
            Answer(sampling, self._tokenizer, ends),
            num_tokens,
            (num_tokens + max_tokens) * self._kv_bytes_per_token,
            send,
        )

    async def _run(self, request: Request) -> None:
        """In vLLM's loop: wait for a slot, then hand over what comes."""
        arrived_seconds = time.monotonic()
        slot = asyncio.create_task(self._slots.acquire())
        is_active = False
        try:
            await asyncio.wait({slot}, timeout=self._limits.max_queue_seconds)
            if not slot.done():
                raise DeadlineExceeded(
                    f"no slot became free within {self._limits.max_queue_seconds} s: try again later"
                )
            self._occupy(request, 1)
            is_active = True
            await self._answer(request, time.monotonic() - arrived_seconds)
        except EdgeVlmError as error:
            self._fail(request, error)
        except VLLMClientError as error:
            self._fail(request, InvalidInput(str(error)))
        except EngineDeadError:
            self._fail(request, Unavailable("the engine is shutting down" if self._is_closing else _DIED))
        except Exception:
            log.exception("a request failed")
            self._fail(request, ServerError("the engine failed on this request"))
        finally:
            if is_active:
                self._occupy(request, -1)
            if slot.done() and not slot.cancelled():
                self._slots.release()
            slot.cancel()

    async def _answer(self, request: Request, queue_seconds: float) -> None:
        is_first = True
        name = str(next(self._ids))
        stream = self._host.llm.generate(request.prompt, request.params, name, lora_request=request.adapter)
        async with aclosing(stream) as outputs:
            async for output in outputs:
                chunk = output.outputs[0]
                delta = request.answer.delta(list(chunk.token_ids), chunk.logprobs, chunk.finish_reason)
                if not delta.token_ids and delta.finish_reason is None:
                    continue
                with self._lock:
                    self._count(
                        num_output_tokens=len(delta.token_ids),
                        num_input_tokens=request.num_tokens if is_first else 0,
                        num_finished=int(delta.finish_reason is not None),
                    )
                request.send(replace(delta, queue_seconds=queue_seconds) if is_first else delta)
                is_first = False
                if delta.finish_reason:
                    return

    def _occupy(self, request: Request, sign: int) -> None:
        with self._lock:
            self._count(num_active=sign, kv_bytes=sign * request.kv_bytes)

    def _fail(self, request: Request, error: EdgeVlmError) -> None:
        with self._lock:
            self._count(num_failed=1)
        request.send(error)

    def _count(self, **added: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in added.items()})

    async def _warm_up(self) -> None:
        """One small picture: the first request allocates and compiles, which is not a client's time."""
        card, side = self._card, self._card.merge_size
        ids = (card.vision_start_token_id, card.image_token_id, card.vision_end_token_id)
        prompt = check_prompt(
            card,
            self._limits,
            input_ids=np.array(ids, np.int64),
            embeddings={
                "vision_embeddings_fp32": np.zeros((1, card.hidden_size), np.float32),
                "deepstack_embeddings_fp32": np.zeros((card.num_deepstack_levels, 1, card.hidden_size), np.float32),
            },
            image_grid_thw=np.array([[1, side, side]], np.int64),
            encoder_fingerprint=card.encoder_fingerprint,
        )
        async for _ in self.generate(prompt, Sampling(max_tokens=2, ignore_eos=True)):
            pass
        while self._stats.num_active:
            await asyncio.sleep(0.01)
        self._stats = Stats(max_kv_bytes=self._stats.max_kv_bytes)
